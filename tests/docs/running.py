"""Runs the blocks that a page marks as runnable, in the page's order, as a reader would who pastes them.

A block opens with ```` ```sh run ```` or ```` ```python run ````. All of a page run in one shell, so what one
sets the next can use; the first command that fails ends the page. A block ```` ```text output ```` says what
the block before it prints, with `…` for what differs from time to time. What the tutorial marks with `setup`
runs before other pages, once: signing in, and the network and images that the examples are about; a page with
`setup` blocks of its own, as the README, has all it needs itself. Blocks with
`last` run after all others, from the bottom to the top: what deletes things. Blocks with `slow`, which wait
for jobs, run with `make test-docs` alone.
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from tests.docs import cifar
from tests.docs.pages import ROOT, Block, blocks
from tests.support.service import Service

TUTORIAL = ROOT / "docs" / "tutorial.md"
ADDRESS = "http://127.0.0.1:8000"  # where `make run` serves, and where the pages therefore ask
_END = "\x1e"  # between the outputs of two blocks
_READY = "ready.sh"  # in the reader's folder: what the tutorial's `setup` has set, once it has run
_SECONDS = 840  # generous: a job that takes ten seconds takes a minute beside much else


@dataclass(frozen=True)
class Step:
    """A block to run, and what the page says that it prints."""

    block: Block
    prints: str | None


def steps(page: Path, *, slow: bool = False) -> list[Step]:
    """What runs of a page, in the order in which it runs."""
    first, last = [], []
    found = blocks(page)
    for block, after in zip_longest(found, found[1:]):
        if "run" in block.words and (slow or "slow" not in block.words):
            prints = after.text if after and "output" in after.words else None
            (last if "last" in block.words else first).append(Step(block, prints))
    return first + last[::-1]


def setup_steps() -> list[Step]:
    return [step for step in steps(TUTORIAL) if "setup" in step.block.words]


def stands_alone(page: Path) -> bool:
    """Whether a page takes nothing of the tutorial for granted."""
    return any("setup" in block.words for block in blocks(page))


def is_said(wanted: str, output: str) -> bool:
    """Whether the output is what the page says; `…` stands for anything, and blank space for other such."""
    parts = " ".join(wanted.split()).split("…")
    return re.fullmatch(".*".join(map(re.escape, parts)), " ".join(output.split())) is not None


@dataclass(frozen=True)
class Reader:
    """Somebody in a fresh checkout, beside a running service: a folder and a home of their own."""

    folder: Path
    service: Service

    def follow(self, page: Path, *, slow: bool = False) -> None:
        """Run the page. Raises AssertionError with the block that failed or printed something else."""
        self._prepare()
        wanted = steps(page, slow=slow)
        if stands_alone(page):
            cifar.make(self.folder)
        elif any("last" in step.block.words for step in wanted):
            wanted = setup_steps() + wanted  # what is deleted at the end has to be the page's own
        else:
            self._run(setup_steps(), TUTORIAL, after="declare -p URL KEY MODEL DATA; declare -f api")
        self._run(wanted, page)

    def _run(self, wanted: Sequence[Step], page: Path, after: str = "") -> None:
        ready = self.folder / _READY
        if after and ready.exists():
            return
        ran = subprocess.run(
            ["bash", "-c", self._script(wanted, after)],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        _judge(page, wanted, ran)

    def _script(self, wanted: Sequence[Step], after: str) -> str:
        parts = ["set -euo pipefail", f"if [ -e {_READY} ]; then . ./{_READY}; fi"]
        for step in wanted:
            parts.append(self._command(step.block))
            parts.append(f"printf '{_END}'")
        return "\n".join([*parts, f"{{ {after}; }} >{_READY}" if after else ""])

    def _command(self, block: Block) -> str:
        text = block.text.replace(ADDRESS, self.service.url)
        if block.language == "python":
            return f"python - <<'END OF PYTHON'\n{text}END OF PYTHON\n"
        assert block.language == "sh", f"line {block.line}: {block.language} cannot be run"
        return text

    def _prepare(self) -> None:
        (self.folder / "home").mkdir(parents=True, exist_ok=True)
        (self.folder / "var").mkdir(exist_ok=True)
        (self.folder / "var" / "api-key").write_text(self.service.key)
        if not (self.folder / "examples").exists():
            (self.folder / "examples").symlink_to(ROOT / "examples")
            (self.folder / "scripts").symlink_to(ROOT / "scripts")

    def _environment(self) -> dict[str, str]:
        """Nothing of the tester's own profile, and `basisconv` and `python` of this installation."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("BASISCONV_", "XDG_", "AWS_"))}
        return kept | {
            "HOME": str(self.folder / "home"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "NO_COLOR": "1",
            "COLUMNS": "110",
            "no_proxy": "127.0.0.1",
        }


def _judge(page: Path, wanted: Sequence[Step], ran: "subprocess.CompletedProcess[str]") -> None:
    outputs = ran.stdout.split(_END)
    for step, output in zip(wanted, outputs, strict=False):
        finished = ran.returncode == 0 or output is not outputs[-1]
        if step.prints is not None and finished:
            place = f"{page.relative_to(ROOT)}, the block at line {step.block.line}"
            assert is_said(step.prints, output), f"{place} prints something else:\n{output}"
    if ran.returncode != 0:
        step = wanted[min(len(outputs), len(wanted)) - 1]
        raise AssertionError(
            f"{page.relative_to(ROOT)}, line {step.block.line}: ended with {ran.returncode}:\n"
            f"{step.block.text}\n{outputs[-1]}\n{ran.stderr[-3000:]}"
        )
    assert len(outputs) == len(wanted) + 1
