"""Rates of kernels by shape: tables that were measured, and what lies between their points.

A table has a row for each shape that was timed, at sizes some factor apart, and the rate that a kernel reached there.
In between, the logarithm of the rate is linear in the logarithm of each size. Beyond the last size the rate stays as it
is; before the first one the time does: a kernel that is cut smaller still fills as many tiles.

Tables are CSV files, in ``presets/kernels`` or of a user's own, whose first lines (``#``) say where they come from::

    kernel,numbers,tokens,outputs,inputs,forward,input_gradient,weight_gradient
    gemm,bf16,4096,4096,4096,611,624,598
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, inf, log
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeAlias

from dualpipe_sim.base.files import KERNELS, read_text
from dualpipe_sim.base.precision import Format
from dualpipe_sim.base.records import need_positive
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import UserError, did_you_mean, quoted

Work: TypeAlias = Literal["F", "I", "W"]
Sizes: TypeAlias = tuple[int, ...]

TERA = 1e12

WORK_NAMES: Mapping[Work, str] = {"F": "forward", "I": "input_gradient", "W": "weight_gradient"}
"""What each kind of work is called in full: columns of tables, keys of GPUs' times."""

_AXES = {
    "gemm": ("tokens", "outputs", "inputs"),
    "grouped": ("experts", "tokens", "outputs", "inputs"),
    "attention": ("head", "heads", "length"),
}
"""What the rates of each family depend on."""


class Grid:
    """Positive values at points of a grid, and between them.

    >>> grid = Grid({(1, 1): 1.0, (1, 4): 4.0, (4, 1): 2.0, (4, 4): 8.0})
    >>> round(grid.at((1, 2)), 6), round(grid.at((2, 4)), 6), grid.at((8, 1))
    (2.0, 5.656854, 2.0)

    Args:
        values: by point. Where one of the grid's points is missing, the nearest other stands in for it.

    """

    def __init__(self, values: Mapping[Sizes, float]) -> None:
        self.axes: list[list[int]] = [sorted(set(sizes)) for sizes in zip(*values, strict=True)]
        self._logs = {point: log(value) for point, value in values.items()}
        self._standing_in: dict[Sizes, float] = {}

    def at(self, point: Sequence[float]) -> float:
        """Return the value at a point; of sizes beyond the grid that at its edge."""
        places: list[tuple[tuple[int, float], ...]] = []
        for axis, size in zip(self.axes, point, strict=True):
            if size <= axis[0] or len(axis) == 1:
                places.append(((axis[0], 1.0),))
            elif size >= axis[-1]:
                places.append(((axis[-1], 1.0),))
            else:
                high = bisect_right(axis, size)
                low, up = axis[high - 1], axis[high]
                share = log(size / low) / log(up / low)
                places.append(((low, 1.0 - share), (up, share)) if share else ((low, 1.0),))
        sums: list[tuple[Sizes, float]] = [((), 1.0)]
        for choices in places:
            sums = [((*so_far, size), weight * share) for so_far, weight in sums for size, share in choices]
        return exp(sum(self._log_at(corner) * weight for corner, weight in sums))

    def _log_at(self, corner: Sizes) -> float:
        if corner in self._logs:
            return self._logs[corner]
        if corner not in self._standing_in:  # apart from what was given, or answers would depend on what came before
            near = min((_apart(one, corner), one) for one in self._logs)[1]
            self._standing_in[corner] = self._logs[near]
        return self._standing_in[corner]

    def shortfall(self, point: Sequence[float]) -> float:
        """Return by which factor sizes fall short of the grid's first ones, 1 where they do not."""
        factor = 1.0
        for axis, size in zip(self.axes, point, strict=True):
            factor *= min(1.0, size / axis[0])
        return factor


def _apart(a: Sizes, b: Sizes) -> float:
    return sum(abs(log(one / other)) for one, other in zip(a, b, strict=True))


@dataclass(frozen=True)
class Table:
    """Rates of one file, in FLOP/s.

    Attributes:
        name: what it was asked for by.
        about: what its first lines say of where it comes from.
        grids: by kernel, numbers and work.

    """

    name: str
    about: str
    grids: Mapping[tuple[str, str, Work], Grid]

    __repr__ = brief

    def of(self, kernel: str, numbers: str, work: Work) -> Grid | None:
        """Return the rates of a kernel, None where it was not timed."""
        return self.grids.get((kernel, numbers, work))


@dataclass(frozen=True)
class Kernels:
    """Which tables hold a GPU's rates, and how they compare with those that the GPU achieves in a training step.

    >>> Kernels(gemm="h100").gemm_flops_per_s("bf16", "F", 4096, 4096, 4096) > 500e12
    True

    Attributes:
        gemm: table of linear maps, and of experts' where it has them; a packaged one or a CSV file; empty for none.
        gemm_pace: rates over that table's, which may be bursts, or of another GPU.
        attention: table of attention; likewise.
        attention_pace: rates over that table's.

    Raises:
        UserError: there is no such table, or what is wrong with it.

    """

    gemm: str = ""
    gemm_pace: float = 1.0
    attention: str = ""
    attention_pace: float = 1.0

    __repr__ = brief

    def __post_init__(self) -> None:
        need_positive(self, "gpu.kernels")
        for table in self.of_own:  # said here, whether or not a run then asks for a rate
            read_table(table)

    @property
    def of_own(self) -> tuple[str, ...]:
        """The tables that do not come with the package."""
        return tuple(table for table in (self.gemm, self.attention) if table and table not in packaged())

    def gemm_flops_per_s(
        self, numbers: Format, work: Work, tokens: float, outputs: float, inputs: float, experts: float = 1
    ) -> float | None:
        """Return the rate of a linear map's GEMMs, None where no table has it.

        Args:
            numbers: what they read.
            work: F, I or W.
            tokens: rows, of each expert.
            outputs: features out.
            inputs: features in.
            experts: matrices of that shape that run in one launch; 1 for an ordinary map.

        """
        if not self.gemm:
            return None
        table = read_table(self.gemm)
        rate: float | None = None
        one = table.of("gemm", numbers, work)
        if one is not None:
            rate = _rate(one, (tokens, outputs, inputs))
        else:
            only = table.of("gemm", numbers, "F")
            if only is not None:
                rate = _rate(only, _AS_FORWARD[work](tokens, outputs, inputs))
        if experts > 1:
            many = table.of("grouped", numbers, work)
            if many is not None:
                rate = _rate(many, (experts, tokens, outputs, inputs))
        return None if rate is None else rate * self.gemm_pace

    def attention_flops_per_s(self, kernel: str, work: Work, head: float, heads: float, length: float) -> float | None:
        """Return the rate of attention's core, None where no table has it.

        Args:
            kernel: which kernel; the fastest of the table where it has not that one.
            work: F or I.
            head: dimensions of a head, of query and value on average.
            heads: heads of all sequences of a micro-batch on the GPU.
            length: tokens of a sequence.

        """
        if not self.attention:
            return None
        table = read_table(self.attention)
        known = {name for name, _, _ in table.grids} - {"gemm", "grouped"}
        grids = [table.of(name, "bf16", work) for name in ([kernel] if kernel in known else known)]
        rates = [_rate(grid, (head, heads, length)) for grid in grids if grid is not None]
        return max(rates) * self.attention_pace if rates else None


_AS_FORWARD: Mapping[Work, Callable[[float, float, float], tuple[float, float, float]]] = {
    "F": lambda tokens, outputs, inputs: (tokens, outputs, inputs),
    "I": lambda tokens, outputs, inputs: (tokens, inputs, outputs),
    "W": lambda tokens, outputs, inputs: (outputs, inputs, tokens),
}
"""The forward GEMM of the same three sizes as each work's, for tables of one layout (as TN, which FP8 asks for)."""


def _rate(grid: Grid, point: Sequence[float]) -> float:
    return grid.at(point) * grid.shortfall(point) * TERA


@cache
def read_collectives(name: str) -> Grid:
    """Return microseconds of NCCL's all-gather and reduce-scatter inside a node, by GPUs and bytes of the tensor.

    Raises:
        UserError: there is no such table, or what is wrong with it.

    """
    path, _, rows = _read(f"nccl-{name}" if f"nccl-{name}" in packaged() else name, "cluster.collectives")
    found: dict[Sizes, list[float]] = {}
    try:
        for row in rows:
            if row.get("kernel", "all_gather") in ("all_gather", "reduce_scatter"):
                time_us = float(row["microseconds"])
                if not 0 < time_us < inf:
                    raise ValueError(f"microseconds must be above zero, got {quoted(row['microseconds'])}")
                found.setdefault((_size(row["gpus"]), _size(row["bytes"])), []).append(time_us)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no table of collectives: {_said(error)}; see docs/costs.md") from error
    if not found:
        raise UserError(f"{path}: no table of collectives: it has no all_gather and no reduce_scatter")
    return Grid({point: fmean(times) for point, times in found.items()})


@cache
def packaged() -> dict[str, Path]:
    """Return the tables that come with the package, by name."""
    folder = Path(__file__).parent.parent / "presets" / "kernels"
    return {path.stem: path for path in sorted(folder.glob("*.csv"))}


@cache
def read_table(name: str) -> Table:
    """Return a table of rates by name, or from a CSV file.

    Raises:
        UserError: there is no such table, or what is wrong with it.

    """
    path, about, rows = _read(name, "gpu.kernels")
    try:
        return Table(name, about, _grids(rows))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no table of kernels: {_said(error)}; see docs/costs.md") from error


def _said(error: Exception) -> str:
    return f"there is no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]


def _size(text: str | None) -> int:
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_SIZE and int(text) > 0):
        raise ValueError(f"a size must be a whole number above zero, got {quoted(text)}")
    return int(text)


_LONGEST_SIZE = 15  # digits


def _read(name: str, key: str) -> tuple[Path, str, list[dict[str, str]]]:
    """Return where a table is, what its first lines say, and its rows."""
    known = packaged()
    if name not in known and not name.endswith(".csv"):
        hint = did_you_mean(name, known) or "; give a .csv file"
        raise UserError(f"{key}: there is no table {quoted(name)}{hint}")
    path = known.get(name, Path(name))
    lines = read_text(path, KERNELS).splitlines()
    about = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    try:
        return path, about, list(csv.DictReader(line for line in lines if line and not line.startswith("#")))
    except csv.Error as error:
        raise UserError(f"{path}: is no CSV: {error}") from error


def _grids(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str, Work], Grid]:
    values: dict[tuple[str, str, Work], dict[Sizes, float]] = {}
    for row in rows:
        axes = _AXES.get(row["kernel"], _AXES["attention"])
        point = tuple(_size(row[axis]) for axis in axes)
        for work, column in WORK_NAMES.items():
            if row.get(column):
                rate = float(row[column])
                if not 0 < rate < inf:
                    raise ValueError(f"{column} must be a rate above zero, got {quoted(row[column])}")
                values.setdefault((row["kernel"], row["numbers"], work), {})[point] = rate
    if not values:
        raise ValueError("it has no rows")
    return {key: Grid(points) for key, points in values.items()}
