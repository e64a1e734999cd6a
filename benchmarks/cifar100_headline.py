"""Both headline cuts of BasisConv at once on CIFAR-100: 5x fewer operations, 18x fewer learnable parameters.

The paper (arXiv 1906.04509) claims "up to" each of the two; this is one network that has both, and what it
costs. Three parts:

    frozen   the trained network, a basis of its measured responses (or of its weights), then only the
             mixing, biases, batch norms and what was not replaced learn from the original's answers
    scratch  random orthogonal filters that a seed remembers; only the 1x1 weights learn, from labels
    dense    the uncompressed network from scratch with the images, epochs and steps of `scratch`

    python benchmarks/cifar100_headline.py frozen scratch dense
    python benchmarks/cifar100_headline.py scratch --epochs 200 --device cuda --seeds 0 1 2

Writes raw JSON (each part and seed beside what is there already) and a short text to benchmarks/results/.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from basisconv import DecomposeConfig, Decomposition, count, decompose_  # noqa: E402
from basisconv.cost import Costs  # noqa: E402
from basisconv.finetune import FinetuneConfig, Step, TrainingData, finetune  # noqa: E402
from basisconv.scratch import ScratchConfig, ScratchTraining, TrainConfig, check, randomize_  # noqa: E402
from basisconv.scratch.config import Unit  # noqa: E402
from basisconv.scratch.initialise import fresh_, unit_variance_  # noqa: E402
from tests.support import networks  # noqa: E402

BUDGETS: dict[Unit, float] = {"macs": 1 / 5, "learnable_params": 1 / 18}
CALIBRATION_IMAGES = 512
EXAMPLE = torch.zeros(1, 3, 32, 32)
EPOCHS = {"frozen": 10, "scratch": 15, "dense": 15}  # a quarter of an hour on one idle core; dense: half
Run = dict[str, Any]


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    out = options.out / f"cifar100_headline_{options.network.removeprefix('cifar100_')}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for part in options.parts:
            run = PARTS[part](options, seed) | about(options)
            check_cuts(part, run)
            runs = json.loads(out.read_text()) if out.exists() else {}
            runs[f"{part}, seed {seed}"] = run
            out.write_text(json.dumps(runs, indent=1) + "\n")
            out.with_suffix(".md").write_text(report(options.network, runs))
    print(report(options.network, json.loads(out.read_text())))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=list(PARTS), default=["frozen", "scratch"])
    parser.add_argument("--network", default="cifar100_resnet20_b", choices=[
        "cifar100_resnet20_b", "cifar100_resnet56_b"])  # fmt: skip
    parser.add_argument(
        "--basis", default="activations", choices=["activations", "weights"], help="of `frozen`"
    )
    parser.add_argument("--epochs", type=int, help="of every part; left out: what a CPU does in 15 minutes")
    parser.add_argument("--images", type=int, default=20_000, help="training images used")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    return parser.parse_args()


def about(options: argparse.Namespace) -> Run:
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} thread(s)"
    return {"network": options.network, "device": device, "torch": torch.__version__}


def frozen(options: argparse.Namespace, seed: int) -> Run:
    """The trained network with frozen basis filters."""
    original = networks.load(options.network).to(options.device)
    before = count(original, EXAMPLE.to(options.device))
    began = time.monotonic()
    student, end = decomposed(options, original, seed)
    for network in (original, student):  # a quarter faster on CPUs
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found: Run = {"decompose seconds": round(time.monotonic() - began, 1), "basis": options.basis}
    found["accuracy original"] = test_accuracy(options, original)
    found["accuracy truncated"] = test_accuracy(options, student)
    epochs = options.epochs or EPOCHS["frozen"]
    config = FinetuneConfig(epochs=epochs, update="mixing", objective="distill", seed=seed)
    found |= learn("frozen", finetune(student, original, data(options), config))
    return found | costs(before, end.costs) | ending(options, student, epochs, seed, end)


def decomposed(
    options: argparse.Namespace, original: nn.Module, seed: int
) -> tuple[nn.Module, Decomposition]:
    """Filters per layer chosen as `scratch` chooses them, so that the two differ in the filters alone.

    Fitting to responses gives every pair a bias, which learns: room for them is left in the budget.
    """
    pixels, _ = networks.cifar100_images("train", CALIBRATION_IMAGES)

    def images() -> Iterator[Tensor]:
        return (x.to(options.device) for x in networks.batches(options.network, pixels))

    example, student = EXAMPLE.to(options.device), copy.deepcopy(original)
    params = count(original, example).params
    plain = [m for m in original.modules() if isinstance(m, nn.Conv2d) and m.bias is None]
    room = BUDGETS["learnable_params"] - sum(conv.out_channels for conv in plain) / params
    ranks = check(original, example, ScratchConfig({**BUDGETS, "learnable_params": room}))
    config = DecomposeConfig(
        basis=options.basis, target_kind="ranks", target_value=ranks, forms="basis", seed=seed
    )
    *_, end = decompose_(student, example, config, images)
    assert isinstance(end, Decomposition)
    return student, end


def scratch(options: argparse.Namespace, seed: int) -> Run:
    """Random orthogonal filters, learned mixing."""
    network = networks.build(options.network).to(options.device)
    before = count(network, EXAMPLE.to(options.device))
    config = ScratchConfig(BUDGETS, seed=seed)
    end = randomize_(network, EXAMPLE.to(options.device), config, some(options))
    return from_scratch("scratch", options, network, seed) | costs(before, end.costs) | layers(end)


def dense(options: argparse.Namespace, seed: int) -> Run:
    """The uncompressed network by the same recipe."""
    network = networks.build(options.network).to(options.device)
    before = count(network, EXAMPLE.to(options.device))
    unit_variance_(fresh_(network, seed), some(options))
    return from_scratch("dense", options, network, seed) | costs(before, before)


def from_scratch(part: str, options: argparse.Namespace, network: nn.Module, seed: int) -> Run:
    epochs = options.epochs or EPOCHS[part]
    untrained = test_accuracy(options, network)
    run = ScratchTraining(network, data(options), TrainConfig(epochs=epochs, seed=seed))
    learned = learn(part, run)
    return {"accuracy untrained": untrained} | learned | ending(options, network, epochs, seed, None)


PARTS = {"frozen": frozen, "scratch": scratch, "dense": dense}


def learn(part: str, steps: Iterator[Step]) -> Run:
    """Train to the end; loss per epoch, and what it took."""
    wall, processor = time.monotonic(), time.process_time()
    losses: dict[int, list[float]] = {}
    for step in steps:
        losses.setdefault(step.epoch, []).append(step.loss)
        if step.step % 20 == 0 or step.step == step.steps:
            print(f"{part}: step {step.step} of {step.steps}, loss {step.loss:.3f}", flush=True)
    return {
        "loss per epoch": [round(mean(values), 4) for values in losses.values()],
        "training seconds": round(time.monotonic() - wall, 1),
        "training processor seconds": round(time.process_time() - processor, 1),
    }


def ending(
    options: argparse.Namespace, network: nn.Module, epochs: int, seed: int, end: Decomposition | None
) -> Run:
    accuracy = test_accuracy(options, network)
    found = {"accuracy": accuracy, "epochs": epochs, "seed": seed, "training images": options.images}
    return found | (layers(end) if end is not None else {})


def layers(end: Decomposition) -> Run:
    return {"filters": {layer.name: layer.rank for layer in end.layers if layer.replaced}}


def costs(before: Costs, after: Costs) -> Run:
    return {
        "macs": [before.macs, after.macs],
        "stored params": [before.params, after.params],
        "learnable params": [before.params, after.learnable_params],
    }


def check_cuts(part: str, run: Run) -> None:
    """A run that misses a cut is no headline run."""
    for name, unit in (("macs", "macs"), ("learnable params", "learnable_params")):
        before, after = run[name]
        if part != "dense" and after > BUDGETS[unit] * before:
            raise SystemExit(
                f"{part}: {after:,} of {before:,} {name} are more than {BUDGETS[unit]:.4f} of them"
            )


def data(options: argparse.Namespace) -> TrainingData:
    pixels, labels = networks.cifar100_images("train", options.images)
    norm = networks.normalisation(options.network)
    images = torch.from_numpy(pixels.copy()).to(options.device)
    return TrainingData(images, torch.from_numpy(labels.copy()), norm.scale, norm.mean, norm.std)


def some(options: argparse.Namespace) -> Tensor:
    pixels, _ = networks.cifar100_images("train", 256)
    return next(networks.batches(options.network, pixels, 256)).to(options.device)


@torch.no_grad()
def test_accuracy(options: argparse.Namespace, network: nn.Module) -> float:
    """Top-1 on all 10,000 test images; nothing is chosen by it."""
    network.eval()
    pixels, labels = networks.cifar100_images("test")
    found = [
        network(x.to(options.device)).argmax(1).cpu() for x in networks.batches(options.network, pixels, 500)
    ]
    return float((torch.cat(found) == torch.from_numpy(labels)).double().mean())


HEAD = """# Both headline cuts at once: {network}

Written by `make bench-headline` from the JSON beside it. Top-1 on the 10,000 test images of CIFAR-100, last
epoch. The shared data holds 20,000 of the 50,000 training images; the network as it came was trained by its
author on all of them for hundreds of epochs.

| | operations | learnable | stored | before | after | epochs × images | seeds | training |
|---|---|---|---|---|---|---|---|---|
"""


def report(network: str, runs: dict[str, Run]) -> str:
    """What came out, in one table and some sentences."""
    rows = [row(part, [r for name, r in runs.items() if name.startswith(f"{part},")]) for part in PARTS]
    table = "".join(f"{text}\n" for text in rows if text)
    return HEAD.format(network=network) + table + "\n" + "\n".join(conclusions(runs)) + "\n"


def row(part: str, runs: list[Run]) -> str:
    if not runs:
        return ""
    run = runs[-1]
    before = run.get("accuracy truncated", run.get("accuracy untrained"))
    cuts = [f"1/{run[key][0] / run[key][1]:.2f}" for key in ("macs", "learnable params", "stored params")]
    after = [r["accuracy"] for r in runs]
    spread = f" ± {100 * stdev(after):.2f}" if len(after) > 1 else ""
    taken = f"{mean(r['training processor seconds'] for r in runs) / 60:.0f} min of {run['device']}"
    cells = [part, *cuts, f"{before:.2%}", f"{mean(after):.2%}{spread}"]
    cells += [f"{run['epochs']} × {run['training images']:,}", str(len(runs)), taken]
    return "| " + " | ".join(cells) + " |"


def conclusions(runs: dict[str, Run]) -> list[str]:
    """Sentences with the numbers of the last run of each part."""
    last = {name.partition(",")[0]: run for name, run in runs.items()}
    said = []
    if "frozen" in last:
        run = last["frozen"]
        lost = 100 * (run["accuracy original"] - run["accuracy"])
        said.append(
            f"- From the trained network ({run['accuracy original']:.2%}), both cuts cost {lost:.1f} points "
            f"after {run['epochs']} epochs of mixing-only distillation; untuned it answers "
            f"{run['accuracy truncated']:.2%}."
        )
    if "scratch" in last:
        run = last["scratch"]
        said.append(
            f"- From scratch with random filters both cuts give {run['accuracy']:.2%} after {run['epochs']} "
            f"epochs; a file holds {run['learnable params'][1]:,} learned numbers, a seed and the batch "
            f"norms' statistics, while the network computes with {run['stored params'][1]:,}."
        )
    if "scratch" in last and "dense" in last:
        whole = last["dense"]["accuracy"]
        said.append(
            f"- The uncompressed network reaches {whole:.2%} by the same recipe: at this length of training "
            f"the two cuts cost {100 * (whole - last['scratch']['accuracy']):.1f} points."
        )
    return [
        *said,
        "- The paper's tables are for other networks and full training: no row here is one of them.",
    ]


if __name__ == "__main__":
    main()
