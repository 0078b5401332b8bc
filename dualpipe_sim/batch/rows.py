"""Rows on disk: a CSV, JSON lines or Parquet file that grows row by row and survives whatever ends the program.

CSV and JSON lines are appended to, a line a row, and synced every second. What a crash leaves is some whole lines and
perhaps a torn one; reading keeps the whole ones. Parquet cannot grow, so rows gather in a file of JSON lines beside
it until all are there. A complete table is put in place whole, in the order of its points. From its opening to its
close no other process can write to the table.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from dualpipe_sim.base.files import TABLE, output_file, read_bytes, written_whole
from dualpipe_sim.base.locks import locked
from dualpipe_sim.base.plain_data import plain_data
from dualpipe_sim.batch import parquet
from dualpipe_sim.batch.cells import csv_line, value_of
from dualpipe_sim.batch.points import POINT, Row, is_lost
from dualpipe_sim.errors import UserError, did_you_mean, unwritable

_SYNC_S = 1.0


class Format(NamedTuple):
    """How rows are lines of text.

    Attributes:
        heads: how many lines stand before all rows, 1 or 0.
        line: a row as a line.
        parse: a whole line back, or None where it is none.
        opening: how every file of these columns begins.

    """

    heads: int
    line: Callable[[Row], str]
    parse: Callable[[str, Sequence[str]], Row | None]
    opening: Callable[[Sequence[str]], str]


class RowFile:
    """A file of rows: opened new or to be resumed, appended to, finished."""

    def __init__(self, path: str | Path, columns: Sequence[str]) -> None:
        """Take the file's name, whose suffix says its format, and the keys of a row.

        Raises:
            UserError: a suffix that is no format of a table, or one whose library is missing.

        """
        self.path = Path(path)
        self._columns = list(columns)
        suffix = self.path.suffix.lower()
        if suffix not in (*FORMATS, _PARQUET):
            known = ", ".join((*FORMATS, _PARQUET))
            raise UserError(
                f"{path}: the name must say the table's format by its end, one of {known}"
                f"{did_you_mean(suffix, (*FORMATS, _PARQUET))}"
            )
        self._whole_only = suffix == _PARQUET
        if self._whole_only:
            parquet.check_installed()
        self._log = self.path.with_name(f"{self.path.name}.jsonl") if self._whole_only else self.path
        self._format = FORMATS[self._log.suffix.lower()]
        self._on_disk: list[str] = []
        self._file: int | None = None
        self._lock = ExitStack()
        self._synced_s = 0.0

    def open(self, wanted: Collection[str], *, resume: bool) -> dict[str, Row]:
        """Get ready for appending, and return the rows that are there already, by point; lost ones are left out.

        Args:
            wanted: the points that the table is to hold.
            resume: whether to go on with a file that is there.

        Raises:
            UserError: a file that is there though it should not, or holds something else; a place that cannot be
                written to; another process that writes there.

        """
        self._lock.enter_context(locked(output_file(self._log), self.path))
        try:
            rows = self._kept(wanted, resume=resume)
            self._begin(rows.values())
        except BaseException:
            self.close()
            raise
        return rows

    def append(self, row: Row) -> None:
        """Write one row to the end of the file."""
        if self._file is None:
            raise ValueError("a row for a file that is not open")
        try:
            line = memoryview(self._format.line(row).encode())
            while line:
                line = line[os.write(self._file, line) :]
            if time.monotonic() - self._synced_s > _SYNC_S:
                os.fsync(self._file)
                self._synced_s = time.monotonic()
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._on_disk.append(str(row[POINT]))

    def finish(self, rows: Sequence[Row]) -> None:
        """Put the whole table in place, in this order; somebody may have removed what was there meanwhile."""
        is_there = self._is_there()
        self._close_log()
        if self._whole_only:
            with written_whole(self.path) as part:
                parquet.write(part, rows, self._columns)
            try:
                self._log.unlink(missing_ok=True)
            except OSError as error:
                raise unwritable(self._log, error) from error
        elif not is_there or self._on_disk != [row[POINT] for row in rows]:
            self._write_log(rows)

    def close(self) -> None:
        """Close the file, with all that was appended on disk, and let others have it."""
        with self._lock:
            self._close_log()

    def _is_there(self) -> bool:
        """Return whether the file that rows were appended to still has its name."""
        try:
            return self._file is not None and os.path.samestat(self._log.stat(), os.fstat(self._file))
        except OSError:
            return False

    def _close_log(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            os.fsync(file)
        except OSError as error:
            raise unwritable(self.path, error) from error
        finally:
            os.close(file)

    def _kept(self, wanted: Collection[str], *, resume: bool) -> dict[str, Row]:
        blank = dict.fromkeys(self._columns)
        rows = {str(row.get(POINT)): {**blank, **row} for row in self._read(resume=resume) if not is_lost(row)}
        strange = [point for point in rows if point not in wanted]
        if strange:
            raise UserError(
                f"{self.path}: cannot be resumed: it holds points of other axes, another configuration, plugin or "
                "version; name another file"
            )
        return rows

    def _read(self, *, resume: bool) -> Iterable[Row]:
        there = [path for path in (self._log, self.path) if output_file(path).exists() and path.stat().st_size > 0]
        if there and not resume:
            raise UserError(
                f"{there[0]}: exists already; go on with it by --resume (resume=True), or name another file"
            )
        if not there:
            return []
        return self._read_log() if there[0] == self._log else parquet.read(self.path)

    def _read_log(self) -> Iterable[Row]:
        content = read_bytes(self._log, TABLE)
        opening = self._format.opening(self._columns).encode()
        if content[: len(opening)] != opening[: len(content)]:
            raise UserError(f"{self._log}: cannot be resumed: it is not a table of these axes; name another file")
        lines = _whole_lines(content)[self._format.heads :]
        parsed = (self._format.parse(line, self._columns) for line in lines)
        return [row for row in parsed if row is not None]

    def _begin(self, rows: Iterable[Row]) -> None:
        """Write what is kept of an earlier run, or nothing, as the file to append to."""
        self._write_log(rows)
        try:
            self._file = os.open(self._log, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _write_log(self, rows: Iterable[Row]) -> None:
        rows = list(rows)
        head = self._format.opening(self._columns) if self._format.heads else ""
        text = head + "".join(map(self._format.line, rows))
        with written_whole(self._log, ours=True) as part:
            part.write_bytes(text.encode())
        self._on_disk = [str(row[POINT]) for row in rows]


def read_rows(path: str | Path) -> list[Row]:
    """Return the rows of a table on disk; of one that is still being written, those that are there.

    Raises:
        UserError: a file that cannot be read, or is no such table.

    """
    file = Path(path)
    if file.suffix.lower() == _PARQUET:
        return parquet.read(file)
    if file.suffix.lower() not in FORMATS:
        raise UserError(f"{path}: is no table; its name must end in one of {', '.join((*FORMATS, _PARQUET))}")
    lines = _whole_lines(read_bytes(file, TABLE))
    columns: list[str] = []
    if file.suffix.lower() == ".csv" and lines:
        columns = [str(value_of(heading)) for heading in _cells(lines.pop(0)) or []]
    rows = [FORMATS[file.suffix.lower()].parse(line, columns) for line in lines]
    return [row for row in rows if row is not None]


def _whole_lines(content: bytes | bytearray) -> list[str]:
    """Return the lines that end; the last one, torn where a machine died, does not."""
    return [line.decode(errors="replace") for line in content.split(b"\n")[:-1]]


def _json_line(row: Row) -> str:
    return json.dumps(row, default=plain_data) + "\n"


def _parse_json(line: str, _columns: Sequence[str]) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _parse_csv(line: str, columns: Sequence[str]) -> Row | None:
    cells = _cells(line)
    return (
        None if cells is None or len(cells) != len(columns) else dict(zip(columns, map(value_of, cells), strict=True))
    )


def _cells(line: str) -> list[str] | None:
    if "\0" in line:  # a disk's, which lost what was there: cells are never written with it
        return None
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error:
        return None


_PARQUET = ".parquet"
FORMATS = {
    ".csv": Format(1, lambda row: csv_line(row.values()), _parse_csv, csv_line),
    ".jsonl": Format(0, _json_line, _parse_json, lambda columns: f"{{{json.dumps(columns[0])}: "),
}
"""Formats that grow line by line, by suffix."""
