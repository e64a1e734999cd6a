"""Which files decide a row, and their digest: rows of equal digest and key are interchangeable.

What judges a network decides every row. A peer's own row depends on nothing of the method library but how
it counts operations; ours depend on the library, and what is tuned also on its fine-tuning.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.networks import MLPERF, VGG16

JUDGING = (
    "benchmarks/bench.py",
    "benchmarks/data.py",
    "benchmarks/measure.py",
    "benchmarks/onnx_file.py",
    "benchmarks/recalibrate.py",
    "benchmarks/methods/clock.py",
    "benchmarks/methods/protocol.py",
    "tests/support/networks.py",
    "basisconv/cost.py",
    "basisconv/watch.py",
)
PEERS = ("benchmarks/methods/peer.py", "benchmarks/peers")
LIBRARY = ("basisconv", "benchmarks/drain.py")
UNUSED = ("finetune", "formats", "latency", "datafree", "scratch")  # parts that compressing never enters
TUNING = ("benchmarks/tuning.py", "basisconv/finetune")
NETWORKS: dict[str, tuple[str, ...]] = {  # beside the shared ones
    VGG16: ("benchmarks/networks/vgg16.py",),
    MLPERF: ("benchmarks/networks/mlperf.py", "basisconv/formats"),
}
OWN: dict[str, tuple[str, ...]] = {
    "uncompressed": ("benchmarks/methods/uncompressed.py",),
    "weights": ("benchmarks/methods/weights.py", "benchmarks/peers/search.py", *LIBRARY),
    "basisconv": ("benchmarks/methods/ours.py", *LIBRARY),
    "basisconv_datafree": (
        "benchmarks/methods/datafree.py",
        "benchmarks/methods/ours.py",
        "basisconv/datafree",
        *LIBRARY,
    ),
    "basisconv_basis": ("benchmarks/methods/ours.py", *LIBRARY),
}


def row_code(network: str, method: str, tuned: bool, settings: Mapping[str, object]) -> str:
    """`settings`: what else decides the row, such as the number of images."""
    compressing = OWN.get(method, PEERS)
    tuning = (*TUNING, *LIBRARY) if tuned else ()
    return digest((*JUDGING, *NETWORKS.get(network, ()), *compressing, *tuning), settings)


def digest(names: tuple[str, ...], settings: Mapping[str, object]) -> str:
    """Of these files, and of all code in these folders, but of the library's UNUSED parts unless named."""
    found = hashlib.sha256(repr(sorted(settings.items())).encode())
    for path in sorted({path for name in names for path in _files(name)}):
        found.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:12]


def _files(name: str) -> Iterator[Path]:
    path = ROOT / name
    if path.is_file():
        yield path
        return
    unused = {path / part for part in UNUSED}
    kinds = (*path.rglob("*.py"), *path.rglob("requirements.txt"))
    yield from (file for file in kinds if not unused & set(file.parents))
