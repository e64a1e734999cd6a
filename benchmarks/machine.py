"""What a figure depends on besides the code: machine, versions and threads."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
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
