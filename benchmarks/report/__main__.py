"""Tables and Pareto plots beside every raw file of `make bench-method` and `make bench-gpu`."""

import sys
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.raw import about, read
from benchmarks.report.plots import pareto
from benchmarks.report.summary import summarise
from benchmarks.report.tables import page

RESULTS = ROOT / "benchmarks" / "results"


def main(files: list[Path]) -> None:
    for file in files:
        lines = summarise(read(file))
        table = file.with_suffix(".md")
        table.write_text(page(about(file), lines))
        print(table)
        for network in dict.fromkeys(line.network for line in lines):
            plot = file.with_name(f"{file.stem}-{network}.svg")
            pareto(lines, network, plot)
            print(plot)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("method-*.json")))
