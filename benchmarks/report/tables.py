"""Markdown tables of a raw file."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.methods import METHODS
from benchmarks.report.floor import AIM, FLOOR
from benchmarks.report.summary import Line
from benchmarks.report.titles import TITLES

ORDER = tuple(METHODS)
PEERS = ("tensorly", "torch-pruning", "aimet-torch")  # the raw file has all they bring along


def page(about: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """Everything that is known of one run."""
    parts = ["# Results", _about(about), _codes(lines)]
    for network in dict.fromkeys(line.network for line in lines):
        own = [line for line in lines if line.network == network]
        parts += [f"## {TITLES.get(network, network)}", _original(own)]
        parts += ["### Without tuning", accuracies(own, tuned=False, floor=FLOOR.get(network, {}))]
        parts += [aims(own, AIM.get(network, {}))]
        if any(line.tuned for line in own):
            parts += ["### With tuning", accuracies(own, tuned=True, floor={})]
        parts += ["### Everything measured", details(own)]
    return "\n\n".join(part for part in parts if part) + "\n"


def accuracies(lines: Sequence[Line], tuned: bool, floor: Mapping[float, float]) -> str:
    """A row per method, a column per cut."""
    shown = [line for line in lines if line.tuned == tuned and line.cut > 0]
    cuts = sorted({line.cut for line in shown})
    rows = [["top-1 %", *(f"−{cut:.0%}".replace("%", " %") for cut in cuts)]]
    for method in ORDER:
        cells = {line.cut: accuracy_cell(line) for line in shown if line.method == method}
        if cells:
            rows.append([METHODS[method].title, *(cells.get(cut, "–") for cut in cuts)])
    if any(cut in floor for cut in cuts):
        rows.append(["the prototype (floor)", *(f"{floor[c]:.2f}" if c in floor else "–" for c in cuts)])
    return markdown(rows)


def aims(lines: Sequence[Line], aim: Mapping[float, float]) -> str:
    """What BasisConv loses without tuning beside the most that it was meant to lose, in points."""
    original = next((x.accuracy for x in lines if x.method == "uncompressed" and not x.tuned), None)
    ours = {x.cut: x.accuracy for x in lines if x.method == "basisconv" and not x.tuned}
    known = [cut for cut in aim if cut in ours]
    if original is None or not known:
        return ""
    said = (
        f"{original - ours[cut]:.2f} at −{cut:.0%} (at most {aim[cut]})".replace("%", " %") for cut in known
    )
    return f"Points that BasisConv loses, and the most that was aimed for: {', '.join(said)}."


def accuracy_cell(line: Line) -> str:
    """Mean ± sample standard deviation; in brackets what it was before batch norms were re-estimated."""
    spread = f" ± {line.spread:.2f}" if line.spread is not None else ""
    given = line.as_given
    changed = given is not None and abs(given - line.accuracy) >= 0.005
    return f"{line.accuracy:.2f}{spread}" + (f" ({given:.2f})" if changed else "")


def details(lines: Sequence[Line]) -> str:
    """Shares of the original; latency of the exported file beside the MACs it was to follow."""
    head = "method|cut|tuned|seeds|top-1 %|MACs|parameters|bytes|time, batch 1|time, batch 32|CPU s"
    rows = [head.split("|")]
    for line in sorted(lines, key=lambda line: (line.cut, line.tuned, ORDER.index(line.method))):
        kept = line.kept
        shares = ("macs_kept", "params_kept", "size_kept", "latency_ratio_1", "latency_ratio_32")
        rows.append(
            [
                METHODS[line.method].title,
                f"{line.cut:.0%}",
                "yes" if line.tuned else "no",
                str(line.count),
                accuracy_cell(line),
                *(f"{kept[name]:.3f}" for name in shares),
                f"{line.seconds:.1f}",
            ]
        )
    return markdown(rows)


def _original(lines: Sequence[Line]) -> str:
    found = {line.tuned: line for line in lines if line.method == "uncompressed"}
    if False not in found:
        return ""
    text = f"Uncompressed: {found[False].accuracy:.2f} %"
    if True in found:
        text += f"; after the same fine-tuning {accuracy_cell(found[True])} %"
    return text + "."


def _codes(lines: Sequence[Line]) -> str:
    """Digests themselves stay in the raw file; rows to be compared that differ in them are called so."""
    kinds = dict.fromkeys((line.network, line.method, line.tuned) for line in lines)
    torn = [kind for kind in kinds if len(_codes_of(lines, kind)) > 1]
    if torn:
        names = ", ".join(
            f"{METHODS[m].title}{' tuned' if t else ''} on {TITLES.get(n, n)}" for n, m, t in torn
        )
        return f"**Measured by different versions of the code**: {names}."
    return "All rows of one network, method and kind were measured by the same code."


def _called(network: str, method: str, tuned: bool) -> str:
    return f"{METHODS[method].title}{' tuned' if tuned else ''} on {TITLES.get(network, network)}"


def _codes_of(lines: Sequence[Line], kind: tuple[str, str, bool]) -> frozenset[str]:
    own = (line.codes for line in lines if (line.network, line.method, line.tuned) == kind)
    return frozenset[str]().union(*own)


def _about(about: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    peers = ", ".join(f"{name} {about['peers'][name]}" for name in PEERS if name in about["peers"])
    return (
        f"Suite `{about['suite']}`, started {about['started']}. {about['processor']}, {about['threads']} "
        f"thread(s), {about['device']}; Python {about['python']}, {packages}; peers: {peers}."
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
