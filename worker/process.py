"""One child process: started in a session of its own, read without blocking, killed with all it started."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import psutil

from worker.messages import LINE_BYTES
from worker.problems import DISK_FULL, DISK_WAS_FULL
from worker.sandbox import Policy

READ_BYTES: Final = 1 << 18
STDERR_BYTES: Final = 8_000  # of the end, for the log
_FAULTS: Final = {-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)}


class TooMuchSaid(ValueError):  # noqa: N818 - says what happened
    """A line longer than any child of ours writes."""


class Child:
    """A child at work. Started from the main thread: its parent-death signal hangs on that thread."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        policy: Policy,
        task: Mapping[str, Any],
    ) -> None:
        self._oom_kills = _oom_kills()
        with tempfile.TemporaryFile() as task_file:  # not a pipe: a long task must not block on a slow start
            task_file.write(json.dumps(task).encode() + b"\n")
            task_file.seek(0)
            self.process = subprocess.Popen(
                [*command, json.dumps({"policy": policy.document(), "parent": os.getpid()})],
                stdin=task_file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=dict(environment),
                start_new_session=True,
            )
        self._over = False
        self.logged = 0  # lines that it has asked into the log
        self.spoke = False  # whether the last look brought anything
        self._partial = bytearray()
        self.stderr_tail = bytearray()
        self._selector = selectors.DefaultSelector()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def closed(self) -> bool:
        """Whether the child's message pipe is at its end: it has nothing more to say."""
        return self.process.stdout not in self._open()

    @property
    def has_exited(self) -> bool:
        return self.process.poll() is not None

    def _open(self) -> list[Any]:
        return [key.fileobj for key in self._selector.get_map().values()]

    def lines(self, seconds: float) -> list[bytes]:
        """The complete lines that came within the time; returns early when something came."""
        if not self._open():
            time.sleep(seconds)
            return []
        self.spoke = False
        for key, _ in self._selector.select(seconds):
            self._read(key.fileobj)  # type: ignore[arg-type]
        *lines, rest = bytes(self._partial).split(b"\n")
        self._partial = bytearray(rest)
        if len(rest) > LINE_BYTES:
            raise TooMuchSaid(f"a line of more than {LINE_BYTES:,} bytes")
        return lines

    def _read(self, pipe: IO[bytes]) -> None:
        try:
            data = os.read(pipe.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(pipe)
        elif pipe is self.process.stdout:
            self._partial += data
            self.spoke = True
        else:
            self.stderr_tail = (self.stderr_tail + data)[-STDERR_BYTES:]

    def ask_to_stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def was_asked_to_stop(self) -> bool:
        """Whether it ended as on SIGTERM: by the signal, or without a word when it has saved its work."""
        return self.process.poll() in (-signal.SIGTERM, 0)

    def wait(self, seconds: float) -> int | None:
        """The exit status, or None if the child still runs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Kill the child's whole session, also what left its process group, and reap the child."""
        if self._over:
            return
        self._over = True
        family = _descendants(self.process.pid) if self.process.poll() is None else []
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait()
        self.listen_to_the_end()
        self._selector.close()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def listen_to_the_end(self) -> None:
        """Take the last words from standard error, for the log."""
        if self.process.stderr in self._open():
            with contextlib.suppress(OSError, ValueError):
                self._read(self.process.stderr)  # type: ignore[arg-type]

    def ran_out_of_memory(self) -> bool:
        """Whether the way this child ended says that memory was the reason."""
        code = self.process.poll()
        if code == -signal.SIGKILL:
            return _oom_kills() > self._oom_kills
        return code == -signal.SIGABRT and b"bad_alloc" in self.stderr_tail

    @property
    def ran_out_of_time(self) -> bool:
        """Whether the kernel ended it for the processor time that it took."""
        return self.process.poll() == -signal.SIGXCPU

    @property
    def crashed(self) -> bool:
        """Whether it was ended by a fault of its own, not by somebody's signal."""
        return self.process.poll() in _FAULTS

    def ending(self) -> str:
        """How the child ended, in words."""
        code = self.process.poll()
        if code is None:
            return "its process fell silent"
        if code < 0:
            return f"its process was ended by {signal.Signals(-code).name}"
        if code == DISK_FULL:
            return DISK_WAS_FULL
        return f"its process exited with status {code} and no result"


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
    return found


def _oom_kills() -> int:
    """How often this machine's kernel has killed for want of memory (also within control groups)."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
