"""Runs in the peers' environment: `python -m benchmarks.peers.run FOLDER`.

FOLDER holds request.json {network, method, cuts} and images.safetensors {images, labels}; for every cut it
then holds CUT.json {structure, seconds, cpu_seconds} and CUT.safetensors, and done.json at the end.
"""

import importlib
import json
import resource
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from basisconv.cost import count
from benchmarks.networks import example, load
from benchmarks.peers import structure
from benchmarks.peers.task import PeerTask


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    torch.set_num_threads(request["threads"])
    method = importlib.import_module(f"benchmarks.peers.{request['method']}")
    images = load_file(folder / "images.safetensors")
    original = load(request["network"])
    macs = count(original, example()).macs
    cuts = tuple(request["cuts"])
    task = PeerTask(original, example(), cuts, images["images"], images["labels"], macs)
    wall, cpu = time.monotonic(), time.process_time()
    for cut, network in method.compress(task):
        found = {
            "structure": structure.describe(original, network),
            "seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        structure.save(network, folder / f"{cut}.safetensors")
        (folder / f"{cut}.json").write_text(json.dumps(found))
        wall, cpu = time.monotonic(), time.process_time()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
