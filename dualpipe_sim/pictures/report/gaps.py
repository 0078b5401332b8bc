"""Which op's output a task waits for: what a gap before it is to be blamed on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.graph.timeline import Timeline

NO_OP = -1


class Waits(NamedTuple):
    """The tensor that reaches each task last, shape ``(tasks,)`` each.

    Attributes:
        op: row of the op whose output it is, or NO_OP where nothing comes from another rank.
        under_way_s: how long it was under way.

    """

    op: IntArray
    under_way_s: FloatArray


def waits_of(timeline: Timeline) -> Waits:
    """Return what each task of a timeline waits for."""
    graph = timeline.graph
    begin = graph.first_transfer
    task = graph.schedule.task_of_op[graph.transfers.consumer]
    by_arrival = np.lexsort((timeline.end_s[begin:], task))
    op, under_way_s = np.full(len(timeline.rank), NO_OP), np.zeros(len(timeline.rank))
    op[task[by_arrival]] = graph.transfers.producer[by_arrival]
    under_way_s[task[by_arrival]] = (timeline.end_s[begin:] - timeline.start_s[begin:])[by_arrival]
    return Waits(op, under_way_s)
