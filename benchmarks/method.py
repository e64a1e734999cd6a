"""`python -m benchmarks.method`: every network x cut x method x seed of a suite into a raw file.

Fresh by default; --resume keeps rows of the same code; --network, --method, --untuned take a part of the
suite. Runs that go on with one file may run at the same time, as long as each takes another part.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.methods import METHODS
from benchmarks.raw import RawFile, Row
from benchmarks.suites import SUITES, Part, Suite, small


def run(suite: Suite, raw: RawFile, device: str) -> Iterator[Row]:
    """Measure what the raw file lacks; every row is in it when it is yielded."""
    for part in suite.parts:
        with tempfile.TemporaryDirectory() as folder:
            for row in Bench(part, suite.sizes, Path(folder), raw, device).rows():
                raw.add(row)
                yield row


def _asked(arguments: argparse.Namespace) -> Suite:
    suite = SUITES[arguments.suite]
    suite = small(suite) if arguments.small else suite
    parts = (part for part in suite.parts if part.network in (arguments.network or [part.network]))
    return replace(suite, parts=tuple(_asked_of(part, arguments) for part in parts))


def _asked_of(part: Part, arguments: argparse.Namespace) -> Part:
    methods = tuple(m for m in part.methods if m in (arguments.method or part.methods))
    return replace(
        part,
        methods=methods,
        seeds=tuple(arguments.seed or part.seeds),
        recipe=None if arguments.untuned else part.recipe,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="cpu")
    parser.add_argument(
        "--small", action="store_true", help="minutes, to prove the code; figures mean nothing"
    )
    parser.add_argument("--resume", action="store_true", help="keep rows that this very code has measured")
    parser.add_argument("--network", action="append")
    parser.add_argument("--method", action="append", choices=METHODS)
    parser.add_argument("--seed", action="append", type=int)
    parser.add_argument("--untuned", action="store_true", help="leave rows with tuning for another run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--raw", type=Path)
    return parser


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    name = f"method-{arguments.suite}{'-small' if arguments.small else ''}.json"
    folder = machine.ROOT / ("build/bench" if arguments.small else "benchmarks/results")
    about = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": arguments.suite,
        **machine.describe(arguments.device),
    }
    path = arguments.raw or folder / name
    raw = RawFile.resumed(path, about) if arguments.resume else RawFile(path, about)
    for row in run(_asked(arguments), raw, arguments.device):
        key, accuracy = row.key, row.values["accuracy"]
        print(
            f"{key.network} {key.method} -{key.cut:.0%} seed {key.seed} {'tuned' if key.tuned else ''}"
            f" {100 * accuracy:.2f} % of {row.values['macs_kept']:.3f} MACs",
            flush=True,
        )
    print(f"raw data: {path}")


if __name__ == "__main__":
    main()
