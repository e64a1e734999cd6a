"""The client: against the real service, and against a server on this machine that misbehaves on purpose."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from app.client import Client, DownloadDamaged, Rejected, ServiceError
from tests.data.making import class_folders, npz_of, picture, zip_of
from tests.support.service import Service


def test_an_upload_is_followed_until_it_is_ready(shared_server: Service, tmp_path: Path) -> None:
    upload = tmp_path / "pets.zip"
    upload.write_bytes(zip_of(class_folders()))
    with Client(shared_server.url, shared_server.key) as client:
        sent = client.upload_dataset(upload, name="pets", classes={"dog": 0, "cat": 1})
        ready = client.wait_ready("datasets", sent["id"], timeout_seconds=60)
    assert ready["examples"] == {"train": 8, "test": 2}
    assert (ready["name"], ready["classes"], ready["image"]) == ("pets", 2, [6, 6, 3])


def test_a_rejected_upload_says_why(shared_server: Service, tmp_path: Path) -> None:
    upload = tmp_path / "odd.npz"
    upload.write_bytes(npz_of(images=picture(4, 4)[None]))
    with Client(shared_server.url, shared_server.key) as client:
        sent = client.upload_dataset(upload)
        with pytest.raises(Rejected, match="holds 'images'; expected are x and y") as caught:
            client.wait_ready("datasets", sent["id"], timeout_seconds=60)
    assert caught.value.code == "malformed_dataset"


def test_a_refusal_carries_the_services_code(shared_server: Service, tmp_path: Path) -> None:
    with Client(shared_server.url, "bc_wrong") as client, pytest.raises(ServiceError) as caught:
        client.get("/v1/jobs")
    assert (caught.value.status, caught.value.code) == (401, "unauthenticated")
    with Client(shared_server.url, shared_server.key) as client, pytest.raises(ServiceError) as caught:
        next(client.events("job_" + "0" * 26))
    assert (caught.value.status, caught.value.code) == (404, "not_found")


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answers: list[Answer]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A real HTTP server that gives these answers in turn; its URL and the headers that it was sent."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            answers[min(len(asked), len(answers)) - 1](self)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def frame(seq: int, kind: str) -> bytes:
    body = {"id": f"event_{seq}", "seq": seq, "type": kind, "stage": None, "message": "", "data": {}}
    return f"event: {kind}\nid: {seq}\ndata: {json.dumps(body)}\n\n".encode()


def stream(*frames: bytes, cut: bool = False) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = b": hello\n\n" + b"".join(frames)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) + 100 * cut))  # promised, and never sent
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def status(code: int, body: bytes = b"") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_broken_stream_is_taken_up_where_it_broke_and_no_event_comes_twice() -> None:
    answers = [
        stream(frame(1, "stage"), frame(2, "progress"), cut=True),
        status(503),
        stream(frame(3, "progress")),
        stream(frame(4, "done")),
    ]
    with serving(answers) as (url, asked), Client(url, "key", sleep=lambda seconds: None) as client:
        assert [event.seq for event in client.events("job_x")] == [1, 2, 3, 4]
    assert [headers.get("Last-Event-ID") for headers in asked] == [None, "2", "2", "3"]


def test_a_stream_with_nothing_left_ends() -> None:
    with serving([status(204)]) as (url, _), Client(url, "key") as client:
        assert list(client.events("job_x")) == []


def test_a_server_that_stays_away_is_given_up_in_the_end() -> None:
    waits: list[float] = []
    with serving([status(503)]) as (url, asked), Client(url, "key", sleep=waits.append) as client:
        with pytest.raises(ServiceError) as caught:
            list(client.events("job_x"))
        assert caught.value.status == 503
        assert len(asked) == 8
    assert sum(waits) < 60


def test_a_download_that_arrived_damaged_leaves_no_file(tmp_path: Path) -> None:
    artifact = {"id": "artifact_x", "name": "net.onnx", "sha256": hashlib.sha256(b"good").hexdigest()}
    with serving([status(200, b"evil"), status(200, b"good")]) as (url, _), Client(url, "key") as client:
        with pytest.raises(DownloadDamaged, match=artifact["sha256"]):
            client.download(artifact, tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert client.download(artifact, tmp_path).read_bytes() == b"good"


def test_a_download_cut_short_leaves_no_file(tmp_path: Path) -> None:
    artifact = {"id": "artifact_x", "name": "net.onnx", "sha256": hashlib.sha256(b": hello\n\n").hexdigest()}
    with serving([stream(cut=True)]) as (url, _), Client(url, "key") as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.download(artifact, tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_download_never_leaves_its_folder(tmp_path: Path) -> None:
    artifact = {"id": "artifact_x", "name": "../../evil.onnx", "sha256": hashlib.sha256(b"x").hexdigest()}
    with serving([status(200, b"x")]) as (url, _), Client(url, "key") as client:
        assert client.download(artifact, tmp_path / "a") == tmp_path / "a" / "evil.onnx"
