"""Code of a user's own: files that register schedules, cost models and metrics as they are run, and its faults."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType

from dualpipe_sim.base.files import read_bytes
from dualpipe_sim.errors import UserError

LOADED: dict[Path, bytes] = {}
"""The files that were run, each with what it held."""

_ALLOWED: ContextVar[bool] = ContextVar("_ALLOWED", default=False)


@contextmanager
def allow_plugins() -> Iterator[None]:
    """Let configurations that are read inside run the files that they name under ``plugins:``.

    Such a file is code, and does what its author likes. Outside, a configuration may only name files that were run
    already, by :func:`load_plugin`, say, or by ``dualpipe-sim --plugin FILE``.

    >>> from dualpipe_sim import ConfigError, simulate
    >>> _ = Path("mine.py").write_text("print('I run')")
    >>> mine = {"plugins": ["mine.py"], "schedule": "1f1b", "pipeline": {"ranks": 2, "micro_batches": 2}}
    >>> mine["costs"] = {"forward": 1.0, "backward": 2.0}
    >>> try:
    ...     simulate(mine)
    ... except ConfigError as error:
    ...     print(str(error)[:73])
    config: plugins[0]: mine.py is Python code, and is run only if you say so
    >>> with allow_plugins():
    ...     makespan_s = simulate(mine).makespan_s
    I run
    """
    token = _ALLOWED.set(True)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def are_plugins_allowed() -> bool:
    """Return whether configurations may run the files that they name."""
    return _ALLOWED.get()


def load_named(path: Path) -> None:
    """Run a file that a configuration names, where the user allows it, or has named that file, too.

    Raises:
        UserError: the user does neither; or as for :func:`load_plugin`.

    """
    file, content = _read(path)
    if not are_plugins_allowed() and LOADED.get(file) != content:
        raise UserError(
            f"{path} is Python code, and is run only if you say so: `dualpipe-sim --allow-plugins …` or `--plugin "
            f"{path}`; in Python, `with allow_plugins():`"
        )
    run_plugin(file, content)


def load_plugin(path: str | Path) -> ModuleType:
    """Run a Python file, and return it as a module; a file that was run as it is now is not run again.

    >>> _ = Path("mine.py").write_text("ranks = 8")
    >>> load_plugin("mine.py").ranks
    8

    Raises:
        UserError: no such file, no Python file, or what goes wrong in it, with the line.

    """
    return run_plugin(*_read(path))


def _read(path: str | Path) -> tuple[Path, bytes]:
    """Return where a Python file is, and what it holds."""
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
    return file, content


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
