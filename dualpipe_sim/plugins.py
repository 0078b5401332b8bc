"""Files of a user's own that register schedules, cost models and metrics as they are run."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from dualpipe_sim.errors import UserError


def load_plugin(path: str | Path) -> ModuleType:
    """Run a Python file once, and return it as a module; a file that was run already is not run again.

    Raises:
        UserError: no such file, no Python file, or what goes wrong in it, with the line.

    """
    file = Path(path).resolve()
    name = f"dualpipe_sim_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"{path}: {'is no Python file (.py)' if file.exists() else 'no such file'}")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{path}: cannot be loaded as a module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception):
            raise
        raise UserError(f"{path}{_line_in(file, error)}: {type(error).__name__}: {error}") from error
    return module


def _line_in(file: Path, error: Exception) -> str:
    """Return the last line of a file that an error passed, as ``:12``, or nothing."""
    if isinstance(error, SyntaxError):
        return f":{error.lineno}" if error.lineno else ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return f":{lines[-1]}" if lines else ""
