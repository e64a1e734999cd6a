"""What became of each job that something happened to, as a table for people and as JSON."""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

WANTED: Final = "BASISCONV_FAULTS_TABLE"  # the folder for the parts; unset: none are written
STAGES: Final = ("inspect", "calibrate", "decompose", "finetune", "evaluate", "export", "verify")


@dataclass(frozen=True)
class Row:
    """`seconds`: from the fault to the end of what it happened to."""

    stage: str
    fault: str
    outcome: str
    attempts: int
    seconds: float


class Table:
    """Collects rows; a part of a run that is spread over processes."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def write_part(self) -> None:
        folder = os.environ.get(WANTED)
        if folder and self.rows:
            Path(folder).mkdir(parents=True, exist_ok=True)
            part = Path(folder) / f"{os.environ.get('PYTEST_XDIST_WORKER', 'all')}.json"
            part.write_text(json.dumps([asdict(row) for row in self.rows]))


def main(folder: str, target: str) -> None:
    """Put the parts together and write target.json and target.md."""
    rows = [
        Row(**row) for part in sorted(Path(folder).glob("*.json")) for row in json.loads(part.read_text())
    ]
    rows.sort(key=lambda row: (row.fault, STAGES.index(row.stage) if row.stage in STAGES else 0))
    about = {
        "measured_at": datetime.now(UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    document = about | {"rows": [asdict(row) for row in rows]}
    Path(target).with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    Path(target).with_suffix(".md").write_text("\n".join(lines(rows, about)) + "\n")


def lines(rows: list[Row], about: dict[str, object]) -> list[str]:
    grid: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.stage in STAGES:
            grid.setdefault(row.fault, {})[row.stage] = row
    intro = (
        f"Written by the tests of `make test-faults` on {about['measured_at']}: {about['cores']} cores, "
        f"{about['machine']}, Python {about['python']}, other work beside it. The job is the bundled "
        "example. Every one ended once, in the right state, and whatever succeeded has the files of a job "
        "that nothing happened to. A cell: how it ended, the seconds from the fault to the end, and the "
        "attempts that count."
    )
    return [
        "# What faults cost",
        "",
        intro,
        "",
        "| what happened | " + " | ".join(STAGES) + " |",
        "|---|" + "---|" * len(STAGES),
        *[
            f"| {fault} | " + " | ".join(_cell(cells.get(stage)) for stage in STAGES) + " |"
            for fault, cells in grid.items()
        ],
        "",
        "| what else happened | outcome | attempts | seconds |",
        "|---|---|---|---|",
        *[
            f"| {row.fault} | {row.outcome} | {row.attempts} | {row.seconds:.1f} |"
            for row in rows
            if row.stage not in STAGES
        ],
    ]


def _cell(row: Row | None) -> str:
    return "" if row is None else f"{row.outcome}, {row.seconds:.1f} s, {row.attempts}"


if __name__ == "__main__":
    main(*sys.argv[1:3])
