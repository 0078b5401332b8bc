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
from io import FileIO
from pathlib import Path
from typing import cast

from dualpipe_sim.errors import UserError, unwritable

_LONGEST_NAME = 200
"""Bytes that leave room for an ending, of the 255 that file systems take."""
_OPENING = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""What systems say of a lock that somebody else has."""

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        """Lock a byte beyond all that is written there, which others can read meanwhile."""
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    try:
        import fcntl
    except ImportError:  # a system that has no locks

        def _lock(descriptor: int) -> None:  # noqa: ARG001 - as the others
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    else:

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
    lock = _Lock(beside(target, "lock"))
    try:
        try:
            known = lock.take(name)
        except OSError as error:
            raise unwritable(name, error) from error
        yield known
    finally:
        try:
            lock.let_go()
        finally:
            lock.let_go()  # what a signal kept it from


class _Lock:
    """A lock file, while somebody asks for its lock or has it. At any line a signal may end that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def take(self, name: str | Path) -> bool:
        """Take the lock; return whether the file system knows locks."""
        while True:
            self._file = FileIO(os.open(self._path, _OPENING, 0o666), "rb+")
            known = self._ask()
            if known is None:
                who = _holder(self._file.fileno())
                raise UserError(f"{name}: is being written by {who}; name another file or wait")
            if self._is_there():
                os.ftruncate(self._file.fileno(), 0)
                os.write(self._file.fileno(), f"{os.getpid()} {platform.node()}\n".encode(errors="replace"))
                return known
            self._file.close()  # of one who has just ended, and took it along

    def let_go(self) -> None:
        """Remove the file, if nobody else has its lock; while it is locked, or one would remove the next one's."""
        if self._file is None or self._file.closed:
            return
        known = self._ask()
        if known is not None and self._is_there():
            with suppress(OSError):  # an open file cannot be removed on Windows
                self._path.unlink()
        self._file.close()
        if sys.platform == "win32" and known is not None:
            with suppress(OSError):  # the next one has it open
                self._path.unlink()

    def _ask(self) -> bool | None:
        """Return whether the open file is locked now by whoever asks: None if by another, False where nobody knows."""
        try:
            _lock(cast("FileIO", self._file).fileno())
        except OSError as error:
            return None if error.errno in _TAKEN else False
        return True

    def _is_there(self) -> bool:
        """Return whether the open file still has its name."""
        if sys.platform == "win32":  # where no open file can be removed
            return True
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(cast("FileIO", self._file).fileno()))
        except FileNotFoundError:
            return False


def _holder(descriptor: int) -> str:
    """Return in words who has a lock, who may not have said yet."""
    pid, _, node = os.read(descriptor, 300).decode(errors="replace").strip().partition(" ")
    if not pid.isdecimal():
        return "another process"
    if node != platform.node():
        return f"another process (pid {pid} on {node})" if node.isprintable() else f"another process (pid {pid})"
    return "this process already" if int(pid) == os.getpid() else f"another process (pid {pid})"
