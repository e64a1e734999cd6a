"""Plain children with known pids that never outlive their parent.

The kernel sends the parent-death signal when the *thread* that spawned the child ends, so spawn from the main
thread only. It is set after every change of uid, which would clear it.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol


class NotStarted(Exception):  # noqa: N818 - says what is wrong
    """A child ended or stayed silent when it should have become ready."""


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int, death_signal: signal.Signals) -> None:
    """Called in the child before exec: it gets `death_signal` when its parent is gone, by whatever means."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def make_was_interrupted(pid: int) -> bool:
    """Whether a `make` got SIGINT: it then waits for its children with the signal blocked.

    Ctrl-C in a terminal reaches the children too; `kill -INT` on make alone does not, and make tells nobody.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    blocked = next((line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")), "0")
    return bool(int(blocked, 16) & 1 << (signal.SIGINT - 1))


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    become: Callable[[], None] | None = None,
    keep: Sequence[int] = (),
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own (Ctrl-C reaches only the launcher), output appended to `log`.

    `become` runs in the child before anything else (other uid, mounts); `keep` are file descriptors that stay
    open in it, such as the lock that it holds for as long as it lives.
    """
    parent = os.getpid()

    def prepare() -> None:
        if become is not None:
            become()
        if sys.platform == "linux":
            die_with_parent(parent, death_signal)

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            cwd=cwd,
            start_new_session=True,
            pass_fds=tuple(keep),
            preexec_fn=prepare,  # noqa: PLW1509 - the launcher has no other threads when it spawns
        )
    finally:
        os.close(descriptor)


def stop(
    process: subprocess.Popen[bytes], *, asking: signal.Signals = signal.SIGTERM, grace_seconds: float
) -> int:
    """Ask, wait, and only then kill, the child alone; its exit status."""
    if process.poll() is None:
        process.send_signal(asking)
        try:
            return process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class Server(Protocol):
    """A child that can be started again: the embedded servers, the web process, the workers."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def process(self) -> subprocess.Popen[bytes] | None: ...
    def start(self) -> None: ...
    def is_ready(self) -> bool: ...
    def stop(self) -> None: ...


def wait_ready(server: Server, seconds: float = 60, check: Callable[[], None] = lambda: None) -> None:
    """Until it answers; a server that ended or is late says why. `check` may raise to give up the wait."""
    deadline = time.monotonic() + seconds
    while not server.is_ready():
        ended = server.process is None or server.process.poll() is not None
        if ended or time.monotonic() > deadline:
            raise NotStarted(f"{server.name} did not start. The end of {server.log}:\n{tail(server.log)}")
        check()
        time.sleep(0.03)


def tail(log: Path, lines: int = 5) -> str:
    """The end of a child's log, for the message that says why it did not start."""
    with suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return ""
