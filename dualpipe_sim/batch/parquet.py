"""Tables as Parquet files (https://parquet.apache.org), by pyarrow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dualpipe_sim.base.files import TABLE, read_bytes
from dualpipe_sim.base.memory import short_of
from dualpipe_sim.base.plain_data import plain_data
from dualpipe_sim.errors import UserError, quoted

if TYPE_CHECKING:
    import pyarrow as pa

_AS_JSON = {b"encoding": b"json"}
"""Metadata of a column whose values have no one type that Parquet knows: they are text in JSON."""
_BYTES_A_VALUE = 64
"""That Python takes: a few bytes of a file may say the same of thousands of millions of rows."""


def check_installed() -> None:
    """Raise a UserError that says what to install where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise UserError("Parquet needs pyarrow; pip install 'dualpipe-sim[parquet]', or use .csv or .jsonl") from error


def write(path: Path, rows: Sequence[dict[str, object]], columns: Sequence[str]) -> None:
    """Write rows as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays, fields = zip(*(_column(name, [row[name] for row in rows]) for name in columns), strict=True)
    pq.write_table(pa.Table.from_arrays(list(arrays), schema=pa.schema(list(fields))), path)


def read(path: Path) -> list[dict[str, object]]:
    """Return the rows of a Parquet file that :func:`write` wrote.

    Raises:
        UserError: a file that cannot be read.

    """
    check_installed()
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = read_bytes(path, TABLE)
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        if short_of(file.metadata.num_rows * file.metadata.num_columns * _BYTES_A_VALUE) is not None:
            raise UserError(f"{path}: takes more memory than there is once it is read")
        table = file.read()
        as_json = {field.name for field in table.schema if field.metadata == _AS_JSON}
        rows: list[dict[str, object]] = table.to_pylist()
        return [
            {
                key: json.loads(value) if key in as_json and isinstance(value, str) else value
                for key, value in row.items()
            }
            for row in rows
        ]
    except UserError:
        raise
    except (OSError, ValueError, RecursionError, MemoryError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return quoted(str(error).partition("\n")[0])


def _column(name: str, values: list[object]) -> tuple[pa.Array, pa.Field]:
    import pyarrow as pa

    kind = _type_of(values)
    if kind is not None:
        return pa.array(values, kind), pa.field(name, kind)
    text = [None if value is None else json.dumps(value, default=plain_data) for value in values]
    return pa.array(text, pa.string()), pa.field(name, pa.string(), metadata=_AS_JSON)


def _type_of(values: list[object]) -> pa.DataType | None:
    """Return the one type that Parquet and all values have, or None."""
    import pyarrow as pa

    types = {type(value) for value in values if value is not None}
    if types == {list}:
        inner = _type_of([item for value in values if isinstance(value, list) for item in value])
        return None if inner is None else pa.list_(inner)
    one = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
    return pa.string() if not types else one.get(types.pop()) if len(types) == 1 else None
