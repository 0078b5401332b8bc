"""Many orders of the same tasks, played side by side: which of them is fastest?

All ranks of all orders of a block walk in step, as the lanes of one graph do in :mod:`longest_path`: a turn computes
the end of every rank's next task, an end that is not known yet is infinite, and a rank whose task came out infinite
asks again. An order in which no rank moved on is over, done or deadlocked; orders that are over are left out once they
are many. Each order has a table of ends of its own, all in one flat array, and the blocks are small enough for a
core's cache.

Additions and maxima are those of :func:`longest_path.play` in the same order: makespans are equal to the last bit.
"""

from __future__ import annotations

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.engine.any_order import AnyOrder

_BLOCK_CELLS = 1 << 18  # orders x tasks that are played side by side
_FEWEST = 8  # orders side by side, however many tasks there are: a turn of fewer is more calls than work


def makespans_of_orders(tasks: AnyOrder, orders: IntArray) -> FloatArray:
    """Return the makespan of each order in seconds, shape ``(orders,)``; infinite where it deadlocks.

    1F1B on two ranks, and with the first backward of rank 0 before the second forward, and before any:

    >>> from dualpipe_sim import build
    >>> from dualpipe_sim.costs.uniform import UniformCosts
    >>> from dualpipe_sim.graph.lowering import lower
    >>> tasks = AnyOrder.of(lower(build("1f1b", ranks=2, micro_batches=2), UniformCosts(1.0, 1.0, 1.0)))
    >>> orders = [[0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 1, 3, 4, 5, 6, 7], [2, 0, 1, 3, 4, 5, 6, 7]]
    >>> makespans_of_orders(tasks, np.array(orders)).tolist()
    [9.0, 12.0, inf]

    Args:
        tasks: what is ordered.
        orders: tasks by number, rank after rank in the order they run, shape ``(orders, tasks)``.

    Raises:
        UserError: what is no order of these tasks.

    """
    size = max(_FEWEST, _BLOCK_CELLS // tasks.tasks)
    makespan_s = np.empty(len(orders))
    for begin in range(0, len(orders), size):
        block = slice(begin, begin + size)
        tasks.check(orders[block], begin)
        makespan_s[block] = _block(tasks, orders[block])
    return makespan_s


def _block(tasks: AnyOrder, orders: IntArray) -> FloatArray:
    """Play orders side by side.

    What each rank runs is a line: its tasks and, behind them, a stop, which never ends. The table of ends has a row for
    each order: its tasks, the start of time, and the stop.
    """
    schedule, count = tasks.schedule, len(orders)
    start, stop = tasks.tasks, tasks.tasks + 1
    line_of = np.full((count, tasks.tasks + schedule.ranks), stop)
    line_of[:, np.arange(tasks.tasks) + schedule.rank_of_task] = orders
    end_of = np.full((count, stop + 1), np.inf)
    end_of[:, start] = 0.0
    # Flat arrays, and flat indexes into them of shape (ranks, orders): ``take`` of those is numpy's fastest look-up.
    line, end_s = line_of.ravel(), end_of.ravel()
    first = schedule.first_task_of_rank[:-1] + np.arange(schedule.ranks)
    here = first[:, None] + line_of.shape[1] * np.arange(count)
    row = np.tile(end_of.shape[1] * np.arange(count), (schedule.ranks, 1))

    lasts_s = np.append(tasks.duration_s, [np.inf, np.inf])
    slots = [
        (np.append(before, [start, start]), np.append(hop_s, [0.0, 0.0]))
        for before, hop_s in zip(tasks.before, tasks.hop_s, strict=True)
    ]
    which, makespan_s = np.arange(count), np.full(count, np.inf)
    free_s = np.zeros(here.shape)  # when each rank is done with what it ran
    while len(which):
        task = line.take(here)
        ready_s = free_s
        for before, hop_s in slots:
            ready_s = np.maximum(ready_s, end_s.take(before.take(task) + row) + hop_s.take(task))
        done_s = ready_s + lasts_s.take(task)
        end_s[task + row] = done_s
        moves = done_s < np.inf
        free_s = np.where(moves, done_s, free_s)
        here += moves
        goes_on = moves.any(axis=0)
        if 4 * np.count_nonzero(goes_on) <= 3 * len(which):
            all_done = (line.take(here) == stop).all(axis=0)
            makespan_s[which[all_done]] = free_s[:, all_done].max(axis=0)
            which, here, row, free_s = which[goes_on], here[:, goes_on], row[:, goes_on], free_s[:, goes_on]
    return makespan_s
