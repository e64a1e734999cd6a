"""`python -m benchmarks.train_vgg16`: the VGG16 for CIFAR-100 that the GPU suite compresses.

The usual recipe: SGD with momentum, cosine from 0.1, mirrored and cropped images. The shared data holds
20,000 of the 50,000 train images; the accuracy reached with those that are there is stored too.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, nn

from basisconv.finetune import TrainingData
from benchmarks.data import pixels, training
from benchmarks.networks import normalisation
from benchmarks.networks.vgg16 import VGG16, vgg16, weights_file


@dataclass(frozen=True)
class Schedule:
    epochs: int = 200
    batch: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4


def steps(network: nn.Module, data: TrainingData, schedule: Schedule, device: str) -> Iterator[float]:
    """Train in place; yields the loss of every step."""
    draws = Generator().manual_seed(0)
    per_epoch = len(data) // schedule.batch
    total = per_epoch * schedule.epochs
    optimizer = torch.optim.SGD(
        network.parameters(), schedule.learning_rate, schedule.momentum, weight_decay=schedule.weight_decay
    )
    network.train()
    for done in range(total):
        if done % per_epoch == 0:
            order = torch.randperm(len(data), generator=draws)
        rows = order[done % per_epoch * schedule.batch :][: schedule.batch]
        images, labels = data.batch(rows, torch.device(device), "flip_crop", draws)
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * 0.5 * (1 + math.cos(math.pi * done / total))
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        yield float(loss.detach())
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, device: str) -> float:
    """Top-1 share on all test images."""
    images, labels = pixels(VGG16, "test")
    prepare = normalisation(VGG16)
    starts = range(0, len(images), 500)
    answers = [network(prepare(images[i : i + 500]).to(device)).argmax(1).cpu() for i in starts]
    return float((torch.cat(answers) == torch.from_numpy(labels)).double().mean())


def store(network: nn.Module, path: Path, about: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, path)
    path.with_suffix(".json").write_text(json.dumps(about) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--epochs", type=int, default=Schedule.epochs)
    parser.add_argument("--images", type=int, help="the first so many train images; all by default")
    arguments = parser.parse_args()
    path = weights_file()
    if path.exists():
        print(f"{path} is there already")
        return
    torch.manual_seed(0)
    network, data = vgg16().to(arguments.device), training(VGG16, arguments.images)
    for done, loss in enumerate(steps(network, data, Schedule(arguments.epochs), arguments.device), 1):
        if done % 500 == 0:
            print(f"step {done}: loss {loss:.3f}", flush=True)
    found = accuracy(network, arguments.device)
    store(network, path, {"accuracy": found, "epochs": arguments.epochs, "images": len(data)})
    print(f"{path}: {100 * found:.2f} % on the test images")


if __name__ == "__main__":
    main()
