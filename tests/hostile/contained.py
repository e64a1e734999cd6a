"""A call in a forked process under limits: whatever it does, the test goes on and says what it was."""

import json
import os
import resource
import select
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.core.errors import Problem
from basisconv.errors import MethodError

SECONDS = 60.0  # generous: the machine that runs the tests may be busy
CPU_SECONDS = 20
MEMORY_BYTES = 6_000_000_000  # of addresses, most of which torch takes by itself


@dataclass(frozen=True)
class Outcome:
    """`returned`, `refused` by an error of ours, or what must not happen: `raised`, `died`, `stuck`."""

    kind: str
    detail: str = ""

    @property
    def is_allowed(self) -> bool:
        return self.kind in ("returned", "refused")


def contained(call: Callable[[], object]) -> Outcome:
    """What becomes of `call` in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _in_child(call, writing)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], SECONDS)
        if not ready:
            os.kill(pid, signal.SIGKILL)
        said = os.read(reading, 65_536) if ready else b""
    finally:
        os.close(reading)
        _, status = os.waitpid(pid, 0)
    if said:
        return Outcome(**json.loads(said))
    code = os.waitstatus_to_exitcode(status)
    if not ready or code == -signal.SIGXCPU:
        return Outcome("stuck", f"longer than {CPU_SECONDS} s of the processor")
    return Outcome("died", signal.Signals(-code).name if code < 0 else f"exit status {code}")


def _in_child(call: Callable[[], object], writing: int) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES + 100_000_000))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000_000, 1_000_000_000))
    outcome = _outcome(call)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES + 100_000_000,) * 2)
    os.write(writing, json.dumps(outcome).encode()[:65_000])
    os._exit(0)


def _outcome(call: Callable[[], object]) -> dict[str, Any]:
    try:
        call()
    except (MethodError, Problem) as error:
        return {"kind": "refused", "detail": error.code}
    except MemoryError:
        return {"kind": "refused", "detail": "out_of_memory"}  # the child's handler makes this of it
    except BaseException as error:
        where = traceback.format_exc(limit=-6)[-1500:]
        return {"kind": "raised", "detail": f"{type(error).__name__}: {str(error)[:200]}\n{where}"}
    return {"kind": "returned"}
