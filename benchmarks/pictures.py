"""`python -m benchmarks.pictures`: the pictures of docs/method.md, drawn from what the library measures.

ResNet-20 for CIFAR-10 from the shared data, with 256 unlabelled train images.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from basisconv import DecomposeConfig
from basisconv.basis.weights import weight_energies
from basisconv.measure import measure
from basisconv.options import Measured, Option
from benchmarks.data import draw
from benchmarks.drain import drain
from benchmarks.machine import ROOT
from benchmarks.networks import example, load
from benchmarks.report.style import COLOURS, picture

NETWORK = "cifar10_resnet20_a"
SHOWN = ("layer1.0.conv1", "layer2.0.conv2", "layer3.2.conv2")  # early, middle, last
FORMS = {"basis": "basis, 1×1", "kx1_1xk": "3×1, 1×3", "1xk_kx1": "1×3, 3×1"}


@dataclass(frozen=True)
class Seen:
    """What the pictures need: energies of the responses per layer, and every layer's options."""

    network: nn.Module
    energies: Mapping[str, Tensor]
    options: Mapping[str, Sequence[Option]]


def look(images: int) -> Seen:
    """Measured twice on the same images: for the energy rule, and for a budget."""
    network, seen = load(NETWORK), draw(NETWORK, 0, images).images

    def batches() -> Iterator[Tensor]:
        return iter(seen.split(128))

    def measured(config: DecomposeConfig) -> Measured:
        return drain(measure(network, example(), config, batches))

    energy = measured(DecomposeConfig(target_kind="energy", target_value=0.9))
    budget = measured(DecomposeConfig(target_kind="macs", target_value=0.5))
    return Seen(network, energy.energies, budget.tables)


def spectra(seen: Seen, path: Path) -> None:
    """How much of its energy a layer keeps with R filters: of its weights, and of its measured responses."""
    with picture(path, columns=len(SHOWN), width=9, height=3.2) as all_axes:
        for axes, name in zip(all_axes, SHOWN, strict=True):
            weights = weight_energies(seen.network.get_submodule(name))  # type: ignore[arg-type]
            _shares(axes, weights, COLOURS[1], "weights")
            _shares(axes, seen.energies[name], COLOURS[0], "responses")
            axes.set_title(name, loc="left")
            axes.set_xlabel("filters R")
        all_axes[0].set_ylabel("energy missing")
        all_axes[0].legend(fontsize=8)


def _shares(axes: Axes, energies: Tensor, colour: str, label: str) -> None:
    missing = 1 - energies.cumsum(0) / energies.sum()
    ranks = torch.arange(1, len(energies) + 1)
    shown = missing > 1e-4
    axes.semilogy(ranks[shown], missing[shown], color=colour, label=label)
    axes.set_ylim(1e-4, 1.5)


def sensitivity(seen: Seen, path: Path) -> None:
    """Predicted harm of each layer when it alone keeps half of its operations."""
    names = [name for name, options in seen.options.items() if len(options) > 1]
    with picture(path, width=9, height=3.4) as (axes,):
        for colour, (form, title) in zip(COLOURS, FORMS.items(), strict=False):
            harms = [_harm_at(seen.options[name], form, 0.5) for name in names]
            axes.semilogy(range(len(names)), harms, color=colour, marker="o", markersize=4, label=title)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axes.set_ylabel("predicted harm at half the MACs")
        axes.legend(fontsize=8)


def _harm_at(options: Sequence[Option], form: str, share: float) -> float:
    """Least harm of this form within a share of the layer's own MACs; NaN where the form has none."""
    limit = share * next(option.macs for option in options if option.form == "dense")
    fitting = [option.harm for option in options if option.form == form and option.macs <= limit]
    return min(fitting, default=float("nan"))


def trade(seen: Seen, path: Path) -> None:
    """Harm against operations for the forms of three layers: what the plan chooses from."""
    with picture(path, columns=len(SHOWN), width=9, height=3.2) as all_axes:
        for axes, name in zip(all_axes, SHOWN, strict=True):
            options = seen.options[name]
            dense = next(option.macs for option in options if option.form == "dense")
            for colour, (form, title) in zip(COLOURS, FORMS.items(), strict=False):
                own = [option for option in options if option.form == form and option.harm > 0]
                shares = [option.macs / dense for option in own]
                axes.semilogy(shares, [option.harm for option in own], color=colour, label=title)
            axes.set_ylim(bottom=1e-5 * max(option.harm for option in options))
            axes.set_title(name, loc="left")
            axes.set_xlabel("MACs kept")
        all_axes[0].set_ylabel("predicted harm")
        all_axes[0].legend(fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seen = look(arguments.images)
    for draw_picture in (spectra, sensitivity, trade):
        path = arguments.folder / f"method-{draw_picture.__name__}.svg"
        draw_picture(seen, path)
        print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
