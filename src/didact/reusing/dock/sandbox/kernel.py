"""What the launcher asks of the Linux kernel, by ctypes: namespaces, mounts, capabilities, a filter of system calls.

Standard library only: this runs before anything is imported, in a process that must have a single thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC, NEW_USER, NEW_PIDS, NEW_NETWORK = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
READ_ONLY, NO_SETUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 32, 4096, 16384, 1 << 18
_DETACH = 2
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP, _DROP_BOUNDING = 1, 4, 22, 24
_SET_SUBREAPER, _NO_NEW_PRIVILEGES = 36, 38
_MOUNT_SETATTR, _AT_RECURSIVE = 442, 0x8000
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

LINUX = sys.platform == "linux"
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the parent's namespaces of these kinds for new, empty ones."""
    _call("unshare", _libc.unshare(ctypes.c_int(flags)))


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    done = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None)
    _call(f"mount of {kind} on {target}", done)


def make_mounts_private() -> None:
    """Nothing that is mounted from here on is seen outside."""
    _call("private mounts", _libc.mount(None, b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None))


def bind(source: str, target: str, *, read_only: bool = True) -> None:
    """Show a file or folder at another place, read-only with all that is mounted below it."""
    flags = ctypes.c_ulong(_BIND | _RECURSIVE)
    _call(f"bind of {target}", _libc.mount(source.encode(), target.encode(), None, flags, None))
    if read_only:
        _restrict(target, READ_ONLY | NO_SETUID | NO_DEVICES)


def remount_read_only(target: str) -> None:
    _restrict(target, READ_ONLY | NO_SETUID | NO_DEVICES, recursive=False)


def pivot_root(new: str, old: str) -> None:
    number = _PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(f"pivot_root is not known for {platform.machine()}")
    _call("pivot_root", _libc.syscall(ctypes.c_long(number), new.encode(), old.encode()))


def unmount(target: str) -> None:
    _call(f"unmount of {target}", _libc.umount2(target.encode(), ctypes.c_int(_DETACH)))


def die_with_parent() -> None:
    _prctl(_SET_DEATH_SIGNAL, 9)


def adopt_orphans() -> None:
    """Processes whose parent ends become children of this one, so that none can slip away."""
    _prctl(_SET_SUBREAPER, 1)


def set_dumpable(value: bool) -> None:
    """Whether others with the same user id may look into this process."""
    _prctl(_SET_DUMPABLE, int(value))


def map_user(inside: int, uid: int, gid: int) -> None:
    """In a new user namespace: who `uid` and `gid` of the outer one are."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{inside} {gid} 1")


def forbid_user_namespaces() -> None:
    """No further user namespaces below this process's own: they are where most ways out begin.

    Only to be called inside a new user namespace: the setting is that of the namespace one is in.
    """
    # Where /proc is not shown this fails; the filter of system calls refuses them too.
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0")


def drop_bounding_set() -> None:
    """No later program may gain a capability, whatever its user id. Ignored without the right to do it."""
    if not LINUX:
        return
    for capability in range(64):
        if _libc.prctl(_DROP_BOUNDING, ctypes.c_ulong(capability), 0, 0, 0) != 0:
            break


def drop_capabilities() -> None:
    if not LINUX:
        return
    header = struct.pack("=Ii", 0x20080522, 0)
    _call("capset", _libc.capset(header, bytes(24)))


def forbid_new_privileges() -> None:
    _prctl(_NO_NEW_PRIVILEGES, 1)


def filter_system_calls() -> bool:
    """Refuse sockets to anywhere, and the calls that a model has no use for and escapes are made of.

    False where the processor's calls are not known or the kernel has no such filters.
    """
    machine = platform.machine()
    if not LINUX or machine not in _CALLS:
        return False
    program = _program(machine)
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(_libc.prctl(_SET_SECCOMP, ctypes.c_ulong(2), head, 0, 0) == 0)


def _call(what: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    if LINUX:
        _call(f"prctl {option}", _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _restrict(target: str, attributes: int, recursive: bool = True) -> None:
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    how = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    done = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR), ctypes.c_int(-100), target.encode(), how, wanted, ctypes.c_size_t(len(wanted))
    )
    if done == 0:
        return
    # Before Linux 5.12. Flags that are set already may not be taken away in a user namespace, so they are repeated.
    flags = _REMOUNT | _BIND | attributes | (os.statvfs(target).f_flag & (READ_ONLY | NO_SETUID | NO_DEVICES | NO_EXEC))
    _call(f"read-only {target}", _libc.mount(None, target.encode(), None, ctypes.c_ulong(flags), None))


#: machine -> its audit number, socket(), and calls that are refused: ptrace, mount, umount2, pivot_root, chroot,
#: unshare, setns, keyctl, add_key, request_key, bpf, perf_event_open, userfaultfd, io_uring_setup, process_vm_readv
#: and _writev, kexec_load, init_module, finit_module, delete_module, open_by_handle_at, mount_setattr, move_mount,
#: fsopen
_CALLS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "x86_64": (0xC000003E, 41, (101, 165, 166, 155, 161, 272, 308, 250, 248, 249, 321, 298, 323, 425, 310, 311, 246,
                                175, 313, 176, 304, 442, 429, 430)),
    "aarch64": (0xC00000B7, 198, (117, 40, 39, 41, 51, 97, 268, 219, 217, 218, 280, 241, 282, 425, 270, 271, 104, 105,
                                  273, 106, 265, 442, 429, 430)),
}  # fmt: skip


def _program(machine: str) -> bytes:
    """The filter, as instructions of the packet filter's machine: (operation, jump if true, if false, operand)."""
    load, equal, above, answer = 0x20, 0x15, 0x35, 0x06
    allow, kill, error = 0x7FFF0000, 0x80000000, 0x00050000
    audit, socket, refused = _CALLS[machine]
    steps: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4), (equal, 1, 0, audit), (answer, 0, 0, kill),  # another calling convention
        (load, 0, 0, 0), (above, 0, 1, 0x40000000), (answer, 0, 0, kill),  # the x32 calls of an x86-64
    ]  # fmt: skip
    steps += _refuse(refused, equal, (answer, 0, 0, error | 1))
    steps += [
        (equal, 0, 3, socket),
        (load, 0, 0, 16), (equal, 1, 0, 1),  # AF_UNIX stays: pairs of sockets within the sandbox
        (answer, 0, 0, error | 101),  # "network is unreachable", as in an empty network namespace
        (answer, 0, 0, allow),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _refuse(calls: Iterable[int], equal: int, answer: tuple[int, int, int, int]) -> Iterable[tuple[int, int, int, int]]:
    for call in calls:
        yield (equal, 0, 1, call)
        yield answer
