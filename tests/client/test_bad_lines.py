"""Broken streams, cut and damaged downloads, servers that are busy or away."""

import hashlib
from pathlib import Path

import pytest

from basisconv_client import (
    Artifact,
    Client,
    DownloadDamaged,
    Patience,
    ServiceError,
    ServiceUnavailable,
    TooManyRequests,
    Unreachable,
)
from tests.client.misbehaving import frame, serving, status, stream

GOOD = b"0123456789" * 100


def artifact(content: bytes, name: str = "net.onnx") -> Artifact:
    return Artifact(
        id="artifact_x",
        job="job_x",
        format="onnx",
        name=name,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def impatient(url: str, waits: list[float] | None = None) -> Client:
    """Does not wait, and writes down how long it would have."""
    kept = [] if waits is None else waits
    return Client(url, "key", patience=Patience(sleep=kept.append, jitter=lambda: 1.0))


def test_a_broken_stream_is_taken_up_where_it_broke_and_no_event_comes_twice() -> None:
    answers = [
        stream(frame(1, "stage"), frame(2, "progress"), cut=True),
        status(503),
        stream(frame(3, "progress")),
        stream(frame(4, "done")),
    ]
    with serving(answers) as (url, asked), impatient(url) as client:
        assert [event.seq for event in client.events("job_x")] == [1, 2, 3, 4]
    assert [headers.get("Last-Event-ID") for headers in asked] == [None, "2", "2", "3"]


def test_a_stream_with_nothing_left_ends() -> None:
    with serving([status(204)]) as (url, _), impatient(url) as client:
        assert list(client.events("job_x")) == []


def test_a_server_that_stays_away_is_given_up_in_the_end() -> None:
    waits: list[float] = []
    with serving([status(503)]) as (url, asked), impatient(url, waits) as client:
        with pytest.raises(ServiceUnavailable):
            list(client.events("job_x"))
        assert len(asked) == Patience.tries_following
        assert 60 < sum(waits) < 180
        with pytest.raises(ServiceUnavailable):
            client.job("job_x")
    with impatient(url) as client, pytest.raises(Unreachable, match=url):
        client.job("job_x")


def test_a_busy_server_is_asked_again_when_it_says_so_and_not_for_ever() -> None:
    waits: list[float] = []
    busy = status(429, b'{"code": "rate_limited"}', Retry_After="7")
    with serving([busy, busy, status(200, b"{}")]) as (url, asked), impatient(url, waits) as client:
        assert client.get("/v1/jobs") == {}
    assert (waits, len(asked)) == ([7.0, 7.0], 3)
    tomorrow = status(429, b'{"code": "rate_limited"}', Retry_After="86400")
    with serving([tomorrow]) as (url, asked), impatient(url) as client, pytest.raises(TooManyRequests):
        client.get("/v1/jobs")
    assert len(asked) == 1


def test_what_makes_something_is_sent_again_with_the_same_idempotency_key() -> None:
    lost = status(201, b"{", missing=100)
    with (
        serving([lost, status(502), status(201, b"{}")]) as (url, asked),
        impatient(url) as client,
        pytest.raises(ValueError, match="Job"),  # what came in the end is no job
    ):
        client.create_job("model_x", macs=0.5)
    keys = {headers["Idempotency-Key"] for headers in asked}
    assert (len(asked), len(keys)) == (3, 1)


def test_a_refusal_is_not_asked_again() -> None:
    for code in (400, 401, 404, 409, 422, 500):
        with serving([status(code)]) as (url, asked), impatient(url) as client:
            with pytest.raises(ServiceError) as caught:
                client.job("job_x")
            assert (caught.value.status, len(asked)) == (code, 1)


def test_a_cut_download_goes_on_at_the_next_byte(tmp_path: Path) -> None:
    told: list[int] = []
    wanted = artifact(GOOD)
    answers = [status(200, GOOD[:300], missing=700), status(503), status(206, GOOD[300:])]
    with serving(answers) as (url, asked), impatient(url) as client:
        path = client.download(wanted, tmp_path, lambda done, _: told.append(done))
    assert path.read_bytes() == GOOD
    assert [headers.get("Range") for headers in asked] == [None, "bytes=300-", "bytes=300-"]
    assert asked[1]["If-Range"] == f'"{wanted.sha256}"'
    assert (told[-1], list(tmp_path.iterdir())) == (1000, [path])


def test_a_name_that_ends_in_a_slash_is_a_folder_and_is_made(tmp_path: Path) -> None:
    with serving([status(200, GOOD)]) as (url, _), impatient(url) as client:
        assert client.download(artifact(GOOD), f"{tmp_path}/smaller/") == tmp_path / "smaller" / "net.onnx"
    assert (tmp_path / "smaller" / "net.onnx").read_bytes() == GOOD


def test_what_a_killed_download_left_is_used_by_the_next(tmp_path: Path) -> None:
    with serving([status(200, GOOD[:300], missing=700), status(404)]) as (url, _), impatient(url) as client:
        with pytest.raises(ServiceError):
            client.download(artifact(GOOD), tmp_path)
        assert not (tmp_path / "net.onnx").exists()
    with serving([status(206, GOOD[300:])]) as (url, asked), impatient(url) as client:
        assert client.download(artifact(GOOD), tmp_path).read_bytes() == GOOD
    assert asked[0]["Range"] == "bytes=300-"


def test_a_bad_beginning_is_thrown_away_and_fetched_anew(tmp_path: Path) -> None:
    wanted = artifact(GOOD)
    (tmp_path / f".net.onnx.{wanted.sha256[:12]}.part").write_bytes(b"x" * 300)
    with serving([status(206, GOOD[300:]), status(200, GOOD)]) as (url, _), impatient(url) as client:
        assert client.download(wanted, tmp_path).read_bytes() == GOOD


def test_a_download_that_arrived_damaged_leaves_no_file(tmp_path: Path) -> None:
    wanted = artifact(b"good")
    with serving([status(200, b"evil"), status(200, b"good")]) as (url, _), impatient(url) as client:
        with pytest.raises(DownloadDamaged, match=wanted.sha256):
            client.download(wanted, tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert client.download(wanted, tmp_path).read_bytes() == b"good"


def test_a_download_never_leaves_its_folder(tmp_path: Path) -> None:
    with serving([status(200, b"x")]) as (url, _), impatient(url) as client:
        found = client.download(artifact(b"x", "../../evil.onnx"), f"{tmp_path}/a/")
    assert found == tmp_path / "a" / "evil.onnx"
