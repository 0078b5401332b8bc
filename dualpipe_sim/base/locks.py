"""One writer of an output at a time: a lock of the operating system's, which ends with whoever has it, however it ends.

The lock is on a file beside the output, since an output itself is replaced. It holds between the processes of a
machine, and between machines where their file system passes locks on, as NFS does unless it was mounted without.
Where it has no locks at all, writers go on without.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from dualpipe_sim.errors import UserError

_LONGEST_NAME = 200
"""Bytes that leave room for an ending, of the 255 that file systems take."""
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What systems say of a lock that somebody else has."""

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        """Lock a byte beyond all that is written there, which others can read meanwhile."""
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        """Lock for this opening of the file alone: threads are kept apart, too."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def beside(target: Path, ending: str) -> Path:
    """Return the hidden file that belongs to an output, ``.table.csv.lock``."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{name[:32]}-{sha256(os.fsencode(name)).hexdigest()[:16]}"
    return target.with_name(f".{name}.{ending}")


@contextmanager
def locked(target: Path, name: str | Path) -> Iterator[bool]:
    """Be the only one who writes an output; gives whether its file system knows locks.

    Args:
        target: the output, where links lead.
        name: what the user calls it.

    Raises:
        UserError: another process writes it, or nothing can be written there.

    """
    file = beside(target, "lock")
    try:
        descriptor, known = _taken(file, name)
    except OSError as error:
        raise UserError(f"{name}: cannot be written: {error.strerror or error}") from error
    try:
        yield known
    finally:
        _let_go(file, descriptor)


def _taken(file: Path, name: str | Path) -> tuple[int, bool]:
    """Return a lock file that is open and locked, and whether it is locked indeed."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            known = _locked(descriptor, name)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_still(file, descriptor):
            try:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()} {platform.node()}\n".encode(errors="replace"))
            except BaseException:
                _let_go(file, descriptor)
                raise
            return descriptor, known
        os.close(descriptor)  # of one who has just ended, and took the file along


def _locked(descriptor: int, name: str | Path) -> bool:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _TAKEN:
            raise UserError(f"{name}: is being written by {_holder(descriptor)}; name another file or wait") from error
        return False
    return True


def _holder(descriptor: int) -> str:
    """Return in words who has a lock, who may not have said yet."""
    pid, _, node = os.read(descriptor, 300).decode(errors="replace").strip().partition(" ")
    if not pid.isdecimal():
        return "another process"
    if node != platform.node():
        return f"another process (pid {pid} on {node})" if node.isprintable() else f"another process (pid {pid})"
    return "this process already" if int(pid) == os.getpid() else f"another process (pid {pid})"


def _is_still(file: Path, descriptor: int) -> bool:
    if sys.platform == "win32":  # where no open file can be removed
        return True
    try:
        return os.path.samestat(file.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _let_go(file: Path, descriptor: int) -> None:
    """Remove a lock and its file: while it is locked, or one would remove the next one's."""
    with suppress(OSError):  # an open file cannot be removed on Windows
        file.unlink()
    os.close(descriptor)
    if sys.platform == "win32":
        with suppress(OSError):  # the next one has it open
            file.unlink()
