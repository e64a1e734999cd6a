"""A worker that is told to stop while its results are on their way into a bucket that is slow, or hangs."""

import signal
import time
from collections.abc import Callable, Iterator

import pytest
from obstore.exceptions import BaseError

from app.core.settings import Settings
from app.embedded.processes import Worker
from app.storage.store import SHORT_RETRY_SECONDS, open_store
from tests.faults.conftest import Bench
from tests.support.processes import wait_until
from tests.support.proxy import Proxy
from tests.support.s3 import S3Server

GRACE_SECONDS = 5.0
LONG = 25.0  # seconds: an alarm; a bucket that hangs is tried again for three minutes


@pytest.fixture
def way(s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the bucket."""
    with Proxy(("127.0.0.1", s3_server.port)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
        yield proxy


@pytest.fixture
def settings(settings: Settings, s3_url: str, way: Proxy) -> Settings:
    return settings.model_copy(update={"storage_url": s3_url, "grace_seconds": GRACE_SECONDS})


@pytest.mark.slow
def test_a_request_gives_a_bucket_that_vanished_up_within_a_minute_and_finds_it_again(
    s3_url: str, way: Proxy
) -> None:
    store = open_store(s3_url, SHORT_RETRY_SECONDS)
    kept = store.put_bytes(b"kept")
    way.swallow()
    began = time.monotonic()
    with pytest.raises(BaseError):
        store.exists(kept.sha256)
    assert time.monotonic() - began < 90  # else 210
    way.forward()
    assert store.exists(kept.sha256)


@pytest.mark.parametrize(
    ("bucket", "status"), [("hangs", "queued"), pytest.param("is slow", "succeeded", marks=pytest.mark.slow)]
)
def test_a_worker_told_to_stop_while_it_stores_results_ends_in_time_and_shows_all_of_them_or_none(
    bench: Bench, worker_process: Callable[..., Worker], way: Proxy, bucket: str, status: str
) -> None:
    first = worker_process("jobs")
    there = set(bench.store.keys_under("objects/"))
    puts: list[bytes] = []

    def listen(data: bytes) -> None:
        if data.startswith(b"PUT ") and b"/objects/" in data.partition(b"\r\n")[0]:
            puts.append(data)
            if bucket == "hangs":
                way.swallow()
            else:
                time.sleep(0.5)

    way.heard = listen
    job_id = bench.start()
    wait_until(lambda: puts, 60)
    assert first.process is not None
    first.process.send_signal(signal.SIGTERM)
    first.process.wait(LONG)
    assert bench.job(job_id).status == status
    way.heard = lambda _: None
    way.forward()
    if status == "queued":
        assert (bench.job(job_id).attempt, bench.artifacts(job_id)) == (0, 0)
        assert set(bench.store.keys_under("objects/")) == there
        worker_process("jobs")
    job = bench.wait(job_id, "succeeded")
    assert (job.attempt, bench.count(job_id, "done")) == (1, 1)
    assert len(bench.hashes(job_id)) == bench.artifacts(job_id) > 0
