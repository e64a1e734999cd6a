"""A web process killed in the middle of a request: nothing half done is seen, nothing is done twice."""

import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from app import example
from app.storage.store import open_store
from tests.faults.rig.checks import Ground
from tests.faults.rig.rig import Rig
from tests.faults.rig.table import Row, Table


def begin_upload(rig: Rig, size: int) -> socket.socket:
    """The first megabytes of a model; the rest is never sent."""
    boundary = secrets.token_hex(8)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="half.onnx"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    place = urlsplit(rig.settings.public_url)
    assert place.hostname is not None
    connection = socket.create_connection((place.hostname, place.port or 80), timeout=30)
    connection.sendall(
        f"POST /v1/models HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {rig.key}\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {size}\r\n\r\n".encode()
        + head
        + example.NETWORK.read_bytes()
    )
    for _ in range(20):  # more than the writer keeps in memory, so that something lies on the disk
        connection.sendall(bytes(1_000_000))
    return connection


def test_half_an_upload_whose_web_process_is_killed_is_seen_by_nobody_and_swept(
    ground: Ground, faults_table: Table
) -> None:
    rig = ground.rig
    models = [model["id"] for model in rig.get("/v1/models", limit=100)["data"]]
    connection = begin_upload(rig, size=50_000_000)
    rig.wait(lambda: len(rig.stored()) > len(ground.stored), what="bytes on the disk")
    began = time.monotonic()
    rig.kill(rig.web)
    connection.close()
    rig.wait_all_up()
    assert [model["id"] for model in rig.get("/v1/models", limit=100)["data"]] == models
    store = open_store(rig.settings.objects_url())
    assert (
        store.clear_staging(datetime.now(UTC) + timedelta(days=1)) == 1
    )  # what the janitor does after a day
    assert [path.name for path in rig.stored()] == ground.stored
    again = rig.upload_model()
    rig.wait_ready("models", again)
    rig.client.delete(f"/v1/models/{again}").raise_for_status()
    faults_table.rows.append(
        Row("", "web killed during an upload", "nothing left; sent again: ready", 1, time.monotonic() - began)
    )


def test_every_job_that_was_asked_for_exists_once_however_often_the_web_process_is_killed(
    ground: Ground, faults_table: Table
) -> None:
    rig = ground.rig
    began = time.monotonic()
    keys = [secrets.token_hex(8) for _ in range(24)]
    with rig.held("calibrate"), ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(rig.submit_as_client, ground.model, ground.dataset, key) for key in keys]
        for _ in range(3):
            time.sleep(0.3)
            rig.kill(rig.web)
            rig.wait(rig.web.is_ready, what="the web process")
        rig.wait(lambda: all(one.done() for one in asked), what="answers to all")
        ids = [one.result() for one in asked]
        assert len(set(ids)) == len(keys)
        listed = [job["id"] for job in rig.get("/v1/jobs", limit=100)["data"] if job["id"] in ids]
        assert sorted(listed) == sorted(ids)
        named = [job for job in rig.get("/v1/jobs", limit=100)["data"] if job["name"] in keys]
        assert sorted(job["id"] for job in named) == sorted(ids)  # and none that nobody was told of
        for job_id in ids:
            rig.client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    rig.wait(lambda: all(rig.job(job_id).status == "cancelled" for job_id in ids), what="all cancelled")
    assert {rig.done_events(job_id) for job_id in ids} == {1}
    seconds = time.monotonic() - began
    for job_id in ids:
        rig.client.delete(f"/v1/jobs/{job_id}").raise_for_status()
    faults_table.rows.append(
        Row("", "web killed three times while 24 jobs are asked for", "24 jobs, each once", 1, seconds)
    )
