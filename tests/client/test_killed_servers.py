"""The server is killed in the middle of what the client does, and comes back."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from app.core.settings import Settings
from app.embedded.processes import Web
from basisconv_client import Client
from tests.client.running import IMAGES, NETWORK
from tests.support.service import Service, WebService, running_web
from tests.uploads.conftest import network

BYTES = 60_000_000  # of which a killed server forgets 16 MB at the most


@pytest.fixture
def web(settings: Settings, tmp_path: Path) -> Iterator[WebService]:
    with running_web(settings, tmp_path / "log") as service:
        yield service


def kill_for_a_moment(web: Web) -> None:
    """Kill it and start it again: nobody answers for the second or two that it takes."""
    assert web.process is not None
    web.process.kill()
    web.process.wait()
    web.start()


@pytest.mark.slow
def test_an_upload_goes_on_where_a_killed_server_left_off(web: WebService, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(network(BYTES))
    told: list[int] = []
    killed: list[int] = []

    def progress(done: int, _: int) -> None:
        told.append(done)
        if done > 3 * BYTES / 4 and not killed:
            killed.append(done)
            kill_for_a_moment(web.web)

    with Client(web.url, web.key) as client:
        found = client.upload_model(file, progress=progress)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    begun_again = [after for before, after in pairwise(told) if after < before]
    assert begun_again, "nothing was lost, so nothing was tested"
    assert min(begun_again) > 0  # not from the first byte


def test_an_upload_goes_on_where_a_killed_client_left_off(web: WebService, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    file.write_bytes(network(BYTES))

    def killed(done: int, _: int) -> None:
        if done > BYTES / 2:
            raise KeyboardInterrupt

    with Client(web.url, web.key) as client, pytest.raises(KeyboardInterrupt):
        client.upload_model(file, progress=killed)
    told: list[int] = []
    with Client(web.url, web.key) as client:
        client.upload_model(file, progress=lambda done, _: told.append(done))
    assert told[0] > BYTES / 4


@pytest.mark.slow
def test_following_goes_on_when_a_killed_server_comes_back(server: Service) -> None:
    killed = False
    with Client(server.url, server.key) as client:
        job = client.create_job(
            client.ready_model(NETWORK), client.ready_dataset(IMAGES), macs=0.6, exports=["onnx"],
        )  # fmt: skip
        seen: list[int] = []
        for event in client.events(job.id):
            seen.append(event.seq)
            if event.stage == "decompose" and not killed:
                killed = True
                kill_for_a_moment(server.web)
        assert client.job(job.id).status == "succeeded"
    assert seen == list(range(1, len(seen) + 1))
