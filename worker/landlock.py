"""Landlock: of all files, this process sees those that it needs (landlock(7); Linux 5.13 and newer).

Called directly, three system calls: the packages that wrap it are young, and this is all of it.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every processor
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1

# <linux/landlock.h>: rights over files, in the order of their bits.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))
# How many of the bits a kernel knows, by its version of Landlock.
_FILE_BITS: Final = {1: 13, 2: 14, 3: 15, 4: 15}
_ALL_FILE_BITS: Final = 16  # from version 5
_TCP: Final = 0b11  # bind and connect; from version 4
_SCOPES: Final = 0b11  # abstract sockets and signals of processes outside; from version 6

READ: Final = READ_FILE | READ_DIR
# Ordinary files and folders; no links, devices, sockets or pipes, and nothing that can be executed.
OWN: Final = READ | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REMOVE_FILE | REMOVE_DIR | REFER
DEVICE: Final = READ_FILE | WRITE_FILE
DEVICES: Final = READ | WRITE_FILE | TRUNCATE | MAKE_REG | REMOVE_FILE | IOCTL_DEV
_OF_A_FILE: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV


class Unavailable(RuntimeError):  # noqa: N818 - says what is wrong
    """This kernel has no Landlock, or it is switched off."""


def restrict(rules: Iterable[tuple[Path, int]]) -> int:
    """Keep only these rights below these paths, for ever; TCP and signals to others go as well.

    Paths that do not exist are passed over. `no_new_privs` must be set. Gives the kernel's version of
    Landlock; an older one refuses less.
    """
    version = _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    files = (1 << _FILE_BITS.get(version, _ALL_FILE_BITS)) - 1
    attributes = struct.pack("=QQQ", files, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    known = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _call(_CREATE_RULESET, known, len(known), 0)
    try:
        for path, rights in rules:
            _allow(ruleset, path, rights & files)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        granted = rights if path.is_dir() else rights & _OF_A_FILE
        if granted:
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", granted, place), 0)
    finally:
        os.close(place)


def _call(number: int, *arguments: bytes | int | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result < 0:
        raise Unavailable(os.strerror(ctypes.get_errno()))
    return result
