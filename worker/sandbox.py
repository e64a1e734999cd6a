"""What a child may do: the supervisor writes the policy, the child enters it before it reads a byte.

The child's first act, in its single thread and before numpy or torch start theirs, is :func:`enter`: die with
the supervisor, no new privileges, no network, limits, and another uid where the supervisor is root.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

PROJECT: Final = Path(__file__).resolve().parent.parent
# From <linux/prctl.h> and <linux/sched.h>.
PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

FIRST_UID: Final = 51_000  # below the ranges of subordinate ids and of systemd's dynamic users
UIDS: Final = 1_000
OPEN_FILES: Final = 1_024
LAST_WORDS_BYTES: Final = 64_000_000
# What a GPU driver's libraries need; nothing else of the worker's environment reaches a child.
PASSED_ON: Final = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "TZ")


@dataclass(frozen=True)
class Policy:
    """The limits of one child; 0 and None mean none. Handed over as JSON in the child's argument."""

    address_bytes: int = 0
    file_bytes: int = 0
    cpu_seconds: int = 0
    uid: int | None = None
    network: bool = False

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Refused(RuntimeError):  # noqa: N818 - by the kernel
    """The kernel refused a part of the sandbox."""


def enter(policy: Policy, parent: int) -> list[str]:
    """Apply the policy to this process for ever; returns what the kernel would not grant.

    Limits, the parent-death signal and the uid must hold; only the network's absence is best effort.
    """
    missing: list[str] = []
    if not policy.network:
        try:
            _leave_network()
        except Refused as error:
            missing.append(f"network: {error}")
    if policy.uid is not None:
        os.setgroups([])
        os.setresgid(policy.uid, policy.uid, policy.uid)
        os.setresuid(policy.uid, policy.uid, policy.uid)
    _limit(policy)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of uid, which would clear it
    if os.getppid() != parent:  # the supervisor died before the signal was armed
        os._exit(1)
    return missing


def _limit(policy: Policy) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    if policy.address_bytes:
        resource.setrlimit(
            resource.RLIMIT_AS, (policy.address_bytes, policy.address_bytes + LAST_WORDS_BYTES)
        )
    if policy.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (policy.file_bytes, policy.file_bytes))
    if policy.cpu_seconds:
        resource.setrlimit(resource.RLIMIT_CPU, (policy.cpu_seconds, policy.cpu_seconds))


def allow_last_words() -> None:
    """Lift the soft limit of memory a little, so that a child that ran out of it can say so."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise Refused(os.strerror(ctypes.get_errno()))


def _unshare(flags: int) -> None:
    if _libc().unshare(flags) != 0:
        raise Refused(os.strerror(ctypes.get_errno()))


def _leave_network() -> None:
    """Move into an empty network namespace, as root directly, else inside a user namespace of our own."""
    if os.geteuid() == 0:
        try:
            return _unshare(CLONE_NEWNET)
        except Refused:  # root in a container without CAP_SYS_ADMIN
            pass
    uid, gid = os.geteuid(), os.getegid()
    _unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {uid} 1"),
        ("gid_map", f"{gid} {gid} 1"),
    ):
        Path("/proc/self", name).write_text(text)
    return None


def outer_environment() -> Mapping[str, str]:
    """The worker's own environment, of which :func:`environment` passes on a few names."""
    return os.environ


def environment(scratch: Path, threads: int, outer: Mapping[str, str]) -> dict[str, str]:
    """A child's whole environment: no secret, no setting, its home and temporary files in its scratch."""
    count = str(max(threads, 1))
    clean = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "USER": "child",  # torch asks for a name, and the uid may have none
        "LOGNAME": "child",
        "PYTHONPATH": str(PROJECT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads on busy cores cost many times what they save
        "MALLOC_ARENA_MAX": "4",  # each further arena reserves 64 MB of the limited address space
    }
    return clean | {name: outer[name] for name in PASSED_ON if name in outer}


@lru_cache(maxsize=8)
def other_uid(scratch_root: Path, supervisor: int) -> tuple[int | None, str | None]:
    """The uid for this supervisor's children and, when there is none, why not.

    Only root can hand out another uid, and only one that can read the interpreter, the libraries, the code
    and its scratch folder is of use: it is tried, because parent folders and mounts can forbid it anywhere.
    """
    if os.geteuid() != 0:
        return None, "the worker is not root"
    uid = FIRST_UID + supervisor % UIDS
    look = (
        "import importlib.util as u, os, sys; sys.path.insert(0, sys.argv[1]); import worker.sandbox\n"
        "for name in ('torch', 'onnx', 'numpy'): open(u.find_spec(name).origin).close()\n"
        "os.stat(sys.argv[2] + '/.')"
    )
    command = [sys.executable, "-I", "-c", look, str(PROJECT), str(scratch_root)]
    try:
        subprocess.run(
            command,
            user=uid,
            group=uid,
            extra_groups=[],
            env={"PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return (
            None,
            f"uid {uid} cannot read the interpreter, the code or {scratch_root} ({type(error).__name__})",
        )
    return uid, None
