"""Code of a user's own: files that register schedules, cost models and metrics as they are run, and its faults."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from dualpipe_sim.base.files import read_bytes
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
    try:
        if file.suffix != ".py" or not file.is_file():
            raise UserError(f"{path}: {'is no Python file (.py)' if file.exists() else 'no such file'}")
        content = bytes(read_bytes(file))
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
    try:
        exec(compile(content, str(file), "exec"), vars(module))  # noqa: S102 - what a plugin is for
    except BaseException as error:
        del sys.modules[name], LOADED[file]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        line = error.lineno if isinstance(error, SyntaxError) else None
        place = f"{file}:{line}: " if line else _place(error, name) or f"{file}: "
        raise UserError(f"{place}{type(error).__name__}: {error}") from error
    return module


@contextmanager
def in_code_of(code: object, what: str, error: type[UserError] = UserError) -> Iterator[None]:
    """Turn whatever is raised inside into a user's error; where the code is the package's own, it goes on as it is.

    Args:
        code: the function, the class or the object that is called inside.
        what: what it is, in words that go before "fails".
        error: what is raised.

    Raises:
        UserError: what went wrong, and where. What the code itself raises as one is left alone.

    """
    try:
        yield
    except UserError:
        raise
    except Exception as fault:
        module = getattr(inspect.unwrap(code) if callable(code) else code, "__module__", type(code).__module__)
        if module.startswith("dualpipe_sim."):
            raise
        raise error(f"{what} fails: {_place(fault, module)}{type(fault).__name__}: {fault}") from fault


def _place(fault: BaseException, module: str) -> str:
    """Return the last line of a module that a fault passed, as ``file:line: ``."""
    passed = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(fault.__traceback__)
        if frame.f_globals.get("__name__") == module
    ]
    return "{}:{}: ".format(*passed[-1]) if passed else ""
