"""What goes wrong in code of a user's own, told in one sentence with the line it went wrong in."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dualpipe_sim.errors import UserError


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


def _place(fault: Exception, module: str) -> str:
    """Return the last line of a module that a fault passed, as ``file:line: ``."""
    passed = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(fault.__traceback__)
        if frame.f_globals.get("__name__") == module
    ]
    return "{}:{}: ".format(*passed[-1]) if passed else ""
