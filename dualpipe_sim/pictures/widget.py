"""Runs as a widget of a notebook: the report's viewer, and what is looked at in it as values of Python.

Needs anywidget (the extra ``widget``), which no other module imports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import anywidget
import numpy as np
import traitlets

from dualpipe_sim.base.show import line
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import Collective, Kind, Op
from dualpipe_sim.order.text import parse_cell
from dualpipe_sim.pictures.report import Run, page_data, viewer_style, widget_module


class Selected(NamedTuple):
    """An op that was chosen in a widget: of which run, where, and when it runs, in seconds."""

    run: str
    op: str
    rank: int
    start_s: float
    end_s: float


class ViewerWidget(anywidget.AnyWidget):
    """Runs in a notebook, to look at, to step through and to choose ops of.

    >>> from dualpipe_sim import compare
    >>> widget = compare("figure5", compare=["1f1b", "dualpipe"]).widget()
    >>> widget.op = "0B3"  # as a click on it would
    >>> widget.selected
    Selected(run='dualpipe', op='0B3', rank=0, start_s=41.0, end_s=44.0)

    All four are traits, so ``widget.observe(print, "selected")`` hears of every choice.

    Attributes:
        run: label of the run that is looked at.
        op: the op that was chosen, as ``3B7``; empty for none.
        window: what is shown of the time axis, from and to, in seconds; empty for all of it.
        selected: the op with its run, its rank and its times; None for none. It follows the others.

    """

    _esm = widget_module()
    _css = viewer_style()
    data = traitlets.Dict().tag(sync=True)
    run = traitlets.Unicode().tag(sync=True)
    op = traitlets.Unicode().tag(sync=True)
    window = traitlets.List(traitlets.Float()).tag(sync=True)
    selected = traitlets.Instance(Selected, allow_none=True, read_only=True)

    def __init__(self, runs: Sequence[Run], first: str = "") -> None:
        data = page_data(runs, first)
        self._timelines = {run.label: run.timeline for run in runs}
        super().__init__(data=data, run=data["runs"][data["first"]]["label"])

    def __repr__(self) -> str:
        return line(self, f"of {len(self._timelines)}: {', '.join(self._timelines)}")

    @traitlets.validate("run")
    def _known_run(self, proposed: Any) -> str:  # noqa: ANN401 - traitlets' own
        if proposed["value"] not in self._timelines:
            raise traitlets.TraitError(f"there is no run {proposed['value']!r}; there are {', '.join(self._timelines)}")
        return str(proposed["value"])

    @traitlets.validate("op")
    def _known_op(self, proposed: Any) -> str:  # noqa: ANN401 - traitlets' own
        name = str(proposed["value"])
        if not name:
            return name
        found = _selected(self.run, name, self._timelines[self.run])
        if found is None:
            raise traitlets.TraitError(f"{self.run} has no op {name!r}")
        return found.op

    @traitlets.validate("window")
    def _ascending(self, proposed: Any) -> list[float]:  # noqa: ANN401 - traitlets' own
        window = list(proposed["value"])
        if window and (len(window) != 2 or not window[0] < window[1]):
            raise traitlets.TraitError(f"window: {window} is no window; give its begin and end in seconds, or []")
        return window

    @traitlets.observe("run", "op")
    def _select(self, _: object) -> None:
        found = _selected(self.run, self.op, self._timelines[self.run]) if self.op else None
        if self.op and found is None:
            self.op = ""  # an op of the run before
        self.set_trait("selected", found)


def _selected(run: str, name: str, timeline: Timeline) -> Selected | None:
    """Return where and when an op of a name runs; None for no such op.

    Raises:
        TraitError: this is no op's name.

    """
    try:
        op = parse_cell(name.upper())
    except ScheduleError as error:
        raise traitlets.TraitError(str(error)) from None
    schedule = timeline.graph.schedule
    if isinstance(op, Op):
        unit = op.micro_batch * schedule.slices + (op.slice or 0)
        rows = np.flatnonzero((schedule.kind == op.kind) & (schedule.stage == op.stage) & (schedule.unit == unit))
    elif isinstance(op, Collective):
        rows = np.flatnonzero((schedule.kind == Kind[op.verb]) & (schedule.stage == op.stage))
    else:
        raise traitlets.TraitError(f"{name!r} is no single op; write one as 3B7: stage, kind, micro-batch")
    if not len(rows):
        return None
    task = schedule.task_of_op[rows[0]]
    start_s, end_s = float(timeline.task_start_s[task]), float(timeline.task_end_s[task])
    return Selected(run, str(op), int(schedule.rank[rows[0]]), start_s, end_s)
