"""Objects as other programs take them: plain values for JSON and digests, data frames for notebooks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from dualpipe_sim.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    DataFrame: TypeAlias = pd.DataFrame


def plain_data(value: object) -> object:
    """Return what a value holds, whatever it shows of that, as JSON has it: mappings, lists, texts, numbers, None.

    An object is a mapping of its class's name to its fields, so that objects that look the same stay apart.

    >>> from dualpipe_sim.hardware import Link
    >>> plain_data({"links": (Link(160e9), None), 2: True})
    {'links': [{'Link': {'bytes_per_s': 160000000000.0, 'latency_s': 0.0}}, None], '2': True}
    """
    if hasattr(value, "tolist"):  # numpy
        return plain_data(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item) for item in value]
    if isinstance(value, Enum):
        return str(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    own = _own_values(value)
    return {type(value).__qualname__: plain_data(own)} if own else str(value)


def digest(value: object) -> str:
    """Return 15 hexadecimal digits that are the same for values that hold the same, on every machine.

    >>> digest({"ranks": 4, "forward": 1.0}) == digest({"forward": 1.0, "ranks": 4})
    True
    """
    text = json.dumps(plain_data(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:15]


def data_frame(rows: Sequence[Mapping[str, object]], columns: Iterable[str]) -> DataFrame:
    """Return rows as a pandas DataFrame, a key a column.

    Raises:
        UserError: pandas is not installed.

    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UserError("to_pandas() needs pandas; pip install 'dualpipe-sim[notebook]'") from error
    return pd.DataFrame(list(rows), columns=list(columns))


def _own_values(value: object) -> Mapping[str, object]:
    """Return an object's own values by name; none of functions and of what is not made of such."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return {} if callable(value) else getattr(value, "__dict__", {})
