"""Ops as pictures show them: the halves of an overlapped pair side by side, stages of a rank in shades.

The two ops of a pair run at once, which one row of a chart cannot show, so the pair's box is split in two. Colours tell
kinds apart; the shades of a colour tell the stages of one rank apart.
"""

from __future__ import annotations

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import B, F, I, Kind, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule


def op_boxes_s(timeline: Timeline) -> tuple[FloatArray, FloatArray]:
    """Return where each op's box begins and ends, shape ``(ops,)`` each, in the schedule's order.

    The two ops of a pair run at once. The box of the forward comes first and takes the share of the pair that it has of
    both where they run alone: a pair of 6 s of an F of 2 s and a B of 4 s is drawn as 2 s and 4 s.
    """
    schedule = timeline.graph.schedule
    task = schedule.task_of_op
    begin_s, end_s = timeline.task_start_s[task], timeline.task_end_s[task]  # (copies, so they may be written to)
    forward = forward_of_pairs(schedule)
    split_s = begin_s[forward] + _forward_share(timeline) * (end_s - begin_s)[forward]
    end_s[forward] = begin_s[forward + 1] = split_s
    return begin_s, end_s


def shade_of_stage(placement: Placement) -> IntArray:
    """Return the place of each stage among the stages of its rank, from 0, shape ``(stages,)``.

    It tells opposed pipes apart, and the turns of one pipe that passes over the ranks more than once. Stages sorted by
    rank (stably, so lowest first) stand at 0, 1, 2, …; less where their rank begins, that is their place on the rank.

    >>> from dualpipe_sim.order.placement import v_shape
    >>> shade_of_stage(v_shape(2))
    array([0, 0, 1, 1])
    """
    by_rank = np.argsort(placement.rank_of_stage, kind="stable")
    rank = placement.rank_of_stage[by_rank]
    shade = np.empty_like(rank)
    shade[by_rank] = np.arange(len(rank)) - np.searchsorted(rank, rank)
    return shade


def forward_of_pairs(schedule: Schedule) -> IntArray:
    """Return the rows of the forwards that begin a pair; what runs beside them stands in the next rows."""
    return np.flatnonzero(schedule.partner > np.arange(len(schedule.partner)))


def _forward_share(timeline: Timeline) -> FloatArray:
    """Return the forward's share of each pair, shape ``(pairs,)``: half where no op runs alone to tell."""
    schedule = timeline.graph.schedule
    forward = forward_of_pairs(schedule)
    alone_s = _alone_s(timeline)
    forward_s = alone_s[F, schedule.stage[forward]]
    both_s = forward_s + alone_s[schedule.kind[forward + 1], schedule.stage[forward + 1]]
    share = np.full(len(forward), 0.5)
    np.divide(forward_s, both_s, out=share, where=np.isfinite(both_s) & (both_s > 0))
    return share


def _alone_s(timeline: Timeline) -> FloatArray:
    """Mean seconds of each kind and stage outside pairs, NaN where none is, shape ``(kinds, stages)``.

    Where a stage runs no full backward outside pairs, it is I and W together. Kind and stage are one number, kind x
    stages + stage, so that one ``bincount`` sums all of them; it is reshaped into a table at the end.
    """
    schedule = timeline.graph.schedule
    alone = schedule.partner < 0
    task = schedule.task_of_op[alone]
    seconds = timeline.task_end_s[task] - timeline.task_start_s[task]
    shape = len(Kind), schedule.placement.stages
    stream = schedule.kind[alone] * shape[1] + schedule.stage[alone]
    size = shape[0] * shape[1]
    count = np.bincount(stream, minlength=size)
    total_s = np.bincount(stream, weights=seconds, minlength=size)
    mean_s = np.full(shape, np.nan)
    np.divide(total_s.reshape(shape), count.reshape(shape), out=mean_s, where=count.reshape(shape) > 0)
    mean_s[B] = np.where(np.isnan(mean_s[B]), mean_s[I] + mean_s[W], mean_s[B])
    return mean_s
