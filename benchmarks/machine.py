"""What a figure depends on besides the method: machine, versions, threads and the code itself."""

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
MEASURING = ("basisconv", "benchmarks/methods", "benchmarks/peers", "benchmarks/networks")
MEASURING_FILES = ("data", "measure", "method", "onnx_file", "recalibrate", "suites", "tuning")
PACKAGES = ("torch", "numpy", "onnx", "onnxruntime")


def describe(device: str) -> dict[str, object]:
    """JSON-able."""
    return {
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "packages": {name: _version(name) for name in PACKAGES},
        "peers": peer_pins(),
    }


def peer_pins() -> dict[str, str]:
    """The peers' exact versions, as their environment is made from them."""
    lines = (ROOT / "benchmarks/peers/requirements.txt").read_text().splitlines()
    pins = (line.split("#")[0].strip().partition("==") for line in lines)
    return {name: number for name, mark, number in pins if mark}


def code_version() -> str:
    """A digest of everything that decides a row: rows of equal digest and key are interchangeable."""
    files = [path for folder in MEASURING for path in sorted((ROOT / folder).rglob("*.py"))]
    files += [ROOT / "benchmarks" / f"{name}.py" for name in MEASURING_FILES]
    files += [ROOT / "tests/support/networks.py", ROOT / "benchmarks/peers/requirements.txt"]
    digest = hashlib.sha256()
    for path in files:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
