"""Weights that GPUs share out, gathered a stage at a time ahead of the ops that need them, as torch's pipelining does.

Fully sharded data parallelism (https://arxiv.org/abs/2304.11277) under a pipeline: torch puts ``UNSHARD``, ``RESHARD``
and ``REDUCE_GRAD`` between a rank's tasks (torch 2.13, ``_add_unshard_reshard`` and ``_add_reduce_grad`` in
https://github.com/pytorch/pytorch, ``torch/distributed/pipelining/schedules.py``). Before each task the next few
different stages that it and those behind it work on are gathered, others are freed; a stage's gradients are reduced
behind its last B or W. A rank of three stages or fewer so gathers each once a step. One of more gathers them again as
often as its order comes back to them: breadth-first (https://arxiv.org/abs/2211.05953) hardly ever does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import OF_WEIGHTS, B, Collective, Kind, Task, W, ops_of
from dualpipe_sim.order.schedule import Schedule

UNSHARDED_STAGES = 3
"""Stages whose weights torch keeps gathered ahead, for each rank (``max_active_stages``)."""

Sharded: TypeAlias = "list[Task | Collective]"
"""A rank's tasks with what is done about weights between them."""


def with_gathers(schedule: Schedule) -> Schedule:
    """Return a schedule in which gathering weights and reducing gradients are ops: where its file has them, or torch.

    >>> from dualpipe_sim import build
    >>> from dualpipe_sim.order import format_order
    >>> print(format_order(with_gathers(build("1f1b", ranks=2, micro_batches=1))), end="")
    0UNSHARD,0F0,0B0,0REDUCE_GRAD,0RESHARD
    1UNSHARD,1F0,1B0,1REDUCE_GRAD,1RESHARD

    """
    if schedule.of_kinds(*OF_WEIGHTS).any():
        return schedule
    order = OrderBuilder(schedule.placement, schedule.micro_batches_of_pipe, schedule.slices)
    for rank, row in enumerate(sharded_rows(schedule)):
        line = order.rank(rank)
        for cell in row:
            if isinstance(cell, Collective):
                line.op(Kind[cell.verb], cell.stage, 0)
                continue
            for kind, stage, micro_batch, part in cell.ops:
                line.op(kind, stage, micro_batch, part or 0)
            if len(cell.ops) > 1:
                line.overlap_last()
    built = order.schedule(schedule.name)
    columns = {name: getattr(built, name) for name in ("rank", "kind", "stage", "micro_batch", "partner", "slice")}
    return replace(schedule, **columns)


def sharded_rows(schedule: Schedule) -> list[Sharded]:
    """Return each rank's tasks with what is done about weights: where its file has it, or where torch puts it."""
    if schedule.sharded is not None:
        return [[cell for cell in row if isinstance(cell, Collective) or ops_of(cell)] for row in schedule.sharded]  # type: ignore[misc]
    return [with_reductions(schedule, _gathered(row), rank) for rank, row in enumerate(schedule.order)]


def with_reductions(schedule: Schedule, tasks: Iterable[Task | Collective], rank: int) -> Sharded:
    """Return a rank's tasks with the reduction of a stage's gradients behind its last B or W."""
    left = {
        stage: schedule.micro_batches_of_pipe[schedule.placement.pipe_of_stage[stage]] * schedule.slices
        for stage in schedule.placement.stages_of_rank(rank)
    }
    row: Sharded = []
    for task in tasks:
        row.append(task)
        for op in ops_of(task):
            if op.kind in (B, W) and op.stage in left:
                left[op.stage] -= 1
                if left[op.stage] == 0:
                    row.append(Collective(op.stage, "REDUCE_GRAD"))
    return row


def _gathered(tasks: Sequence[Task]) -> Iterator[Task | Collective]:
    """Yield a rank's tasks with the gathering of weights ahead of them, and their freeing.

    Before a task the first few stages that it and those after it need are gathered; others are freed. Both stages of a
    pair count at once.
    """
    gathered: set[int] = set()
    for task, ahead in zip(tasks, _stages_ahead(tasks), strict=True):
        for stage in sorted(gathered.difference(ahead)):
            yield Collective(stage, "RESHARD")
        for stage in ahead:
            if stage not in gathered:
                yield Collective(stage, "UNSHARD")
        gathered = set(ahead)
        yield task
    for stage in sorted(gathered):
        yield Collective(stage, "RESHARD")


def _stages_ahead(tasks: Sequence[Task]) -> list[list[int]]:
    """Return the first few different stages that tasks from each one on work on, from the last task to the first."""
    ahead: list[list[int]] = []
    coming: list[list[int]] = []  # all stages in the order of their first use, those of a pair together
    for task in reversed(tasks):
        own = list(dict.fromkeys(op.stage for op in task.ops))
        later = ([stage for stage in stages if stage not in own] for stages in coming)
        coming = [own, *(stages for stages in later if stages)]
        first: list[int] = []
        for stages in coming:
            if len(first) >= UNSHARDED_STAGES:
                break
            first += stages
        ahead.append(first)
    return ahead[::-1]
