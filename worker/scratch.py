"""Private folders for children: made for one attempt, locked while it lives, swept when its worker died."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def make_root(root: Path) -> None:
    """The folder of all scratch folders. Only root lets other uids pass through it, to what is theirs."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o711 if os.geteuid() == 0 else 0o700)


@contextmanager
def scratch_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder of mode 0700 for one attempt, removed at the end. The open lock tells others it is in use."""
    make_root(root)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def give(folder: Path, uid: int | None) -> None:
    """Make a folder and all in it the child's own."""
    if uid is None:
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)


def sweep(root: Path) -> None:
    """Remove what workers that were killed left behind; folders in use are locked and stay."""
    if not root.is_dir():
        return
    for folder in root.iterdir():
        if _is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)
            log.info("scratch.swept", folder=folder.name)


def _is_abandoned(folder: Path) -> bool:
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True
