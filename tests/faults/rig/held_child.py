"""The real child, but for pauses: some stages take a few milliseconds, and a test wants to hit each of them.

It waits where a file in the folder of its first argument names the place, until the file is gone.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker import child

Message = dict[str, Any]
HOLDS = Path(sys.argv[1])


def wait_at(place: str | None) -> None:
    while place is not None and (HOLDS / place).exists():
        time.sleep(0.02)


def place_of(message: Message) -> str | None:
    """Fine-tuning is held behind its first checkpoint, every other stage at its beginning."""
    if message["type"] == "checkpoint" and message["part"] == "training" and message["epoch"] >= 1:
        return "finetune"
    if message["type"] == "stage" and message["stage"] != "finetune":
        return str(message["stage"])
    return None


def reporter(descriptor: int, make: Callable[[int], child.Report] = child._reporter) -> child.Report:
    report = make(descriptor)

    def tell(message: Message) -> None:
        report(message)
        wait_at(place_of(message))

    return tell


def do(task: Message, report: child.Report, really: Any = child._do) -> Message:
    wait_at("inspect" if task["task"].startswith("inspect") else None)
    done: Message = really(task, report)
    return done


if __name__ == "__main__":
    child._reporter, child._do = reporter, do
    child.main(sys.argv[2])
