"""How fast a file comes in, beside `cp` of the same file on the same disk.

    python -m benchmarks.service_upload --bytes 1000000000

Both ways, as a form and by tus, over the loopback from a client in its own process; the file lies in the page
cache for all of them. A copy reads and writes; an upload also passes HTTP twice and is hashed. `measure` does
it against any running service; alone, this starts a web process with servers of its own.
"""

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.api.seeds import npz_bytes
from tests.conftest import make_settings
from tests.support.sending import CHUNK_BYTES, Sender
from tests.support.servers import OwnedServers
from tests.support.service import WebService, running_web

WAYS = ("form", "tus")


def measure(url: str, key: str, folder: Path, size: int, repeats: int = 3) -> dict[str, Any]:
    """Seconds of `cp` and of both ways of uploading a file of this size, in turns, and the ratios of their
    speeds to that of `cp`: 1 is as fast. `folder` should lie on the disk of the service's objects."""
    source = folder / "upload-source.npz"
    _write(source, size)
    sender = Sender(url, key)
    took: dict[str, list[float]] = {name: [] for name in ("cp", *WAYS)}
    try:
        for _ in range(repeats):
            took["cp"].append(_timed(lambda: _copy(source)))
            for way in WAYS:
                _retouch(source)  # other bytes, or the object would be there already
                took[way].append(_timed(lambda way=way: _send(sender, way, source)))  # type: ignore[misc]
    finally:
        source.unlink()
    seconds = {name: statistics.median(values) for name, values in took.items()}
    return {
        "bytes": size,
        "repeats": repeats,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "megabytes_per_second": {name: round(size / value / 1e6, 1) for name, value in seconds.items()},
        "ratio_to_cp": {way: round(seconds["cp"] / seconds[way], 3) for way in WAYS},
    }


def _write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        left = size - file.write(npz_bytes())
        while left > 0:
            left -= file.write(secrets.token_bytes(min(left, CHUNK_BYTES)))


def _retouch(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-16, 2)
        file.write(secrets.token_bytes(16))


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _copy(source: Path) -> None:
    target = source.with_suffix(".copy")
    subprocess.run(["cp", source, target], check=True)
    target.unlink()


def _send(sender: Sender, way: str, source: Path) -> None:
    send = sender.form if way == "form" else sender.tus
    made = send("/v1/datasets", source.name, source.stat().st_size, _chunks(source))
    sender.ask("DELETE", f"/v1/datasets/{made['id']}", {})


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def _own_service(folder: Path) -> Iterator[WebService]:
    servers = OwnedServers()
    servers.start()
    try:
        url = servers.servers.new_database("upload_benchmark")
        settings = make_settings(url, servers.servers.broker_url(0), folder / "var", max_stored_bytes=0)
        with running_web(settings, folder / "log") as service:
            yield service
    finally:
        servers.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="basisconv-upload-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with _own_service(folder) as service:
            found = measure(service.url, service.key, folder, chosen.bytes, chosen.repeats)
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
