"""Accuracy against operations kept, a line per method."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.methods import METHODS
from benchmarks.report.style import COLOURS, INK, picture
from benchmarks.report.summary import Line
from benchmarks.report.titles import TITLES

SHOWN = tuple(name for name in METHODS if name != "uncompressed")


def pareto(lines: Sequence[Line], network: str, path: Path) -> None:
    """Filled: without tuning; hollow: after it. The dotted line is the network as it came."""
    own = [line for line in lines if line.network == network]
    with picture(path) as (axes,):
        for colour, method in zip(COLOURS, SHOWN, strict=False):
            for tuned in (False, True):
                chosen = [x for x in own if x.method == method and x.tuned == tuned]
                _draw(axes, chosen, colour, tuned, METHODS[method].title)
        for line in own:
            if line.method == "uncompressed" and not line.tuned:
                axes.axhline(line.accuracy, color=INK, linestyle=":", linewidth=1)
        axes.set_xlabel("MACs kept")
        axes.set_ylabel("top-1 on the test images, %")
        axes.set_title(TITLES.get(network, network), loc="left")
        axes.legend(fontsize=8, loc="lower right")


def _draw(axes: Axes, lines: Sequence[Line], colour: str, tuned: bool, title: str) -> None:
    if not lines:
        return
    ordered = sorted(lines, key=lambda line: line.kept["macs_kept"])
    axes.errorbar(
        [line.kept["macs_kept"] for line in ordered],
        [line.accuracy for line in ordered],
        yerr=[line.spread or 0.0 for line in ordered],
        color=colour,
        marker="o",
        markersize=5,
        markerfacecolor="none" if tuned else colour,
        linestyle="--" if tuned else "-",
        linewidth=1.4,
        label=f"{title}, tuned" if tuned else title,
    )
