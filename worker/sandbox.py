"""What a child may do: the supervisor writes the policy, the child enters it before it reads a byte.

The child's first act, in its single thread and before numpy or torch start theirs, is :func:`enter`: die with
the supervisor, no new privileges, no network, limits, another uid where the supervisor is root, of all files
only those that it needs (`landlock.py`), of all system calls only what computing takes (`seccomp.py`).
"""

import contextlib
import ctypes
import os
import resource
import signal
import site
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from worker import landlock, seccomp

PROJECT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("app", "worker", "basisconv")
# From <linux/prctl.h>, <linux/sched.h> and <linux/capability.h>.
PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
CAPABILITY_VERSION_3: Final = 0x20080522

FIRST_UID: Final = 51_000  # below the ranges of subordinate ids and of systemd's dynamic users
UIDS: Final = 1_000
OPEN_FILES: Final = 1_024
THREADS: Final = 2_000  # several for each core of the largest machines
THREADS_OF_A_SHARED_UID: Final = 32_000  # the kernel counts all processes of the uid, whoever started them
CPU_GRACE_SECONDS: Final = 5  # between the signal that says why and the one that ends it
LAST_WORDS_BYTES: Final = 64_000_000
# What a GPU driver's libraries need; nothing else of the worker's environment reaches a child.
PASSED_ON: Final = ("LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "TZ")
_DEVICES: Final = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and either under WSL

# Where the system keeps libraries and what they read. Of /etc single files: it also holds passwords' hashes.
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/nix/store", "/gnu/store", "/proc", "/sys")
_ETC: Final = (
    *("ld.so.cache", "ld.so.preload", "ld.so.conf", "ld.so.conf.d", "localtime", "timezone", "os-release"),
    *("passwd", "group", "nsswitch.conf", "locale.alias", "ssl/openssl.cnf", "OpenCL", "vulkan"),
)
_ALWAYS: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True)
class Policy:
    """The limits of one child; 0 and None mean none. Handed over as JSON in the child's argument."""

    address_bytes: int = 0
    data_bytes: int = 0  # memory of its own, without files that it maps
    file_bytes: int = 0
    cpu_seconds: int = 0
    uid: int | None = None
    devices: bool = False  # it computes on a GPU, whose driver wants more
    readable: tuple[str, ...] = ()  # folders beside the interpreter's and the libraries'

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Refused(RuntimeError):  # noqa: N818 - by the kernel
    """The kernel refused a part of the sandbox."""


@dataclass(frozen=True)
class Entered:
    """Which of the parts that a kernel may lack hold, and which do not and why."""

    holds: list[str]
    missing: list[str]


def enter(policy: Policy, parent: int) -> Entered:
    """Apply the policy to this process for ever, with the folder that it stands in as its own.

    Limits, the parent-death signal and the uid must hold. The network namespace, Landlock and the filter of
    system calls are each asked for, and what is not granted is said; each alone already denies the network.
    """
    result = Entered([], [])
    _prepare_while_we_may()
    with _asked("network namespace", result):
        _leave_network()
    if policy.uid is not None:
        os.setgroups([])
        os.setresgid(policy.uid, policy.uid, policy.uid)
        os.setresuid(policy.uid, policy.uid, policy.uid)
    _limit(policy)
    _drop_capabilities()
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of uid, which would clear it
    if os.getppid() != parent:  # the supervisor died before the signal was armed
        os._exit(1)
    with _asked("landlock", result):
        landlock.restrict(_files(policy))
    with _asked("seccomp", result):
        seccomp.restrict(devices=policy.devices)
    return result


@contextlib.contextmanager
def _asked(part: str, result: Entered) -> Iterator[None]:
    try:
        yield
    except (Refused, landlock.Unavailable, seccomp.Unavailable, OSError) as error:
        result.missing.append(f"{part}: {error}")
    else:
        result.holds.append(part)


def _files(policy: Policy) -> Iterator[tuple[Path, int]]:
    """Every place that a child may touch, and how."""
    yield Path.cwd(), landlock.OWN
    for name in (*_SYSTEM, *(f"/etc/{name}" for name in _ETC), *_libraries(), *policy.readable):
        yield Path(name), landlock.READ
    for package in PACKAGES:
        yield PROJECT / package, landlock.READ
    for name in _ALWAYS:
        yield Path(name), landlock.DEVICE
    if policy.devices:
        yield Path("/dev"), landlock.DEVICES


def _libraries() -> Iterator[str]:
    """The interpreter's own folders and those that packages lie in; never a whole project or home."""
    yield from (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        yield from (f"{prefix}/lib", f"{prefix}/lib64")
    yield from site.getsitepackages()
    yield from filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    if "CUDA_HOME" in os.environ:
        yield os.environ["CUDA_HOME"]


class _Packages:
    """Finds our packages where they are, without listing the folder around them, which holds more."""

    def __init__(self, specs: Mapping[str, ModuleSpec]) -> None:
        self._specs = specs

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return self._specs.get(name)


def _limit(policy: Policy) -> None:
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MSGQUEUE, 0)
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    # In a user namespace of its own, and under a uid of its own, only its own threads count.
    _set(resource.RLIMIT_NPROC, THREADS if policy.uid is not None else THREADS_OF_A_SHARED_UID)
    if policy.address_bytes:
        _set(resource.RLIMIT_AS, policy.address_bytes, LAST_WORDS_BYTES)
    if policy.data_bytes:
        _set(resource.RLIMIT_DATA, policy.data_bytes, LAST_WORDS_BYTES)
    if policy.file_bytes:
        _set(resource.RLIMIT_FSIZE, policy.file_bytes)
    if policy.cpu_seconds:
        _set(resource.RLIMIT_CPU, policy.cpu_seconds, CPU_GRACE_SECONDS)


def _set(kind: int, soft: int, more: int = 0) -> None:
    """A limit that is never above the one we stand under ourselves."""
    _, hard = resource.getrlimit(kind)
    ours = [value if hard == resource.RLIM_INFINITY else min(value, hard) for value in (soft, soft + more)]
    resource.setrlimit(kind, (ours[0], ours[1]))


def allow_last_words() -> None:
    """Lift the soft limits of memory a little, so that a child that ran out of it can say so."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard, hard))


_KEPT: dict[str, int] = {}  # descriptors of files that are out of reach later


def _prepare_while_we_may() -> None:
    """What needs files that the sandbox closes, or the uid that we come with."""
    with contextlib.suppress(OSError):
        # When the machine's memory runs out, the kernel is to end this process, not the database.
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError):
        _KEPT["clear_refs"] = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    found = {name: find_spec(name) for name in PACKAGES if name not in sys.modules}
    sys.meta_path.insert(0, _Packages({name: spec for name, spec in found.items() if spec is not None}))


def reset_peak() -> None:
    """Let the kernel count this process's peak memory anew. Raises OSError where it does not."""
    descriptor = _KEPT.get("clear_refs")
    if descriptor is None:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    else:
        os.pwrite(descriptor, b"5", 0)


def _drop_capabilities() -> None:
    """Root's, and those that a user namespace of our own has given us."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _ask(lambda libc: libc.capset(header, (ctypes.c_uint32 * 6)()))


def _ask(call: Callable[[ctypes.CDLL], int]) -> None:
    if call(ctypes.CDLL(None, use_errno=True)) != 0:
        raise Refused(os.strerror(ctypes.get_errno()))


def _prctl(option: int, value: int) -> None:
    _ask(lambda libc: libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _unshare(flags: int) -> None:
    _ask(lambda libc: libc.unshare(flags))


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


def has_devices() -> bool:
    """Whether this machine shows a GPU to its processes."""
    return any(Path(name).exists() for name in _DEVICES)


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
        "ORT_DISABLE_TELEMETRY": "1",
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
