"""Files: read up to a limit and with one clear line where that fails, written whole or not at all."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from math import inf
from pathlib import Path
from typing import BinaryIO, NamedTuple

from dualpipe_sim.base.locks import beside, locked
from dualpipe_sim.base.memory import free_bytes
from dualpipe_sim.errors import UserError, quoted, unwritable

_WATCH: ContextVar[Callable[[Path], object] | None] = ContextVar("_WATCH", default=None)


@contextmanager
def watched(watch: Callable[[Path], object]) -> Iterator[None]:
    """Tell ``watch`` of each file that is about to be read inside; what it raises keeps the file from being read.

    So whoever answers strangers need not know which keys of a configuration name files.

    >>> seen = []
    >>> Path("here.txt").write_text("text")
    4
    >>> with watched(seen.append):
    ...     text = read_text("here.txt")
    >>> [path.name for path in seen]
    ['here.txt']
    """
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def about_to_read(path: str | Path) -> None:
    """Tell whoever watches that a file is about to be read, before it is even known to be there."""
    watch = _WATCH.get()
    if watch is not None:
        watch(Path(path))


class Limit(NamedTuple):
    """How much of a file is read.

    Attributes:
        most_bytes: of what it holds, unpacked.
        what: what such files are, in errors.

    """

    most_bytes: int
    what: str


_MIB = 2**20
SETTINGS = Limit(2 * _MIB, "settings")
"""Configurations, models, scripts, plugins: what people write, and the package's own files."""
KERNELS = Limit(64 * _MIB, "a table of kernels")
"""Rates and times by shape."""
ORDER = Limit(256 * _MIB, "an order")
"""Orders as text: DualPipe's on 1024 ranks with 8192 micro-batches has 170 MB."""
TABLE = Limit(1024 * _MIB, "a table")
"""Tables that grow a row a point."""
TRACE = Limit(4096 * _MIB, "a trace or timeline")
"""Records of real runs."""

_SMALL = 16 * _MIB
"""Bytes of which no machine is short, however often a text is copied while it is read."""
_COPIES = 2.5
"""Memory that reading takes at most, over the bytes that come of it: these, and the text that is made of them."""
_GZIP = b"\x1f\x8b"
_BOMB = 100
"""Times that what was read of a file grows, beyond what is small, only if no run wrote it: traces grow by 10 to 30."""
_OPEN_ALREADY = re.compile(r"/dev/(stdin|fd/\d+)|/proc/(self|\d+)/fd/\d+")
_PIPED: dict[tuple[int, int], bytes] = {}
"""What came out of a pipe, by its device and number: it comes once, and importers look at a file twice."""


def read_text(path: str | Path, limit: Limit = SETTINGS) -> str:
    """Return what a text file holds, without the mark that some programs begin it with, and with plain line ends.

    Raises:
        UserError: as for :func:`read_bytes`, or it is no UTF-8 text.

    """
    with _in_a_line(path):
        return read_bytes(path, limit).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def read_unpacked(path: str | Path, limit: Limit = TRACE) -> str:
    """Return the text of a file, unpacked where it is gzipped, whatever it is called, with line ends as they are.

    Raises:
        UserError: as for :func:`read_text`, or it is cut off, or grows beyond reason as it is unpacked.

    """
    with _in_a_line(path):
        return read_bytes(path, limit, unpack=True).decode("utf-8-sig")


def read_bytes(path: str | Path, limit: Limit = SETTINGS, *, unpack: bool = False) -> bytes | bytearray:
    """Return what a file holds: all files of users are read here.

    It is a regular file, or what is open already: standard input (``/dev/stdin``), and what a shell gives instead of a
    file (``<(...)``). Of other pipes and devices reading may never end, or do something.

    Args:
        path: the file.
        limit: how much may be in it.
        unpack: whether to unpack it where it is gzipped.

    Raises:
        UserError: it cannot be read, is too large, or is a folder, device or pipe.

    """
    about_to_read(path)
    with _in_a_line(path), _opened(path, limit) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if not unpack or file.read(len(_GZIP)) != _GZIP:
            file.seek(0)
            return _within(file, path, limit, size)
        file.seek(0)
        return _within(gzip.GzipFile(fileobj=file), path, limit, size, packed=file)


@contextmanager
def _opened(path: str | Path, limit: Limit) -> Iterator[BinaryIO]:
    """Open a file in which one can go back."""
    if not _OPEN_ALREADY.fullmatch(str(path)):
        _check_regular(path, Path(path).stat().st_mode)  # before it is opened: that may do something to a device
        with open(path, "rb", opener=_without_waiting) as file:
            _check_regular(path, os.fstat(file.fileno()).st_mode)
            yield file
        return
    with Path(path).open("rb") as file:
        there = os.fstat(file.fileno())
        if stat.S_ISREG(there.st_mode):
            yield file
            return
        pipe = there.st_dev, there.st_ino
        if pipe not in _PIPED:
            _PIPED[pipe] = bytes(_within(file, path, limit, 0))
        yield io.BytesIO(_PIPED[pipe])


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and not wait for a writer should it have become a pipe meanwhile."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(path: str | Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is a device or pipe; name a file, or give what it says on /dev/stdin")


def _within(
    file: BinaryIO | gzip.GzipFile, path: str | Path, limit: Limit, size: int, packed: BinaryIO | None = None
) -> bytearray:
    """Return all that can be read, in as much memory as that; refuse more than may be.

    Args:
        file: what is read.
        path: what it is called.
        limit: how much may be in it.
        size: bytes on disk, where that is known.
        packed: what it is unpacked from.

    """
    free = free_bytes() / _COPIES if packed is not None or size > _SMALL else inf
    content = bytearray()
    while size <= min(limit.most_bytes, free):
        chunk = file.read(min(_MIB, limit.most_bytes + 1 - len(content)))
        if not chunk:
            return content
        content += chunk
        size = max(size, len(content))
        if packed is not None and len(content) > max(_SMALL, _BOMB * packed.tell()):
            raise UserError(f"{path}: is unpacked to more than {_BOMB} times its size, as no record of a run is")
    if size > limit.most_bytes:
        raise UserError(f"{path}: is larger than {limit.most_bytes // _MIB} MiB, the most that is read of {limit.what}")
    raise UserError(f"{path}: takes more memory to read than there is")


@contextmanager
def _in_a_line(path: str | Path) -> Iterator[None]:
    """Say in one line why a file cannot be read."""
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: cannot be unpacked, perhaps it is cut off: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: takes more memory to read than there is") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{quoted(str(path))}: cannot be read: {error}") from error


def output_file(path: str | Path) -> Path:
    """Return where a file is to be written: the path, or what a link there leads to.

    Raises:
        UserError: a folder, device or pipe is there, a file that may not be written to, or nothing can have this name.

    """
    try:
        target = Path(os.path.realpath(path))
        there = Path(path).stat() if Path(path).exists() else None
    except OSError as error:
        raise unwritable(path, error) from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{quoted(str(path))}: cannot be written: {error}") from error
    if target.is_symlink():
        raise UserError(f"{path}: is a link that leads to itself; name a file")
    if there is None:
        return target
    if stat.S_ISDIR(there.st_mode):
        raise UserError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(there.st_mode):
        raise UserError(f"{path}: is a device or pipe, which a file would replace; name a file")
    if not os.access(path, os.W_OK):
        raise UserError(f"{path}: may only be read; name another file, or let it be written to")
    return target


@contextmanager
def written_whole(path: str | Path, *, ours: bool = False) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write to, and put it in place, and on the disk, when all is written.

    Args:
        path: the file; where it is a link, what that leads to is written.
        ours: whether the caller has its lock (:func:`~dualpipe_sim.base.locks.locked`).

    Raises:
        UserError: the place cannot be written to, or another process writes it.

    """
    with written_together(path, ours=ours) as (part,):
        yield part


@contextmanager
def written_together(*paths: str | Path, ours: bool = False) -> Iterator[list[Path]]:
    """Do for several files that belong together what :func:`written_whole` does for one.

    None is put in place before all are written. The lock is on the first.

    >>> with written_together("one.txt", "two.txt") as parts:
    ...     for part in parts:
    ...         _ = part.write_text(part.name)
    >>> Path("two.txt").read_text()
    '.two.txt.part'

    Raises:
        UserError: as for one.

    """
    targets = [output_file(path) for path in paths]
    with nullcontext(True) if ours else locked(targets[0], paths[0]) as known:
        # Where there are no locks, two may write at once, each to parts of its own.
        parts = [beside(target, "part" if known else f"{os.urandom(4).hex()}.part") for target in targets]
        try:
            for part, target in zip(parts, targets, strict=True):
                _begin(part, target)
            yield parts
            for part in parts:
                _sync(part)
            for part, target in zip(parts, targets, strict=True):
                part.replace(target)
            for folder in {target.parent for target in targets}:
                _sync_folder(folder)
        except OSError as error:
            raise unwritable(paths[0], error) from error
        finally:
            for part in parts:
                with suppress(OSError):
                    part.unlink()


def _begin(part: Path, target: Path) -> None:
    """Make an empty file in the place of what a killed process may have left, as private as the one it will replace."""
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    if target.exists():
        part.chmod(stat.S_IMODE(target.stat().st_mode))


def _sync(path: Path) -> None:
    """Have what is in a file on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Have the names of a folder's files on the disk, where that can be asked for: not on Windows."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def made_folder(path: str | Path) -> Path:
    """Return a folder, made if it is not there.

    Raises:
        UserError: a file stands in its place, or it cannot be made.

    """
    folder = Path(path)
    if folder.is_file():
        raise UserError(f"{path}: is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made: {error.strerror or error}") from error
    return folder
