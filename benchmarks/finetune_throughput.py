"""Images per second of the fine-tuning loop beside a bare PyTorch loop: `make bench-finetune`.

Both train the same network (ResNet-20 for CIFAR with half of its operations) on the same batches with the
same augmentation, original, loss and optimiser, data on the device, in turns of a few steps so that a
machine's moods fall on both. On the CPU the process's own time counts, on a GPU the clock after it has
finished. The bare loop runs as people write it (plain memory layout) and in the library's layout.
"""

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from basisconv import DecomposeConfig, decompose_
from basisconv.finetune import FinetuneConfig, TrainingData, finetune
from basisconv.finetune.data import flip_crop
from tests.support.networks import CifarResNet

RESULTS = Path(__file__).parent / "results" / "finetune_throughput.json"
CLASSES, SIDE, RATE = 10, 32, 1e-4


def networks(device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Student and original; random weights take as long as trained ones."""
    torch.manual_seed(0)
    original = CifarResNet(20, CLASSES, "A").eval()
    student = copy.deepcopy(original)
    for _ in decompose_(
        student, torch.zeros(1, 3, SIDE, SIDE), DecomposeConfig(basis="weights", forms="auto")
    ):
        pass
    return student.to(device), original.to(device)


def bare(images: Tensor, batch: int, device: torch.device, layout: torch.memory_format) -> Iterator[None]:
    """What one would write by hand."""
    student, original = networks(device)
    student.to(memory_format=layout)
    student.train()
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=1e-4)
    draw = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(images), generator=draw).to(device)
        for rows in order.split(batch):
            x = flip_crop(images[rows].permute(0, 3, 1, 2), draw)
            x = ((x.float() / 255 - 0.5) / 0.25).contiguous(memory_format=layout)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                with torch.no_grad():
                    wanted = original(x)
                found = student(x)
            loss = 16 * nn.functional.kl_div(
                (found.float() / 4).log_softmax(1),
                (wanted.float() / 4).log_softmax(1),
                reduction="batchmean",
                log_target=True,
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()
            yield


def ours(images: Tensor, batch: int, device: torch.device) -> Iterator[object]:
    student, original = networks(device)
    data = TrainingData(images, None, 255.0, (0.5,), (0.25,))
    return finetune(
        student, original, data, FinetuneConfig(epochs=1000, batch_size=batch, learning_rate=RATE)
    )


def turn(run: Iterator[object], steps: int, device: torch.device, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(steps):
        next(run)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    wanted = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    images = torch.randint(0, 256, (wanted.batch * 8, SIDE, SIDE, 3), dtype=torch.uint8, device=device)
    runs = {
        "library": ours(images, wanted.batch, device),
        "bare": bare(images, wanted.batch, device, torch.contiguous_format),
        "bare_channels_last": bare(images, wanted.batch, device, torch.channels_last),
    }
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for run in runs.values():
        turn(run, 1, device, clock)  # the first step sets things up
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(wanted.turns):
        for name, run in runs.items():
            seconds[name].append(turn(run, wanted.steps, device, clock))
    rates = {name: wanted.steps * wanted.batch / statistics.median(times) for name, times in seconds.items()}
    found = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "clock": clock.__name__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "batch": wanted.batch,
        "steps_per_turn": wanted.steps,
        "seconds": seconds,
        "images_per_second": rates,
        "ratio_to_bare": rates["library"] / rates["bare"],
        "ratio_to_bare_channels_last": rates["library"] / rates["bare_channels_last"],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for name, rate in rates.items():
        print(f"{name:20} {rate:8.0f} images/s")
    print(f"library / bare {found['ratio_to_bare']:.3f}")
    print(f"library / bare in its layout {found['ratio_to_bare_channels_last']:.3f}")


if __name__ == "__main__":
    main()
