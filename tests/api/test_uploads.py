"""Files come in streamed and checked, or leave nothing behind."""

import contextlib
import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from fastapi.testclient import TestClient

from app.core.settings import Settings
from app.core.unit import Services
from app.main import create_app
from tests.api.conftest import _client
from tests.api.seeds import npz_bytes, onnx_bytes, zip_bytes


def _files(settings: Settings) -> list[Path]:
    root = settings.var_dir / "objects"
    return [path for path in root.rglob("*") if path.is_file()]


def _messages(settings: Settings, queue: str) -> list[Any]:
    with redis.Redis.from_url(settings.broker_url.get_secret_value()) as broker:
        return [json.loads(message) for message in broker.lrange(queue, 0, -1)]


def test_a_network_is_stored_shown_and_rung_for(client: TestClient, settings: Settings) -> None:
    data = onnx_bytes()
    given = {"name": "tiny", "input": json.dumps({"scale": 1, "mean": [0.5, 0.5, 0.5]})}
    answer = client.post("/v1/models", files={"file": ("dir/tiny.onnx", data)}, data=given)
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert (model["object"], model["status"], model["format"]) == ("model", "inspecting", "onnx")
    assert (model["name"], model["bytes"]) == ("tiny", len(data))
    assert model["created_at"].endswith("Z")
    assert client.get(f"/v1/models/{model['id']}").json() == model
    (message,) = _messages(settings, "quick")
    assert message["headers"]["task"] == "worker.inspect_model"
    (stored,) = _files(settings)
    assert stored.name == model["sha256"]
    assert stored.read_bytes() == data


def test_a_data_set_is_stored_shown_and_rung_for(client: TestClient, settings: Settings) -> None:
    classes = {"cat": 3, "dog": 5}
    archive = zip_bytes({"cat/1.png": b"x", "dog/1.png": b"y"})
    answer = client.post(
        "/v1/datasets", files={"file": ("pets.zip", archive)}, data={"classes": json.dumps(classes)}
    )
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    assert (dataset["object"], dataset["status"], dataset["format"]) == ("dataset", "inspecting", "images")
    assert dataset["name"] == "pets"
    (message,) = _messages(settings, "quick")
    assert message["headers"]["task"] == "worker.inspect_dataset"
    npz = client.post("/v1/datasets", files={"file": ("x.npz", npz_bytes())})
    assert npz.json()["format"] == "npz"


def _form(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, filename, data in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        body += f'--b0\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()
        body += data + b"\r\n"
    return body + b"--b0--\r\n", {"Content-Type": "multipart/form-data; boundary=b0"}


@pytest.mark.parametrize("file_first", [True, False])
def test_fields_may_come_before_or_after_the_file(client: TestClient, file_first: bool) -> None:
    parts: list[tuple[str, str | None, bytes]] = [
        ("file", "a.onnx", onnx_bytes()),
        ("name", None, "Netz ä".encode()),
    ]
    body, headers = _form(*(parts if file_first else reversed(parts)))
    answer = client.post("/v1/models", content=body, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == "Netz ä"


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([("name", None, b"x")], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("file", "b", onnx_bytes())], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("surprise", None, b"1")], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("input", None, b"{")], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("input", None, b'{"scale":0}')], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("input", None, b'{"colour":1}')], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("name", None, b"\xff\xfe")], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("name", None, b"a\0b")], 422, "validation_failed"),
        ([("file", "a", onnx_bytes()), ("name", None, b"n" * 300)], 422, "validation_failed"),
        ([("file", "a", b"")], 422, "unsupported_format"),
        ([("file", "a.pkl", b"\x80\x04\x95" + b"x" * 50)], 422, "unsafe_serialization"),
        ([("file", "a.txt", b"hello, this is no network")], 422, "unsupported_format"),
    ],
)
def test_a_form_that_is_wrong_is_refused_and_leaves_nothing(
    client: TestClient, settings: Settings, parts: Any, status: int, code: str
) -> None:
    body, headers = _form(*parts)
    answer = client.post("/v1/models", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert _files(settings) == []
    assert client.get("/v1/models").json()["data"] == []


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x80\x04\x95" + b"x" * 50, "unsafe_serialization"),
        (zip_bytes({"archive/data.pkl": b"x"}), "unsafe_serialization"),
        (b"PARE" + b"x" * 50, "unsupported_format"),
        (zip_bytes({}), "unsupported_format"),
        (b"just text", "unsupported_format"),
    ],
)
def test_what_is_no_data_set_is_refused_at_once(
    client: TestClient, settings: Settings, data: bytes, code: str
) -> None:
    answer = client.post("/v1/datasets", files={"file": ("x", data)})
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "hint" in answer.json()
    assert _files(settings) == []


@pytest.mark.parametrize("classes", ["[]", '{"a": -1}', '{"a": "b"}', "nonsense", '{"": 1}'])
def test_a_class_map_must_name_indices(client: TestClient, classes: str) -> None:
    answer = client.post("/v1/datasets", files={"file": ("x.npz", npz_bytes())}, data={"classes": classes})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("#/classes")


@pytest.mark.parametrize("cut", [10, 60, -30, -3])
def test_a_form_that_ends_too_early_leaves_nothing(client: TestClient, settings: Settings, cut: int) -> None:
    body, headers = _form(("file", "a.onnx", onnx_bytes()))
    answer = client.post("/v1/models", content=body[:cut], headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert _files(settings) == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "multipart/form-data", "multipart/form-data; boundary=" + "x" * 300]
)
def test_a_body_that_is_no_form_is_refused(client: TestClient, content_type: str) -> None:
    answer = client.post("/v1/models", content=b"{}", headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def test_a_pickle_is_refused_long_before_its_end(live: httpx2.Client) -> None:
    """Its first bytes tell; a refusal that waits for gigabytes is none."""
    sent = 0

    def pieces() -> Any:
        nonlocal sent
        body, _ = _form(("file", "a.pkl", b"\x80\x04\x95" + b"x" * 100_000))
        yield body[: -len(b"\r\n--b0--\r\n")]
        for _ in range(200):
            sent += 1
            yield b"x" * 1_000_000

    with contextlib.suppress(httpx2.WriteError):  # the answer came, and the connection closed
        answer = live.post(
            "/v1/models",
            content=pieces(),
            headers={"Content-Type": "multipart/form-data; boundary=b0", "Connection": "close"},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "unsafe_serialization")
    assert sent < 100


@pytest.fixture
def small(services: Services, settings: Settings, owner_secret: str) -> TestClient:
    """The service with a limit of 1000 bytes for networks."""
    limited = replace(services, settings=settings.model_copy(update={"max_model_bytes": 1000}))
    return _client(create_app(limited.settings, limited), owner_secret)


def test_a_file_over_the_limit_is_refused_with_the_numbers(small: TestClient, settings: Settings) -> None:
    exactly = onnx_bytes() + b"\0" * (1000 - len(onnx_bytes()))
    over = small.post("/v1/models", files={"file": ("a.onnx", exactly + b"\0")})
    assert (over.status_code, over.json()["code"], over.json()["limit"]) == (413, "upload_too_large", 1000)
    assert "1,001" in over.json()["detail"]
    assert _files(settings) == []
    fits = small.post("/v1/models", files={"file": ("a.onnx", exactly)})
    assert fits.status_code == 201, fits.text


def test_a_declared_length_over_the_limit_is_refused_before_the_body(live: httpx2.Client) -> None:
    answer = _raw(
        live,
        "Content-Length: 600000000000\r\nContent-Type: multipart/form-data; boundary=b",
        live.headers["authorization"],
    )
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"upload_too_large" in answer


def test_a_stranger_is_refused_before_the_body(live: httpx2.Client) -> None:
    answer = _raw(
        live, "Content-Length: 1000000\r\nContent-Type: multipart/form-data; boundary=b", "Bearer no"
    )
    assert b" 401 " in answer.split(b"\r\n")[0]


def _connect(live: httpx2.Client) -> socket.socket:
    return socket.create_connection((live.base_url.host, live.base_url.port or 80), timeout=10)


def _raw(live: httpx2.Client, headers: str, authorization: str) -> bytes:
    """Send the head of an upload and never its body; give what comes back."""
    head = f"POST /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{headers}\r\n\r\n"
    with _connect(live) as connection:
        connection.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer or b"}" not in answer:
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
        return answer


def test_a_client_that_goes_away_leaves_nothing(live: httpx2.Client, settings: Settings) -> None:
    head = (
        "POST /v1/models HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {live.headers['authorization']}\r\n"
        "Content-Length: 30000000\r\nContent-Type: multipart/form-data; boundary=b0\r\n\r\n"
    )
    body, _ = _form(("file", "a.onnx", onnx_bytes() + b"\0" * 20_000_000))
    with _connect(live) as connection:
        connection.sendall(head.encode() + body[:20_000_000])
        _wait_until(lambda: _files(settings) != [])  # more than the store's buffer: it lies on the disk
    _wait_until(lambda: _files(settings) == [])
    assert live.get("/v1/models").json()["data"] == []


def _wait_until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_large_upload_does_not_fill_the_memory(live: httpx2.Client) -> None:
    import resource

    def pieces() -> Any:
        body, _ = _form(("file", "a.onnx", onnx_bytes() + b"\0" * 1_000_000))
        end = b"\r\n--b0--\r\n"
        yield body[: -len(end)]
        for _ in range(150):
            yield b"\0" * 1_000_000
        yield end

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = live.post(
        "/v1/models", content=pieces(), headers={"Content-Type": "multipart/form-data; boundary=b0"}
    )
    assert answer.status_code == 201, answer.text
    assert answer.json()["bytes"] > 151_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
