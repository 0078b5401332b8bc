"""Files of a user's own that register schedules, cost models and metrics as they are run."""

from __future__ import annotations

import hashlib
import linecache
import sys
import traceback
from pathlib import Path
from types import ModuleType

from dualpipe_sim.errors import UserError

LOADED: dict[Path, bytes] = {}
"""The files that were run, each with what it held."""


def load_plugin(path: str | Path) -> ModuleType:
    """Run a Python file, and return it as a module; a file that was run as it is now is not run again.

    Raises:
        UserError: no such file, no Python file, or what goes wrong in it, with the line.

    """
    try:
        file = Path(path).resolve()
    except ValueError as error:
        raise UserError(f"{str(path)!r}: can be no file's name") from error
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"{path}: {'is no Python file (.py)' if file.exists() else 'no such file'}")
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return run_plugin(file, content)


def run_plugin(file: Path, content: bytes) -> ModuleType:
    """Run what a Python file holds, or held where it was read.

    A file that loads itself, or uses what does, gets the module as far as it is, as from ``import``.

    Raises:
        UserError: what goes wrong in it, with the line.

    """
    name = f"dualpipe_sim_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if LOADED.get(file) == content:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    LOADED[file] = content
    linecache.checkcache(str(file))
    try:
        exec(compile(content, str(file), "exec"), vars(module))  # noqa: S102 - what a plugin is for
    except BaseException as error:
        del sys.modules[name], LOADED[file]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(file, error)
        raise UserError(f"{file}{f':{line}' if line else ''}: {type(error).__name__}: {error}") from error
    return module


def _line_in(file: Path, error: BaseException) -> int | None:
    """Return the last line of a file that an error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)
