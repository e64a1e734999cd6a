"""`python -m benchmarks.speed`: all contenders one after the other, into a raw file and a table."""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.networks.resnet50 import WIDTH
from benchmarks.report.tables import markdown
from benchmarks.sources import digest
from benchmarks.speed.contenders import CONTENDERS, run, total
from benchmarks.speed.setting import Setting

SOURCES = ("basisconv", "benchmarks/speed", "benchmarks/networks", "benchmarks/peers")
TITLES = {contender.name: contender.title for contender in CONTENDERS}


def table(about: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    """CPU seconds, which a busy machine does not stretch; `times ours` compares the whole jobs."""
    setting = about["setting"]
    head = (
        f"{_network(setting['base'])}, {setting['images']} images of {setting['pixels']} px, "
        f"{setting['threads']} thread(s); {about['processor']}."
    )
    return "\n\n".join(["# Speed", head, stages(results), whole_jobs(results)]) + "\n"


def _network(base: int) -> str:
    return "A network of ResNet-50's size" if base == WIDTH else f"ResNet-50 with {base} of {WIDTH} channels"


def stages(results: Sequence[Mapping[str, Any]]) -> str:
    """What was measured."""
    rows = [["contender", "stage", "CPU s", "wall s", "peak GB"]]
    for found in results:
        for stage in found["stages"]:
            seconds = (f"{stage[unit]:.1f}" for unit in ("cpu_seconds", "seconds"))
            peak = f"{stage['peak_bytes'] / 1e9:.2f}"
            rows.append([TITLES[found["contender"]], stage["stage"], *seconds, peak])
    return markdown(rows)


def whole_jobs(results: Sequence[Mapping[str, Any]]) -> str:
    """What was measured times how often the whole job needs it."""
    ours = next((total(found, "cpu_seconds") for found in results if found["contender"] == "ours"), None)
    rows = [["contender", "measured, CPU s", "whole job, CPU s", "times ours"]]
    for found in results:
        measured = sum(stage["cpu_seconds"] for stage in found["stages"])
        for title, repeats in _jobs(found):
            whole = repeats * total(found, "cpu_seconds")
            times = f"{whole / ours:.1f}" if ours else "–"
            rows.append([title, f"{measured:.1f}", f"{whole:.1f}", times])
    return markdown(rows)


def _jobs(found: Mapping[str, Any]) -> list[tuple[str, int]]:
    title, ranks = TITLES[found["contender"]], found.get("ranks_to_choose_from", 1)
    return [(title, 1), *([(f"{title}, {ranks} ranks to choose from", ranks)] if ranks > 1 else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--small",
        action="store_true",
        help="8 images of 64 px on a network a quarter as wide; its figures mean nothing",
    )
    parser.add_argument("--only", action="append", choices=TITLES)
    arguments = parser.parse_args()
    setting = Setting(threads=arguments.threads)
    if arguments.small:
        setting = replace(setting, images=8, pixels=64, layers=2, candidates=1, base=16)
    folder = machine.ROOT / ("build/bench" if arguments.small else "benchmarks/results")
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "setting": asdict(setting),
        "code": digest(SOURCES, {}),
        **machine.describe("cpu"),
    }
    results: list[dict[str, Any]] = []
    for contender in CONTENDERS:
        if contender.name not in (arguments.only or TITLES):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            results.append(run(contender, setting, Path(scratch)))
        text = table(about, results)
        raw = json.dumps({**about, "results": results}, indent=1) + "\n"
        (folder / f"speed-{setting.threads}-thread.json").write_text(raw)
        (folder / f"speed-{setting.threads}-thread.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
