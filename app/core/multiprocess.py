"""Counters that several web processes on one machine share, whichever of them answers the scrape.

prometheus_client decides at its first import whether it counts in memory or in files of a folder, so the
folder is named before anything imports it: this module must not. Workers count in memory (see core/board).
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def share_counters(folder: Path) -> None:
    """Count in files of this folder from now on; what processes of an earlier run left there goes."""
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before its folder was named.")
    folder = folder.resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = list(folder.glob("*.db"))
    # While a sibling lives, the files of a dead one stay: without them the sum would fall, and a counter
    # that falls reads as one that began anew.
    if not any(psutil.pid_exists(pid) for pid in _pids(files) if pid != os.getpid()):
        for file in files:
            file.unlink(missing_ok=True)
    os.environ[VARIABLE] = str(folder)


def shared_folder() -> Path | None:
    """The folder, where counters are shared."""
    named = os.environ.get(VARIABLE)
    return None if named is None else Path(named)


def dead_processes(folder: Path) -> list[int]:
    """Processes that counted here and are gone: what they hold at the moment is nothing."""
    return sorted({pid for pid in _pids(folder.glob("*.db")) if not psutil.pid_exists(pid)})


def _pids(files: Iterable[Path]) -> list[int]:
    """The files are called `counter_4711.db`, `gauge_livesum_4711.db` …"""
    numbers = (file.stem.rpartition("_")[2] for file in files)
    return [int(number) for number in numbers if number.isdecimal()]
