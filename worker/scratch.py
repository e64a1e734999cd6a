"""Private folders for children: made for one attempt, locked while it lives, swept when its worker died."""

import fcntl
import os
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
    with _root_held(root):
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root))
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        wipe(folder)
        os.close(handle)


def give(folder: Path, uid: int | None) -> None:
    """Make a folder and all in it the child's own; files lent by hard link it may read, no more."""
    if uid is None:
        return
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() or path.lstat().st_nlink == 1:
            os.chown(path, uid, uid, follow_symlinks=False)


def wipe(folder: Path) -> None:
    """Remove a folder whatever a child has made of it: closed folders, and depths that no path can name.

    What lies deeper is lifted into the folder itself before it is looked at, so that paths stay short.
    """
    lifted = 0
    try:
        _open(folder)
        while waiting := [entry for entry in os.scandir(folder) if not _unlink(entry)]:
            for entry in waiting:
                _open(entry.path)
                for inner in list(os.scandir(entry.path)):
                    if not _unlink(inner):
                        _open(inner.path)  # a folder that is closed cannot be moved: its `..` would change
                        lifted += 1
                        os.rename(inner.path, folder / f".lifted-{lifted}")  # noqa: PTH104 - may be thousands
                os.rmdir(entry.path)  # noqa: PTH106
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("scratch.not_wiped", folder=folder.name, error=str(error))


def _unlink(entry: os.DirEntry[str]) -> bool:
    """Remove it, unless it is a folder."""
    if entry.is_dir(follow_symlinks=False):
        return False
    os.unlink(entry.path)  # noqa: PTH108
    return True


def _open(folder: str | Path) -> None:
    os.chmod(folder, 0o700)  # noqa: PTH101


def sweep(root: Path) -> None:
    """Remove what workers that were killed left behind; folders in use are locked and stay."""
    if not root.is_dir():
        return
    with _root_held(root):  # a folder that was just made is not locked yet
        abandoned = [folder for folder in root.iterdir() if _is_abandoned(folder)]
    for folder in abandoned:
        wipe(folder)
        log.info("scratch.swept", folder=folder.name)


@contextmanager
def _root_held(root: Path) -> Iterator[None]:
    """Hold the folder of all scratch folders, for as long as one is made or looked at."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
