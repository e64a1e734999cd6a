"""The child: enters its sandbox, does one task in its scratch folder, says how it went, and ends.

Started as ``python -P -m worker.child '{"policy": …, "parent": pid}'`` with one JSON line on standard input.
Messages leave through what was standard output; whatever a library prints goes to standard error.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Final

from worker import child_log, sandbox
from worker.problems import DISK_FULL, as_problem, has_no_room, is_disk_full
from worker.stopping import Stopped

Message = dict[str, Any]
Report = Callable[[Message], None]
# Imported only after the sandbox is entered.
HANDLERS: Final = {
    "inspect_model": ("worker.first_look", "inspect_model"),
    "inspect_dataset": ("worker.data.ingest", "inspect_dataset"),
    "run_job": ("worker.pipeline", "run"),
    "plan": ("worker.planning", "plan"),
}


def main(argument: str) -> None:
    order = json.loads(argument)
    report = _reporter(os.dup(1))
    os.dup2(2, 1)
    child_log.install(report)
    entered = sandbox.enter(sandbox.Policy(**order["policy"]), order["parent"])
    report({"type": "sandbox", "holds": entered.holds, "missing": entered.missing})
    with suppress(Stopped):  # the supervisor, which asked, needs no last word
        report(_do(json.loads(sys.stdin.buffer.readline()), report))
    sys.stderr.flush()
    os._exit(0)  # everything is said; the libraries' own endings can only crash


def _reporter(descriptor: int) -> Report:
    lock = Lock()

    def report(message: Message) -> None:
        line = json.dumps(message, allow_nan=False).encode() + b"\n"
        with lock:
            view = memoryview(line)
            while view:
                view = view[os.write(descriptor, view) :]

    return report


def _do(task: Message, report: Report) -> Message:
    """The last message: a result or a problem."""
    try:
        if task["task"] == "run_job":  # said before torch is imported, which takes seconds
            report({"type": "stage", "stage": (task.get("resume") or {}).get("stage", "calibrate")})
        module, name = HANDLERS[task["task"]]
        handler = getattr(import_module(module), name)
        return {"type": "result", "result": handler(task, Path.cwd(), report)}
    except Exception as error:
        sandbox.allow_last_words()
        problem = as_problem(error, task)
        unexpected = problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if is_disk_full(error) or (unexpected and has_no_room(Path.cwd())):
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            os._exit(DISK_FULL)
        if unexpected:
            traceback.print_exc(file=sys.stderr)
        return {"type": "problem", "problem": problem.document()}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor stops its children itself
    main(sys.argv[1])
