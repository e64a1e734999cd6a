"""Folders and locks of the embedded servers."""

import errno
import fcntl
import hashlib
import os
import socket
import tempfile
import time
from pathlib import Path

from app.embedded.confine import SERVER_UID

LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes; some are left for names that servers add


class AlreadyRunning(Exception):  # noqa: N818 - says what is wrong
    """Somebody else holds the lock of this folder."""


def private_folder(path: Path, mode: int = 0o700) -> Path:
    """The folder, made if need be, with exactly this mode whatever the umask."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(mode)
    return path


def lock(path: Path, *, wait_seconds: float) -> int:
    """An open file descriptor that holds an exclusive lock on `path`, as does a child that inherits it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES} or time.monotonic() > deadline:
                os.close(descriptor)
                raise AlreadyRunning(f"Another process still holds {path}.") from error
            time.sleep(0.05)
        else:
            return descriptor


def socket_folder(wanted: Path, longest_name: str) -> Path:
    """`wanted`, or where its path is too long for a socket, a folder of our own in the temporary folder."""
    if len(os.fsencode(wanted / longest_name)) <= LONGEST_SOCKET_PATH:
        return private_folder(wanted)
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"basisconv-{os.geteuid()}-{digest}"
    short.mkdir(mode=0o700, exist_ok=True)
    ours = {os.geteuid()} if os.geteuid() != 0 else {0, SERVER_UID}
    if short.is_symlink() or short.lstat().st_uid not in ours:  # somebody else may have put it there
        raise PermissionError(f"{short} belongs to somebody else")
    return private_folder(short)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
