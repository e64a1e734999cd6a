"""Large uploads pass through the web process without staying in it, and others are served meanwhile.

The default size is a third of a gigabyte; `make test-big-upload` sends four gigabytes and writes down what it
measured.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Engine

from app.core.settings import Settings
from tests.conftest import make_settings
from tests.support.sending import Latencies, Sender, Sparse
from tests.support.service import WebService, running_web

MOST_RSS_BYTES = 250_000_000
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(engine: Engine, broker_url: str, database_url: str, tmp_path: Path) -> Settings:
    return make_settings(database_url, broker_url, tmp_path / "var", max_stored_bytes=0)


@pytest.fixture
def web(settings: Settings, tmp_path: Path) -> Iterator[WebService]:
    with running_web(settings, tmp_path / "log") as service:
        yield service


def _forget_peak(process: Any) -> None:
    """Let the kernel count from here on."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def _peak_rss(process: Any) -> int:
    """The most memory that a process has had since, as the kernel counts it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _send_both_ways(web: WebService, size: int) -> dict[str, Any]:
    """The same zeros as a form and by tus. Stored once, so the second one needs no more room."""
    found: dict[str, Any] = {"bytes": size}
    sender = Sender(web.url, web.key)
    assert web.web.process is not None
    hashes = set()
    for name, send in (("form", sender.form), ("tus", sender.tus)):
        _forget_peak(web.web.process)
        before = psutil.Process(web.web.process.pid).memory_info().rss
        with Latencies(sender) as others:
            made = send("/v1/datasets", "zeros.npz", size, Sparse(size).chunks())
        hashes.add(made["sha256"])
        assert made["bytes"] == size
        peak = _peak_rss(web.web.process)
        found[name] = {"rss_before": before, "peak_rss": peak, "others": others.summary()}
        assert peak < MOST_RSS_BYTES, found
        assert others.seconds
    assert len(hashes) == 1
    return found


def test_a_third_of_a_gigabyte_leaves_the_memory_small_and_others_served(web: WebService) -> None:
    found = _send_both_ways(web, 300_000_000)
    print(json.dumps(found, indent=1))
    for way in ("form", "tus"):
        assert found[way]["others"]["worst_ms"] < 20_000  # served, not kept waiting for the whole upload


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_four_gigabytes_do_so_too(web: WebService) -> None:
    found = _send_both_ways(web, 4_000_000_000)
    text = json.dumps(found, indent=1)
    target = Path(os.environ.get("BIG_UPLOAD_REPORT", ROOT / "build" / "big-upload.json"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text + "\n")
    print(text)
    for way in ("form", "tus"):
        assert found[way]["others"]["p95_ms"] < 5_000
