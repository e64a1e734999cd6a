"""A filter of system calls for this process, for ever: what no reader of a file and no training run needs.

Written as the kernel's own little programs (seccomp(2), "classic" BPF), because no library for it comes as a
wheel: libseccomp's Python bindings need the system's library. Refused are other processes (starting, looking
into, signalling), the network, other namespaces, devices, modes and owners of files, and memory that no limit
counts. Threads are allowed.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Final

PR_SET_SECCOMP: Final = 22
SECCOMP_MODE_FILTER: Final = 2
AF_UNIX: Final = 1
CLONE_THREAD: Final = 0x10000

# Number of each call on x86_64 and on aarch64 (asm/unistd_64.h, asm-generic/unistd.h); 0: not there.
_REFUSED: Final = {
    "socket": (41, 198),
    "fork": (57, 0),
    "vfork": (58, 0),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # its requests would pass by this filter
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "personality": (135, 92),
    "modify_ldt": (154, 0),
    "iopl": (172, 0),
    "ioperm": (173, 0),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    # Memory that stays when the process ends, or that its limits do not count.
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_secret": (447, 447),
    # A file lent from a cache is a hard link: whoever may change its mode may change it for everybody.
    "chmod": (90, 0),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, 0),
    "lchown": (94, 0),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "link": (86, 0),
    "linkat": (265, 37),
    "symlink": (88, 0),
    "symlinkat": (266, 36),
    "mknod": (133, 0),
    "mknodat": (259, 33),
}
_MEMFD_CREATE: Final = (319, 279)
_CLONE: Final = (56, 220)
_CLONE3: Final = (435, 435)
_KILL: Final = (62, 129)
_TGKILL: Final = (234, 131)
_PRLIMIT: Final = (302, 261)
_LAST_KNOWN: Final = 450  # newer calls are answered as if the kernel were older
_X32: Final = 0x4000_0000  # a second set of numbers for the same calls on x86_64

_COLUMN: Final = {"x86_64": 0, "aarch64": 1}
_ARCHITECTURE: Final = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}  # <linux/audit.h>

_ALLOW: Final = 0x7FFF_0000
_KILL_PROCESS: Final = 0x8000_0000
_EPERM: Final = 0x0005_0000 | errno.EPERM
_ENOSYS: Final = 0x0005_0000 | errno.ENOSYS
# Codes of the instructions (<linux/bpf_common.h>) and places in struct seccomp_data.
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16


class Unavailable(RuntimeError):  # noqa: N818 - says what is wrong
    """This kernel, or this kind of processor, has no such filter."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict(*, devices: bool = False) -> None:
    """Filter this process's calls, and those of its threads to come. `no_new_privs` must be set.

    devices: drivers of accelerators talk to their daemons by local sockets and share memory by file
    descriptors; both are then left to them.
    """
    code = _program(platform.machine(), os.getpid(), devices)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program), 0, 0) != 0:
        raise Unavailable(os.strerror(ctypes.get_errno()))


def _program(machine: str, pid: int, devices: bool) -> bytes:
    if machine not in _COLUMN:
        raise Unavailable(f"no list of system calls for {machine}")
    column = _COLUMN[machine]
    steps = [
        *[(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, _ARCHITECTURE[machine]), (_RETURN, 0, 0, _KILL_PROCESS)],
        (_LOAD, 0, 0, _NUMBER),
        *[(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _EPERM)],
        *[(_AT_LEAST, 0, 1, _LAST_KNOWN + 1), (_RETURN, 0, 0, _ENOSYS)],
        *_answer(_CLONE3[column], _ENOSYS),  # its flags lie in memory; libc then takes clone, which tells
    ]
    for name, numbers in _REFUSED.items():
        if numbers[column] and not (devices and name == "socket"):
            steps += _answer(numbers[column], _EPERM)
    if devices:
        steps += _unless_first_argument(_REFUSED["socket"][column], [AF_UNIX])
    else:
        steps += _answer(_MEMFD_CREATE[column], _EPERM)
    steps += _only_threads(_CLONE[column])
    steps += _unless_first_argument(_KILL[column], [pid])
    steps += _unless_first_argument(_TGKILL[column], [pid])
    steps += _unless_first_argument(_PRLIMIT[column], [0, pid])
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


_Step = tuple[int, int, int, int]


def _answer(number: int, answer: int) -> list[_Step]:
    return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]


def _only_threads(number: int) -> list[_Step]:
    """A clone without CLONE_THREAD would be another process."""
    return [
        (_EQUAL, 0, 4, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_HAS_BIT, 0, 1, CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]


def _unless_first_argument(number: int, allowed: list[int]) -> list[_Step]:
    """The call is refused unless its first argument, 32 bits of it, is one of these."""
    checks: list[_Step] = []
    for value in allowed:
        checks += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [
        (_EQUAL, 0, len(checks) + 2, number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        *checks,
        (_RETURN, 0, 0, _EPERM),
    ]
