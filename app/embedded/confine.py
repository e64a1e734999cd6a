"""How a server runs when we are root: as another uid, wherever its folder lies.

PostgreSQL refuses to run as root, and another uid cannot reach a clone under /root (0700). Opening the
parents for reading, as the wheel's own start-up does, would give away more than a database needs. Instead the
server gets a private mount namespace in which its installation and its data appear under a folder that it can
reach; nothing changes for anybody else. Root in a container often may not mount: there the server keeps the
one capability that lets it pass through closed folders, and no other.
"""

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

# Outside every range that Debian or systemd hand out (65536-99999 is unused; subuids start at 100000).
SERVER_UID = 71_832
NOBODY = 65_534  # has a line in every /etc/passwd, which initdb insists on

_PR_SET_SECUREBITS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 28, 47, 2
_NO_SETUID_FIXUP = (
    1 << 2
)  # capabilities outlive setuid, and count in access(), by which initdb looks for postgres
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2  # Docker's root has the first, not the second
_CAP_SETPCAP = 8
_CAPABILITY_VERSION_3 = 0x20080522
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_MOUNT_POINTS = (Path("/mnt"), Path("/media"), Path("/srv"))  # one of these exists on every Linux
_LIBC = ctypes.CDLL(None, use_errno=True)


class NotReachable(Exception):  # noqa: N818 - says what is wrong
    """The server's folder cannot be shown to another uid on this machine."""


@dataclass(frozen=True)
class Confinement:
    """Which uid a server gets, and where it sees the folders that we know under their real names."""

    uid: int | None = None  # None: ours
    mount_point: Path | None = None  # None: it sees the real paths
    capability: int | None = None  # the one it keeps
    folders: Mapping[Path, Path] = field(default_factory=dict)  # real → inside, when mounted

    def inside(self, path: Path) -> Path:
        """The name under which the server sees a real path."""
        for real, shown in self.folders.items():
            if path.is_relative_to(real):
                return shown / path.relative_to(real)
        return path

    def as_uid(self, uid: int) -> "Confinement":
        """The same view for another uid; unchanged where we are not root."""
        return self if self.uid is None else replace(self, uid=uid)

    def enter(self) -> None:
        """Called in the child, before exec."""
        if self.uid is None:
            return
        if self.mount_point is not None:
            _private_view(self.mount_point, self.folders)
        if self.capability is not None:
            _check(_LIBC.prctl(_PR_SET_SECUREBITS, _NO_SETUID_FIXUP, 0, 0, 0), "prctl(PR_SET_SECUREBITS)")
        os.setgroups([])
        os.setgid(self.uid)
        os.setuid(self.uid)
        if self.capability is not None:
            _keep_only(self.capability)

    def give(self, folder: Path) -> None:
        """Make a folder and all in it the server's own."""
        if self.uid is None:
            return
        for base, _, files in os.walk(folder):
            for path in (base, *(os.path.join(base, name) for name in files)):  # noqa: PTH118 - thousands
                os.chown(path, self.uid, self.uid, follow_symlinks=False)


def confinement_for(*folders: Path) -> Confinement:
    """Nothing for an ordinary user; for root another uid, with a private view where it could not look."""
    if os.geteuid() != 0:
        return Confinement()
    real = [folder.resolve() for folder in folders]
    if all(_traversable(folder) for folder in real):
        return Confinement(SERVER_UID)
    if _may_mount():
        point = next(path for path in _MOUNT_POINTS if path.is_dir())
        return Confinement(SERVER_UID, point, folders={path: point / str(n) for n, path in enumerate(real)})
    for capability in (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE):
        if not ~_permitted() & (1 << capability | 1 << _CAP_SETPCAP):
            return Confinement(SERVER_UID, capability=capability)
    raise NotReachable(
        f"PostgreSQL does not run as root, and another user cannot reach {real[0]} because a folder above it "
        "is closed (/root usually is). Run as an ordinary user, or clone to a folder such as /srv or /opt."
    )


def _traversable(folder: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in folder.parents)


def _may_mount() -> bool:
    """Try it in a child: containers often have root without the right to mount."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if _LIBC.unshare(_CLONE_NEWNS) == 0 else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _private_view(point: Path, folders: Mapping[Path, Path]) -> None:
    _check(_LIBC.unshare(_CLONE_NEWNS), "unshare")
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE)
    # Opened before the mount point hides what may lie under it; the link in /proc leads to the folder itself.
    opened = {shown: os.open(real, os.O_PATH | os.O_DIRECTORY) for real, shown in folders.items()}
    _mount(b"none", os.fsencode(point), b"tmpfs", 0, b"mode=755,size=64k")
    for shown, descriptor in opened.items():
        shown.mkdir()
        _mount(b"/proc/self/fd/%d" % descriptor, os.fsencode(shown), None, _MS_BIND)
        os.close(descriptor)


def _permitted() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapPrm:")), 16)


def _keep_only(capability: int) -> None:
    """After the change of uid: this one capability, also over exec, and no other."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    data = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable
    _check(_LIBC.capset(header, data), "capset")
    _check(_LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0), "prctl(PR_CAP_AMBIENT)")


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    _check(_LIBC.mount(source, target, kind, ctypes.c_ulong(flags), data), f"mount {target!r}")


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
