"""The client before the real service: uploads, refusals, limits, older servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from basisconv_client import (
    Client,
    NotFound,
    Patience,
    Rejected,
    RequestRefused,
    ServerTooOld,
    TooManyRequests,
)
from basisconv_client.errors import AccessDenied
from tests.client.misbehaving import older
from tests.client.running import IMAGES, NETWORK
from tests.data.making import class_folders, npz_of, picture, zip_of
from tests.support.service import Service


def test_images_are_ready_when_they_come_back(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "pets.zip"
    file.write_bytes(zip_of(class_folders()))
    told: list[tuple[int, int]] = []
    found = client.ready_dataset(
        file,
        name="pets",
        classes={"dog": 0, "cat": 1},
        progress=lambda done, total: told.append((done, total)),
    )
    assert found.examples is not None
    assert (found.examples.train, found.examples.test) == (8, 2)
    assert (found.name, found.classes, found.image) == ("pets", 2, [6, 6, 3])
    size = file.stat().st_size
    assert (told[0], told[-1]) == ((0, size), (size, size))
    assert client.get("/v1/uploads")["data"] == []


def test_a_rejected_upload_says_why(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "odd.npz"
    file.write_bytes(npz_of(images=picture(4, 4)[None]))
    with pytest.raises(Rejected, match="holds 'images'; expected are x and y") as caught:
        client.ready_dataset(file)
    assert caught.value.code == "malformed_dataset"


def test_a_refusal_carries_code_detail_and_hint(
    client: Client, shared_server: Service, tmp_path: Path
) -> None:
    pickle = tmp_path / "net.pt"
    pickle.write_bytes(b"\x80\x04\x95" + b"x" * 200_000)
    with pytest.raises(RequestRefused) as refused:
        client.upload_model(pickle)
    assert refused.value.code == "unsafe_serialization"
    assert refused.value.detail
    assert refused.value.hint
    with pytest.raises(NotFound):
        next(client.events("job_" + "0" * 26))
    with Client(shared_server.url, "bc_wrong") as stranger, pytest.raises(AccessDenied) as unknown:
        stranger.get("/v1/jobs")
    assert unknown.value.code == "unauthenticated"


def test_a_plan_comes_with_every_layer(client: Client) -> None:
    found = client.plan(client.ready_model(NETWORK), basis="weights", macs=0.6)
    assert found.feasible
    assert found.ranks
    assert found.predicted is not None
    assert found.predicted["macs"] <= 0.6 * found.original["macs"] if found.original else False


@pytest.fixture
def old(shared_server: Service) -> Iterator[Client]:
    """The service before uploads could be resumed and jobs planned."""
    with (
        older(shared_server.url, "/v1/uploads", "/v1/plans", "/v1/usage") as url,
        Client(url, shared_server.key) as client,
    ):
        yield client


def test_an_older_server_gets_files_in_one_request(old: Client, tmp_path: Path) -> None:
    file = tmp_path / "old.zip"
    file.write_bytes(zip_of(class_folders(6)))
    told: list[int] = []
    found = old.ready_dataset(file, classes={"dog": 0, "cat": 1}, progress=lambda done, _: told.append(done))
    assert found.classes == 2
    assert told[-1] == file.stat().st_size
    network = old.ready_model(NETWORK, input={"mean": [0.25], "std": [0.5]})
    assert network.input is not None
    assert (network.input.mean, network.input.std) == ([0.25], [0.5])


def test_an_older_server_says_clearly_what_it_does_not_know(old: Client, client: Client) -> None:
    with pytest.raises(ServerTooOld, match="is older than this client: it has no plans"):
        old.plan(client.ready_model(NETWORK), macs=0.5)
    with pytest.raises(NotFound):  # a missing network is no sign of age
        client.plan("model_" + "0" * 26, macs=0.5)


def limited(client: Client, service: Service, **limits: int) -> str:
    body = {"name": "limited", "scopes": [], "owner": "new", "limits": limits}
    made = service.client.post("/v1/keys", json=body)
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def test_a_rate_limit_is_waited_for(client: Client, shared_server: Service) -> None:
    waits: list[tuple[str, float]] = []
    key = limited(client, shared_server, requests_per_minute=40)
    with Client(shared_server.url, key, on_wait=lambda *told: waits.append(told)) as slow:
        for _ in range(42):
            slow.get("/v1/jobs")
    assert waits
    assert all("rate_limited" in reason and seconds == int(seconds) >= 1 for reason, seconds in waits)


def test_a_used_up_quota_is_not_waited_for(client: Client, shared_server: Service) -> None:
    waits: list[float] = []
    key = limited(client, shared_server, stored_bytes=10)
    patience = Patience(sleep=waits.append)
    with Client(shared_server.url, key, patience=patience) as full, pytest.raises(TooManyRequests) as told:
        full.upload_dataset(IMAGES)
    assert (told.value.code, waits) == ("quota_exceeded", [])


def test_the_service_finds_uploads_by_their_hash(client: Client) -> None:
    network = client.ready_model(NETWORK)
    assert network.id in [found.id for found in client.models(sha256=network.sha256)]
    assert list(client.models(sha256="0" * 64)) == []
    images = client.ready_dataset(IMAGES)
    assert images.id in [found.id for found in client.datasets(sha256=images.sha256)]
    assert list(client.datasets(sha256="0" * 64)) == []
