"""A peer's package, run in the peers' environment; networks come back as JSON and safetensors."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from benchmarks.machine import ROOT
from benchmarks.methods.protocol import Compressed, Task
from benchmarks.networks import build
from benchmarks.peers import structure

PYTHON = Path(os.environ.get("BASISCONV_PEERS", ROOT / "build" / "peers")) / "bin" / "python"
SHIMS = ROOT / "benchmarks" / "peers" / "shims"


class PeerError(RuntimeError):
    """The peer's own process ended with an error."""


@dataclass(frozen=True)
class Peer:
    name: str
    title: str
    seeded: bool

    def compress(self, task: Task) -> Iterator[Compressed]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self._ask(task, folder)
            self._run(folder)
            for cut in task.cuts:
                if not (folder / f"{cut}.json").exists():
                    continue  # out of its reach
                answer = json.loads((folder / f"{cut}.json").read_text())
                network = structure.rebuild_(build(task.network), answer["structure"])
                structure.load_(network, folder / f"{cut}.safetensors")
                yield Compressed(cut, network, answer["seconds"], answer["cpu_seconds"])

    def _ask(self, task: Task, folder: Path) -> None:
        request = {
            "network": task.network,
            "method": self.name,
            "cuts": task.cuts,
            "seed": task.seed,
            "threads": task.threads,
        }
        (folder / "request.json").write_text(json.dumps(request))
        images = {"images": task.draw.images.contiguous(), "labels": task.draw.labels.contiguous()}
        save_file(images, folder / "images.safetensors")

    def _run(self, folder: Path) -> None:
        path = os.pathsep.join([str(ROOT), str(SHIMS)])
        # in the folder, as AIMET writes where it stands; the data is found from the loader's own place
        ended = subprocess.run(
            [PYTHON, "-m", "benchmarks.peers.run", folder],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise PeerError(f"{self.name} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")


TUCKER = Peer("tucker", "Tucker-2 by HOOI (TensorLy)", seeded=False)
SPATIAL_SVD = Peer("spatial_svd", "spatial SVD, greedy (AIMET)", seeded=True)
PRUNING = Peer("pruning", "channel pruning (Torch-Pruning)", seeded=False)
