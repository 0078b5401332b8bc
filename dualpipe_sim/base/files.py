"""Files: read with one clear line where that fails, written whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from dualpipe_sim.errors import UserError, quoted

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


def read_text(path: str | Path) -> str:
    """Return what a text file holds, without the mark that some programs begin it with.

    Raises:
        UserError: it cannot be read, or is no UTF-8 text.

    """
    about_to_read(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{quoted(str(path))}: cannot be read: {error}") from error


def output_file(path: str | Path) -> Path:
    """Return where a file is to be written: the path, or what a link there leads to.

    Raises:
        UserError: a folder, device or pipe is there, or nothing can have this name.

    """
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else stat.S_IFREG
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{quoted(str(path))}: cannot be written: {error}") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is a device or pipe, which a file would replace; name a file")
    return target


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` to write to, and put it in place when all is written.

    Raises:
        UserError: the place cannot be written to.

    """
    target = output_file(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.stem[:32]}-", suffix=target.suffix, dir=target.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
