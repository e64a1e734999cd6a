"""What a client may say and how it is refused: one storage is enough for that."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select, update

from app.core.settings import Settings
from app.core.unit import Services
from app.models.tables import Model
from app.uploads.tables import Resumable
from app.uploads.tus import CONTENT_TYPE
from tests.api.conftest import _client
from tests.api.seeds import npz_bytes, onnx_bytes
from tests.conftest import make_settings
from tests.uploads.conftest import LIMITS, RESUMABLE, Tus, leftovers, network, use

PICKLE = b"\x80\x04\x95" + b"x" * 100_000


@pytest.fixture
def settings(engine: Engine, broker_url: str, database_url: str, tmp_path: Path) -> Settings:
    return make_settings(database_url, broker_url, tmp_path / "var", **LIMITS)


# Limits and formats


def test_a_file_over_its_limit_is_refused_before_its_first_byte(tus: Tus, settings: Settings) -> None:
    model, dataset = settings.max_model_bytes, settings.max_dataset_bytes
    for length, kind in (
        (model + 1, {"kind": "model"}),
        (dataset + 1, {"kind": "dataset"}),
        (dataset + 1, {}),
    ):
        refused = tus.create(length, **kind)
        assert (refused.status_code, refused.json()["code"]) == (413, "upload_too_large")
        assert refused.json()["limit"] == (model if kind == {"kind": "model"} else dataset)
    assert tus.create(dataset).status_code == 201
    assert int(tus.client.options("/v1/uploads").headers["Tus-Max-Size"]) == dataset


def test_a_data_sets_size_is_too_much_for_anetwork(
    tus: Tus, client: TestClient, services: Services, settings: Settings
) -> None:
    url = tus.begin(settings.max_model_bytes + 1)
    with services.sessions.begin() as session:
        session.execute(update(Resumable).values(received=settings.max_model_bytes + 1))
    refused = use(client, url)
    assert (refused.status_code, refused.json()["code"]) == (413, "upload_too_large")


def test_more_bytes_than_announced_are_refused(live_tus: Tus, services: Services) -> None:
    data = onnx_bytes()
    url = live_tus.begin(len(data))
    declared = live_tus.patch(url, 0, data + b"x")
    assert (declared.status_code, declared.json()["code"]) == (413, "upload_too_large")
    streamed = live_tus.patch(url, 0, iter([data, b"x"]))
    assert (streamed.status_code, streamed.json()["code"]) == (413, "upload_too_large")
    assert live_tus.patch(url, live_tus.offset(url), data).status_code == 204


@pytest.mark.parametrize(
    ("data", "kind", "code"),
    [
        (PICKLE, "", "unsafe_serialization"),
        (PICKLE, "model", "unsafe_serialization"),
        (PICKLE, "dataset", "unsafe_serialization"),
        (b"just text" * 10_000, "", "unsupported_format"),
        (npz_bytes() + b"x" * 100_000, "model", "unsupported_format"),
        (network(100_000), "dataset", "unsupported_format"),
        (b"just", "", "unsupported_format"),
    ],
)
def test_what_can_become_nothing_is_refused_at_its_first_bytes(
    tus: Tus, services: Services, data: bytes, kind: str, code: str
) -> None:
    total = (
        len(data) if len(data) < 65_536 else 10_000_000
    )  # long before the end, where there is more to come
    url = tus.begin(total, filename="a.bin", **({"kind": kind} if kind else {}))
    refused = tus.patch(url, 0, data)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert refused.json()["hint"]
    assert tus.head(url).status_code == 404
    assert leftovers(services) == set()


def test_first_bytes_that_come_one_by_one_are_looked_at_too(tus: Tus) -> None:
    url = tus.begin(10)
    for number, byte in enumerate(PICKLE[:9]):
        assert tus.patch(url, number, bytes([byte])).status_code == 204
    assert tus.patch(url, 9, b"x").json()["code"] == "unsafe_serialization"


def test_an_empty_file_is_refused_when_it_is_announced(tus: Tus) -> None:
    refused = tus.create(0)
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_format")


def test_an_unfinished_upload_becomes_nothing_yet(tus: Tus, client: TestClient) -> None:
    url = tus.begin(100)
    tus.patch(url, 0, onnx_bytes()[:60])
    refused = use(client, url)
    assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    assert "60 of 100" in refused.json()["detail"]
    assert tus.offset(url) == 60


# Who


def test_anothers_upload_does_not_exist(
    tus: Tus, client: TestClient, other_owner: TestClient, services: Services
) -> None:
    data = onnx_bytes()
    url = tus.begin(len(data))
    theirs = Tus(other_owner)
    assert theirs.head(url).status_code == 404
    assert theirs.patch(url, 0, data).status_code == 404
    assert theirs.delete(url).status_code == 404
    assert other_owner.get(url).status_code == 404
    tus.patch(url, 0, data)
    assert use(other_owner, url).status_code == 404
    assert other_owner.get("/v1/uploads").json()["data"] == []
    assert [row["received"] for row in client.get("/v1/uploads").json()["data"]] == [len(data)]
    assert client.get(url).json()["id"] in url


def test_two_requests_for_one_upload_make_onenetwork(live_tus: Tus, services: Services) -> None:
    data = onnx_bytes()
    url = live_tus.begin(len(data))
    live_tus.patch(url, 0, data)
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(use(live_tus.client, url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [201, 404, 404]
    with services.sessions() as session:
        assert len(session.scalars(select(Model)).all()) == 1


@pytest.mark.parametrize("key", ["bc_wrong", ""])
def test_a_stranger_is_refused_before_the_body_is_read(live: httpx2.Client, live_tus: Tus, key: str) -> None:
    url = live_tus.begin(1_000_000)
    head = (
        f"PATCH {url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nTus-Resumable: 1.0.0\r\n"
        f"Upload-Offset: 0\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: 1000000\r\n\r\n"
    )
    with socket.create_connection((live.base_url.host, live.base_url.port or 80), timeout=10) as connection:
        connection.sendall(head.encode())  # and not one byte of the body
        answer = connection.recv(65536)
    assert b" 401 " in answer.split(b"\r\n")[0]
    assert b"tus-resumable: 1.0.0" in answer.lower()


def test_a_key_that_may_only_read_sends_nothing(app: Any, new_key: Callable[..., str], client: Any) -> None:
    reader = Tus(_client(app, new_key(scopes=["read"])))
    assert reader.create(10).status_code == 403
    assert reader.client.get("/v1/uploads").status_code == 200


# The protocol's small print


def test_every_answer_names_the_version(tus: Tus, client: TestClient) -> None:
    url = tus.begin(10, filename="a b.onnx")
    answers = [
        tus.head(url),
        tus.patch(url, 5, b"x"),
        client.options("/v1/uploads"),
        client.patch(url, content=b""),
        client.post("/v1/uploads"),
        tus.delete(url),
        tus.delete(url),
    ]
    assert [answer.headers.get("Tus-Resumable") for answer in answers] == ["1.0.0"] * len(answers)
    assert [answer.status_code for answer in answers] == [200, 409, 204, 412, 412, 204, 404]
    assert answers[1].headers["Upload-Offset"] == "0"
    assert answers[2].headers["Tus-Extension"].split(",") == [
        "creation",
        "creation-with-upload",
        "expiration",
        "checksum",
        "termination",
    ]


def test_head_gives_back_length_and_metadata_and_is_never_cached(tus: Tus) -> None:
    created = tus.create(10, filename="a b.onnx", anything="else")
    head = tus.head(created.headers["Location"])
    assert (head.headers["Upload-Length"], head.headers["Upload-Offset"]) == ("10", "0")
    assert head.headers["Upload-Metadata"] == "filename YSBiLm9ubng=,anything ZWxzZQ=="
    assert head.headers["Cache-Control"] == "no-store"
    assert head.content == b""
    assert created.headers["Location"].startswith("/v1/uploads/upload_")


def test_terminating_an_upload_frees_its_bytes(tus: Tus, services: Services) -> None:
    url = tus.begin(1000)
    tus.patch(url, 0, onnx_bytes()[:50])
    assert leftovers(services) != set()
    assert tus.delete(url).status_code == 204
    assert leftovers(services) == set()


def test_the_method_may_be_named_in_a_header(tus: Tus, client: TestClient) -> None:
    data = onnx_bytes()
    url = tus.begin(len(data))
    headers = RESUMABLE | {"Upload-Offset": "0", "Content-Type": CONTENT_TYPE}
    sent = client.post(url, content=data, headers=headers | {"X-HTTP-Method-Override": "PATCH"})
    assert (sent.status_code, sent.headers["Upload-Offset"]) == (204, str(len(data)))
    assert client.post(url, headers=RESUMABLE).status_code == 400
    gone = client.post(url, headers=RESUMABLE | {"X-HTTP-Method-Override": "DELETE"})
    assert gone.status_code == 204
    assert tus.head(url).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"upload": 5}', 422),
        (b'{"upload": "upload_x", "file": "y"}', 422),
        (b'{"upload": "upload_x", "sha256": "zz"}', 422),
        (b'{"upload": "upload_x"}', 404),
        (b'{"upload": "upload_00000000000000000000000000"}', 404),
        (b'{"upload": "upload_x", "name": "' + b"n" * 201 + b'"}', 422),
        (b" " * 3_000_000, 413),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/datasets"])
def test_a_body_that_names_no_upload_is_refused(
    client: TestClient, path: str, body: bytes, status: int
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_on_its_way_counts_against_the_quota(app: Any, new_key: Callable[..., str]) -> None:
    small = Tus(_client(app, new_key(limits={"stored_bytes": 10_000})))
    url = small.begin(6_000)
    refused = small.create(6_000)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert refused.json()["used"] == 6_000
    assert small.delete(url).status_code == 204
    data = network(6_000)
    whole = small.begin(6_000)
    assert small.patch(whole, 0, data).status_code == 204
    assert use(small.client, whole).status_code == 201  # its room is its own
    assert small.create(6_000).status_code == 429
