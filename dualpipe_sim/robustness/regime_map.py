"""What a map says: the best schedule at each point, by how much, and where along the axes another one takes over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.plain_data import data_frame
from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import format_percent, number_of
from dualpipe_sim.robustness.axis import Axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dualpipe_sim.base.plain_data import DataFrame

CLOSE = 0.01
"""Share by which the best is faster than the second, at least, where it is not too close to call."""

NOBODY = -1
_ROUNDING = 1e-9
_MOST_RUNS = 6  # along a line, that a sentence tells


@dataclass(frozen=True, eq=False)
class RegimeMap(Tabular):
    """Which of some schedules is best at each point of a grid.

    >>> from dualpipe_sim import regimes
    >>> found = regimes("figure5", "costs.transfer=0..2:5", "micro_batches=16,32", compare=["1f1b", "zb-h1"])
    >>> found
    <RegimeMap transfer × micro_batches, 10 points, 2 schedules>
    >>> print(found.crossings[0])
    micro_batches 16: zb-h1 all along transfer

    Attributes:
        x: the axis from left to right.
        y: the axis from below to above.
        schedules: names of the compared schedules.
        seconds: of a micro-batch, or GPU-seconds of a token where a model is known, whether it fits or not, shape
            ``(y, x, schedules)``; not a number where a schedule cannot be played.
        unfit: why a schedule cannot be played or does not fit, same shape; empty where it fits.
        close: by how much the best must be faster than the second, or it is too close to call.
        unitless: whether times are units of no clock.

    """

    x: Axis
    y: Axis
    schedules: tuple[str, ...]
    seconds: FloatArray
    unfit: NDArray[Any]
    close: float = CLOSE
    unitless: bool = False

    def __repr__(self) -> str:
        points = number_of(len(self.x) * len(self.y), "point")
        return line(self, f"{self.x.name} × {self.y.name}", points, number_of(len(self.schedules), "schedule"))

    @property
    def fits(self) -> BoolArray:
        """Which schedules can be played at each point and fit, shape ``(y, x, schedules)``."""
        return np.asarray((self.unfit == "") & np.isfinite(self.seconds))

    @cached_property
    def fitting_s(self) -> FloatArray:
        """``seconds`` of what fits, infinite for all else."""
        return np.where(self.fits, self.seconds, np.inf)

    @cached_property
    def best(self) -> IntArray:
        """Place of the best schedule that fits at each point, -1 where none does, shape ``(y, x)``."""
        return fastest(self.fitting_s)

    @cached_property
    def second(self) -> IntArray:
        """Place of the second best, -1 where there is none, shape ``(y, x)``."""
        others_s = self.fitting_s.copy()
        np.put_along_axis(others_s, np.maximum(self.best, 0)[:, :, None], np.inf, axis=2)
        return fastest(others_s)

    @cached_property
    def margin(self) -> FloatArray:
        """How much longer the second takes than the best, as a share, shape ``(y, x)``; infinite without a second."""
        ordered_s = np.sort(self.fitting_s, axis=2)
        if ordered_s.shape[2] < 2:
            return np.full(self.best.shape, np.inf)
        best_s, second_s = ordered_s[:, :, 0], ordered_s[:, :, 1]
        apart: FloatArray = np.full(self.best.shape, np.inf)
        both = np.isfinite(second_s) & (best_s > 0)
        apart[both] = second_s[both] / best_s[both] - 1
        return apart

    @cached_property
    def too_close(self) -> BoolArray:
        """Where the best is too close to the second to be called, shape ``(y, x)``."""
        return np.asarray((self.best != NOBODY) & (self.margin < self.close))

    def winner(self, x: int, y: int) -> str | None:
        """Return the best schedule at the point that is so many values along each axis, None where none fits."""
        best = int(self.best[y, x])
        return None if best == NOBODY else self.schedules[best]

    @property
    def winners(self) -> list[list[str | None]]:
        """The best schedule at each point, line by line from below; None where none fits."""
        lines, columns = self.best.shape
        return [[self.winner(along, below) for along in range(columns)] for below in range(lines)]

    @property
    def crossings(self) -> list[str]:
        """Where along each axis which schedule is best, in sentences: at the first, middle and last of the other."""
        along_x = [self._along(self.x, self.y, row, self.fitting_s[row]) for row in _ends_and_middle(len(self.y))]
        along_y = [self._along(self.y, self.x, row, self.fitting_s[:, row]) for row in _ends_and_middle(len(self.x))]
        return [*along_x, *along_y]

    def boundaries(self, row: int, *, along_y: bool = False) -> list[tuple[str | None, float | None]]:
        """Return which schedules are best along one line of the map, each with the number up to which it is.

        Between two points the one takes over from the other where straight lines through their times meet.

        Args:
            row: how many values along the other axis.
            along_y: whether the line goes from below to above, not from left to right.

        Returns:
            (schedule, up to) from the first to the last; None for no schedule that fits, and for the end of the axis.

        """
        axis, fitting_s = (self.y, self.fitting_s[:, row]) if along_y else (self.x, self.fitting_s[row])
        return [
            (None if which == NOBODY else self.schedules[which], None if end is None else axis.number_at(end))
            for which, end in _runs(fitting_s, whole=axis.whole)
        ]

    def to_table(self) -> Table:
        """Return how much of the map is whose, as the table that this shows itself as."""
        headings = ("schedule", "best at", "clearly", "most ahead")
        rows = []
        for place, name in enumerate(self.schedules):
            own = self.best == place
            ahead = self.margin[own & np.isfinite(self.margin)]
            most = format_percent(float(ahead.max())) if len(ahead) else "–"
            rows.append([name, format_percent(own.mean()), format_percent((own & ~self.too_close).mean()), most])
        rows.sort(key=lambda row: -float(row[1].rstrip("%")))
        title = f"{number_of(self.best.size, 'point')}: {self.x.key} × {self.y.key}"
        return Table(headings, rows, ("schedule",), title, [*self._notes(), *self.crossings])

    def _notes(self) -> Iterator[str]:
        close, nobody = float(self.too_close.mean()), float((self.best == NOBODY).mean())
        if close:
            yield f"too close to call (within {100 * self.close:.3g}%) at {format_percent(close)} of the points"
        if nobody:
            why = next(str(one) for one in self.unfit[self.best == NOBODY].ravel() if one)
            yield f"nothing fits at {format_percent(nobody)} of the points, such as: {why}"

    def to_rows(self) -> list[dict[str, object]]:
        """Return the points as rows: values, the best schedule, the second, the margin, and all times."""
        rows: list[dict[str, object]] = []
        for below, along in np.ndindex(*self.best.shape):
            margin, second = float(self.margin[below, along]), int(self.second[below, along])
            times = self.seconds[below, along].tolist()
            rows.append(
                {
                    self.y.key: self.y.values[below],
                    self.x.key: self.x.values[along],
                    "best": self.winner(along, below),
                    "second": None if second == NOBODY else self.schedules[second],
                    "margin": margin if np.isfinite(margin) else None,
                    "too_close": bool(self.too_close[below, along]),
                    **{
                        name: one if np.isfinite(one) else None for name, one in zip(self.schedules, times, strict=True)
                    },
                    "unfit": {
                        name: why for name, why in zip(self.schedules, self.unfit[below, along], strict=True) if why
                    },
                }
            )
        return rows

    def to_dict(self) -> dict[str, object]:
        """Return the map, ready for JSON."""
        return {
            "x": {"key": self.x.key, "values": list(self.x.values)},
            "y": {"key": self.y.key, "values": list(self.y.values)},
            "schedules": list(self.schedules),
            "close": self.close,
            "crossings": self.crossings,
            "points": self.to_rows(),
        }

    def to_pandas(self) -> DataFrame:
        """Return the points as a pandas DataFrame.

        Raises:
            UserError: pandas is not installed.

        """
        rows = self.to_rows()
        return data_frame(rows, rows[0])

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:  # noqa: ANN401 - the plot names and types them
        """Draw the map; see :func:`dualpipe_sim.pictures.plot.regime_chart`."""
        from dualpipe_sim.pictures.plot import regime_chart

        return regime_chart(self, ax, **options)

    def _along(self, axis: Axis, other: Axis, row: int, fitting_s: FloatArray) -> str:
        where = f"{other.name} {other.at(row)}"
        runs = _runs(fitting_s, whole=axis.whole)
        if len(runs) == 1:
            return f"{where}: {self._named(runs[0][0])} all along {axis.name}"
        if len(runs) > _MOST_RUNS:
            names = list(dict.fromkeys(self._named(which) for which, _ in runs))
            return f"{where}: {len(runs) - 1} changes along {axis.name} between {' and '.join(names)}"
        said = [
            self._named(which) + ("" if end is None else f" until {axis.name} {axis.at(end)}") for which, end in runs
        ]
        return f"{where}: {', then '.join(said)}"

    def _named(self, which: int) -> str:
        return "nothing that fits" if which == NOBODY else self.schedules[which]


def fastest(fitting_s: FloatArray) -> IntArray:
    """Return the place of the least time along the last axis, of equal ones the first; -1 where none is finite."""
    least_s = fitting_s.min(axis=-1, keepdims=True)
    first = (fitting_s <= least_s * (1 + _ROUNDING)).argmax(axis=-1)
    return np.where(np.isfinite(least_s[..., 0]), first, NOBODY)


def _ends_and_middle(count: int) -> list[int]:
    return list(dict.fromkeys((0, (count - 1) // 2, count - 1)))


def _runs(fitting_s: FloatArray, *, whole: bool) -> list[tuple[int, float | None]]:
    """Return (schedule, place up to which it is best) along a line, shape of its times ``(points, schedules)``."""
    best = fastest(fitting_s)
    ends = []
    place = -1
    for which, same in groupby(best.tolist()):
        place += len(list(same))
        ends.append((which, place))
    return [
        (which, None if at == len(best) - 1 else _meet(fitting_s, at, which, int(best[at + 1]), whole=whole))
        for which, at in ends
    ]


def _meet(fitting_s: FloatArray, at: int, one: int, other: int, *, whole: bool) -> float:
    """Return the place between a point and the next at which one schedule's time is another's."""
    if whole or NOBODY in (one, other):
        return float(at)
    (one_s, one_next_s), (other_s, other_next_s) = (fitting_s[at : at + 2, which] for which in (one, other))
    before_s, after_s = other_s - one_s, one_next_s - other_next_s
    if not np.isfinite(before_s + after_s) or before_s + after_s <= 0:
        return float(at)
    return float(at + before_s / (before_s + after_s))
