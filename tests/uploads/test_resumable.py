"""Uploads that come in several requests, on both kinds of storage, spoken by hand."""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from app.core.settings import Settings
from app.core.unit import Services
from app.storage.pieces import BLOCK_BYTES
from app.uploads.service import SILENT_SECONDS
from app.uploads.sweeper import Sweeper
from app.uploads.tables import Resumable
from app.uploads.tus import CONTENT_TYPE
from tests.api.conftest import HandClock
from tests.api.seeds import onnx_bytes, zip_bytes
from tests.support.processes import wait_until
from tests.uploads.conftest import RESUMABLE, Tus, leftovers, network, use

Cut = Callable[..., None]


NETWORK = network(3 * BLOCK_BYTES + 12_345)
SHA256 = hashlib.sha256(NETWORK).hexdigest()


def _checksum(algorithm: str, data: bytes) -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


def _stored(services: Services, sha256: str, size: int) -> bytes:
    return b"".join(services.store.read(sha256, 0, size))


# From the first byte to a network


def test_a_network_in_three_requests_is_stored_shown_and_the_upload_gone(
    tus: Tus, client: TestClient, services: Services
) -> None:
    url = tus.begin(len(NETWORK), filename="dir/net.onnx", kind="model", sha256=SHA256)
    offset = 0
    for end in (7, 2 * BLOCK_BYTES + 5, len(NETWORK)):
        answer = tus.patch(url, offset, NETWORK[offset:end])
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(end)), answer.text
        assert tus.offset(url) == end
        offset = end
    made = use(client, url, input={"scale": 1, "mean": [0.5] * 3}, name="tiny", sha256=SHA256)
    assert made.status_code == 201, made.text
    model = made.json()
    assert (model["name"], model["format"], model["status"]) == ("tiny", "onnx", "inspecting")
    assert (model["sha256"], model["bytes"]) == (SHA256, len(NETWORK))
    assert _stored(services, SHA256, len(NETWORK)) == NETWORK
    assert tus.head(url).status_code == 404
    assert leftovers(services) == set()
    assert use(client, url).status_code == 404


def test_a_data_set_takes_its_name_from_the_file_and_its_classes_from_the_body(
    tus: Tus, client: TestClient
) -> None:
    archive = zip_bytes({"cat/1.png": b"x", "dog/1.png": b"y"})
    url = tus.begin(len(archive), filename="pets.zip")
    tus.patch(url, 0, archive)
    made = use(client, url, "/v1/datasets", classes={"cat": 3, "dog": 5})
    assert made.status_code == 201, made.text
    assert (made.json()["name"], made.json()["format"]) == ("pets", "images")


def test_the_first_bytes_may_come_with_the_creation(tus: Tus, client: TestClient) -> None:
    data = onnx_bytes()
    headers = RESUMABLE | {"Upload-Length": str(len(data)), "Content-Type": CONTENT_TYPE}
    part = client.post("/v1/uploads", content=data[:40], headers=headers)
    assert (part.status_code, part.headers["Upload-Offset"]) == (201, "40"), part.text
    assert part.json()["received"] == 40
    assert tus.patch(part.headers["Location"], 40, data[40:]).status_code == 204
    whole = client.post("/v1/uploads", content=data, headers=headers)
    assert (whole.status_code, whole.headers["Upload-Offset"]) == (201, str(len(data)))
    assert "Upload-Expires" not in whole.headers
    assert use(client, whole.headers["Location"]).status_code == 201


def test_equal_files_are_stored_once(tus: Tus, client: TestClient, services: Services) -> None:
    data = onnx_bytes()
    for _ in range(2):
        url = tus.begin(len(data))
        tus.patch(url, 0, data)
        assert use(client, url).status_code == 201
    form = client.post("/v1/models", files={"file": ("a.onnx", data)})
    rows = client.get("/v1/models").json()["data"]
    assert {row["sha256"] for row in rows} == {form.json()["sha256"]}
    for row in rows:
        assert services.store.exists(row["sha256"])
        assert client.delete(f"/v1/models/{row['id']}").status_code == 204
    assert not services.store.exists(rows[0]["sha256"])


def test_the_next_request_may_reach_another_process(
    tus: Tus, second_process: TestClient, services: Services
) -> None:
    other = Tus(second_process)
    url = tus.begin(len(NETWORK), filename="a.onnx", sha256=SHA256)
    half = BLOCK_BYTES + 100
    assert tus.patch(url, 0, NETWORK[:half]).status_code == 204
    assert other.offset(url) == half
    assert other.patch(url, half, NETWORK[half:-9]).status_code == 204
    assert tus.patch(url, len(NETWORK) - 9, NETWORK[-9:]).status_code == 204
    made = use(second_process, url)
    assert made.status_code == 201, made.text
    assert made.json()["sha256"] == SHA256
    assert _stored(services, SHA256, len(NETWORK)) == NETWORK


def test_an_idempotency_key_gives_the_first_answer_again(tus: Tus, client: TestClient) -> None:
    key = {"Idempotency-Key": "k1"}
    first, again = tus.create(5, key), tus.create(5, key)
    assert first.headers["Location"] == again.headers["Location"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert tus.create(6, key).json()["code"] == "idempotency_conflict"
    data = onnx_bytes()
    url = tus.begin(len(data))
    tus.patch(url, 0, data)
    body = {"upload": url.rsplit("/", 1)[1]}
    made, repeated = (client.post("/v1/models", json=body, headers=key) for _ in range(2))
    assert made.status_code == repeated.status_code == 201, repeated.text
    assert made.json() == repeated.json()
    other = client.post("/v1/models", json=body | {"name": "x"}, headers=key)
    assert other.json()["code"] == "idempotency_conflict"


# Cut connections


@pytest.mark.parametrize("sent", [1, 1000, 70_000, BLOCK_BYTES + 77_777])
def test_every_byte_that_came_before_a_cut_counts(
    live_tus: Tus, cut: Cut, services: Services, sent: int
) -> None:
    url = live_tus.begin(len(NETWORK), filename="a.onnx", sha256=SHA256)
    cut(url, 0, NETWORK[:sent], len(NETWORK))
    wait_until(lambda: live_tus.offset(url) == sent, 10)
    wait_until(lambda: _writer(services, url) is None, 10)
    assert live_tus.patch(url, sent, NETWORK[sent:]).status_code == 204
    made = use(live_tus.client, url)
    assert made.json()["sha256"] == SHA256, made.text


def _writer(services: Services, url: str) -> str | None:
    with services.sessions() as session:
        return session.scalar(select(Resumable.writer).where(Resumable.id == url.rsplit("/", 1)[1]))


def test_a_slow_clients_bytes_are_written_down_while_it_waits(live_tus: Tus, services: Services) -> None:
    """So that not even a killed process loses them."""
    url = live_tus.begin(2000)
    go_on = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield onnx_bytes()[:100]
        go_on.wait(20)
        yield b"x" * 10

    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(live_tus.patch(url, 0, pieces())))
    thread.start()
    try:
        wait_until(lambda: _received(services, url) == 100, 15)
    finally:
        go_on.set()
        thread.join()
    assert answers[0].headers["Upload-Offset"] == "110"


def _received(services: Services, url: str) -> int | None:
    with services.sessions() as session:
        return session.scalar(select(Resumable.received).where(Resumable.id == url.rsplit("/", 1)[1]))


def test_one_request_writes_at_a_time(live_tus: Tus, services: Services) -> None:
    url = live_tus.begin(len(NETWORK), sha256=SHA256)
    begun, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield NETWORK[:100]
        begun.set()
        go_on.wait(20)
        yield NETWORK[100:]

    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(live_tus.patch(url, 0, pieces())))
    thread.start()
    try:
        begun.wait(10)
        wait_until(lambda: _writer(services, url) is not None, 10)
        offset = live_tus.offset(url)
        refused = live_tus.patch(url, offset, NETWORK[offset : offset + 10])
        assert refused.status_code in {409, 423}, refused.text
        assert refused.json()["code"] in {"upload_locked", "offset_mismatch"}
    finally:
        go_on.set()
        thread.join()
    assert answers[0].status_code == 204
    assert use(live_tus.client, url).json()["sha256"] == SHA256


def test_of_many_requests_at_once_one_wins_and_the_file_is_right(live_tus: Tus) -> None:
    url = live_tus.begin(len(NETWORK), sha256=SHA256)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(live_tus.patch(url, 0, NETWORK))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses[0] == 204
    assert set(statuses[1:]) <= {409, 423}
    assert use(live_tus.client, url).json()["sha256"] == SHA256


def test_a_silent_writer_is_overtaken_and_then_harms_nobody(
    live_tus: Tus, services: Services, clock: HandClock
) -> None:
    """A connection that broke without our noticing must not lock its own user out for long."""
    url = live_tus.begin(len(NETWORK), sha256=SHA256)
    wake = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield NETWORK[:1000]
        wake.wait(30)
        yield b"\0" * (len(NETWORK) - 1000)  # what it says now must not count

    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(live_tus.patch(url, 0, pieces())))
    thread.start()
    try:
        wait_until(lambda: _received(services, url) == 1000, 15)
        assert live_tus.patch(url, 1000, NETWORK[1000:2000]).status_code == 423
        clock.advance(seconds=SILENT_SECONDS + 1)
        assert live_tus.patch(url, 1000, NETWORK[1000:-5]).status_code == 204
    finally:
        wake.set()
        thread.join()
    assert answers[0].status_code in {409, 423}, answers[0].text
    assert live_tus.patch(url, len(NETWORK) - 5, NETWORK[-5:]).status_code == 204
    made = use(live_tus.client, url)
    assert made.json()["sha256"] == SHA256, made.text
    assert _stored(services, SHA256, len(NETWORK)) == NETWORK


def test_an_upload_deleted_while_bytes_come_ends_that_request(live_tus: Tus, services: Services) -> None:
    url = live_tus.begin(len(NETWORK))
    begun, go_on = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield NETWORK[:-10]
        begun.set()
        go_on.wait(20)
        yield NETWORK[-10:]

    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(live_tus.patch(url, 0, pieces())))
    thread.start()
    try:
        begun.wait(10)
        assert live_tus.delete(url).status_code == 204
    finally:
        go_on.set()
        thread.join()
    assert answers[0].status_code == 404
    assert live_tus.head(url).status_code == 404


# Checksums


@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "md5"])
def test_a_part_counts_only_if_its_checksum_is_right(tus: Tus, client: TestClient, algorithm: str) -> None:
    data = onnx_bytes()
    url = tus.begin(len(data))
    assert (
        tus.patch(url, 0, data[:9], **{"Upload-Checksum": _checksum(algorithm, data[:9])}).status_code == 204
    )
    wrong = tus.patch(url, 9, data[9:-1], **{"Upload-Checksum": _checksum(algorithm, b"other")})
    assert (wrong.status_code, wrong.json()["code"]) == (460, "checksum_mismatch")
    assert tus.offset(url) == 9
    right = tus.patch(url, 9, data[9:], **{"Upload-Checksum": _checksum(algorithm, data[9:])})
    assert right.status_code == 204
    assert use(client, url, sha256=hashlib.sha256(data).hexdigest()).status_code == 201


def test_large_parts_with_checksums_are_judged_too(tus: Tus, client: TestClient) -> None:
    url = tus.begin(len(NETWORK), sha256=SHA256)
    damaged = NETWORK[:BLOCK_BYTES] + b"\0" + NETWORK[BLOCK_BYTES + 1 :]
    sum_of_right = {"Upload-Checksum": _checksum("sha256", NETWORK)}
    assert tus.patch(url, 0, damaged, **sum_of_right).status_code == 460
    assert tus.offset(url) == 0
    assert tus.patch(url, 0, NETWORK, **sum_of_right).status_code == 204
    assert use(client, url).json()["sha256"] == SHA256


def test_a_part_that_was_cut_before_its_checksum_could_be_judged_does_not_count(
    live_tus: Tus, cut: Cut, services: Services
) -> None:
    url = live_tus.begin(len(NETWORK))
    cut(url, 0, NETWORK[:50_000], len(NETWORK), **{"Upload-Checksum": _checksum("sha1", NETWORK)})
    wait_until(lambda: _writer(services, url) is None, 10)
    assert live_tus.offset(url) == 0


def test_a_whole_file_that_is_not_what_the_client_meant_is_deleted(
    tus: Tus, second_process: TestClient, services: Services
) -> None:
    for last in (tus, Tus(second_process)):  # a process that saw all bytes, and one that did not
        url = tus.begin(200, sha256="0" * 64)
        data = network(200)
        assert tus.patch(url, 0, data[:150]).status_code == 204
        refused = last.patch(url, 150, data[150:])
        assert (refused.status_code, refused.json()["code"]) == (460, "checksum_mismatch")
        assert hashlib.sha256(data).hexdigest() in refused.json()["detail"]
        assert tus.head(url).status_code == 404
    assert leftovers(services) == set()


def test_a_wrong_hash_in_the_body_keeps_the_upload(tus: Tus, client: TestClient) -> None:
    data = onnx_bytes()
    url = tus.begin(len(data))
    tus.patch(url, 0, data)
    refused = use(client, url, sha256="0" * 64)
    assert (refused.status_code, refused.json()["code"]) == (460, "checksum_mismatch")
    assert use(client, url, sha256=hashlib.sha256(data).hexdigest()).status_code == 201


# Time


def test_an_upload_that_rests_expires_and_its_bytes_go(
    tus: Tus, client: TestClient, services: Services, settings: Settings, clock: HandClock
) -> None:
    sweeper = Sweeper(services.sessions, services.store, clock, settings)
    url, other = tus.begin(100_000), tus.begin(len(onnx_bytes()))
    tus.patch(url, 0, onnx_bytes())
    tus.patch(other, 0, onnx_bytes())
    told = parsedate_to_datetime(tus.head(url).headers["Upload-Expires"])
    assert abs((told - clock.now()).total_seconds() - settings.upload_seconds) < 2
    clock.advance(seconds=settings.upload_seconds - 60)
    sweeper.sweep()
    assert tus.patch(url, len(onnx_bytes()), b"x").status_code == 204  # goes on, and so stays
    clock.advance(seconds=120)
    assert tus.head(other).status_code == 404
    sweeper.sweep()
    assert leftovers(services) == {url.rsplit("/", 1)[1]}
    clock.advance(seconds=settings.upload_seconds)
    assert tus.head(url).status_code == 404
    assert tus.patch(url, 0, b"x").status_code == 404
    sweeper.sweep()
    assert leftovers(services) == set()
    with services.sessions() as session:
        assert session.scalars(select(Resumable)).all() == []


def test_what_belongs_to_no_upload_is_swept(
    tus: Tus, services: Services, settings: Settings, clock: HandClock
) -> None:
    url = tus.begin(100)
    tus.patch(url, 0, onnx_bytes()[:50])
    stray = url.rsplit("/", 1)[1][:-4] + "zzzz"
    services.store.pieces.write(services.store.pieces.begin(stray, 0), [b"left by a killed process"])
    Sweeper(services.sessions, services.store, clock, settings).sweep()
    assert leftovers(services) == {url.rsplit("/", 1)[1]}
