"""Files of a user's own that register schedules, cost models and metrics as they are run."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from dualpipe_sim.errors import UserError

LOADED: dict[Path, str] = {}
"""The files that were run, each with a digest of what it held."""


def load_plugin(path: str | Path) -> ModuleType:
    """Run a Python file, and return it as a module; a file that was run as it is now is not run again.

    Raises:
        UserError: no such file, no Python file, or what goes wrong in it, with the line.

    """
    file = Path(path).resolve()
    name = f"dualpipe_sim_plugin_{_digest(str(file).encode())}"
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"{path}: {'is no Python file (.py)' if file.exists() else 'no such file'}")
    try:
        digest = _digest(file.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if LOADED.get(file) == digest:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: cannot be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        LOADED.pop(file, None)
        if not isinstance(error, Exception):
            raise
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(file, error)
        raise UserError(f"{path}{f':{line}' if line else ''}: {type(error).__name__}: {error}") from error
    LOADED[file] = digest
    return module


def blamed(error: Exception) -> str | None:
    """Return what went wrong in the code of a plugin, with its file and line; None where no plugin had a part."""
    for file in LOADED:
        if line := _line_in(file, error):
            return f"{file}:{line}: {type(error).__name__}: {error}"
    return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _line_in(file: Path, error: Exception) -> int | None:
    """Return the last line of a file that an error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)
