"""Who is timed, each in a process of its own, so that its peak memory is its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.methods.peer import PYTHON, SHIMS, PeerError
from benchmarks.speed.setting import Setting


@dataclass(frozen=True)
class Contender:
    name: str
    title: str
    python: Path


CONTENDERS = (
    Contender("ours", "BasisConv: ranks, forms and fit", Path(sys.executable)),
    Contender("greedy", "greedy per-layer evaluation (AIMET)", PYTHON),
    Contender("hooi", "Tucker-2 by HOOI at one rank (TensorLy)", PYTHON),
)


def run(contender: Contender, setting: Setting, folder: Path) -> dict[str, Any]:
    """Its stages, and what their seconds are to be multiplied by for the whole job.

    Raises PeerError when its process fails.
    """
    path = os.pathsep.join([str(ROOT), *([] if contender.name == "ours" else [str(SHIMS)])])
    ended = subprocess.run(
        [contender.python, "-m", f"benchmarks.speed.{contender.name}", json.dumps(asdict(setting))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(setting.threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise PeerError(f"{contender.name} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {"contender": contender.name, **found}


def total(found: Mapping[str, Any], unit: str) -> float:
    """The whole job's seconds: what was measured times its factor."""
    stages = found["stages"]
    factors = found.get("each_scaled_by") or [found["scaled_by"]] * len(stages)
    return float(sum(stage[unit] * factor for stage, factor in zip(stages, factors, strict=True)))
