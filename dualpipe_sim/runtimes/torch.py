"""A schedule as ``torch.distributed.pipelining`` runs it: its ``compute_comms`` CSV.

Beside the tasks a row holds ``0SEND_F3`` and ``1RECV_F3`` for each tensor that crosses from one rank to another
(``_B`` for gradients), and ``0REDUCE_GRAD`` after the last B or W of a stage. Torch lowers compute-only orders by
itself, but knows one chain of stages only; this also takes pipes in opposite directions.
"""

from __future__ import annotations

from collections import deque

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.check import check_schedule
from dualpipe_sim.order.messages import Pipes
from dualpipe_sim.order.ops import Action, B, Collective, Program, Receive, Send, Task, Tensor, W
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_rows


def format_program(schedule: Schedule) -> str:
    """Return the schedule with its communication, one line a rank, as torch's ``compute_comms`` CSV.

    >>> from dualpipe_sim import build
    >>> print(format_program(build("1f1b", ranks=2, micro_batches=1)), end="")
    0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD
    1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    return format_rows(program_of(schedule))


def program_of(schedule: Schedule) -> Program:
    """Return what each rank issues: the program that the order came with, or else torch's lowering of it.

    Ranks take turns, a task or reduction each: a task whose inputs are there is written down, what it sends is written
    down after it, and the receive at the end of the receiver's row so far. So two ranks agree on the order of all that
    passes between them, both ways, and nobody waits for ever.

    Raises:
        ScheduleError: an order that cannot run; the message says why.

    """
    if schedule.program is not None:
        return schedule.program
    pipes = Pipes(schedule.placement)
    rows: list[list[Action]] = [[] for _ in range(schedule.ranks)]
    waiting = [deque(_with_reductions(schedule, rank)) for rank in range(schedule.ranks)]
    inputs = [pipes.inputs_of(row[0]) if row else () for row in waiting]  # of each row's head
    made: set[Tensor] = set()
    while any(waiting):
        progress = False
        for rank, row in enumerate(waiting):
            if row and made.issuperset(inputs[rank]):
                action = row.popleft()
                rows[rank].append(action)
                for tensor in pipes.outputs_of(action):
                    made.add(tensor)
                    source, target = pipes.ranks_of(tensor)
                    if source != target:
                        rows[source].append(Send(tensor))
                        rows[target].append(Receive(tensor))
                inputs[rank] = pipes.inputs_of(row[0]) if row else ()
                progress = True
        if not progress:
            raise ScheduleError(f"{schedule.name}: {check_schedule(schedule)[0]}")
    return tuple(map(tuple, rows))


def _with_reductions(schedule: Schedule, rank: int) -> list[Task | Collective]:
    """Return a rank's tasks with the reduction of a stage's gradients after its last B or W."""
    left = {
        stage: schedule.micro_batches_of_pipe[schedule.placement.pipe_of_stage[stage]]
        for stage in schedule.placement.stages_of_rank(rank)
    }
    row: list[Task | Collective] = []
    for task in schedule.order[rank]:
        row.append(task)
        for op in task.ops:
            if op.kind in (B, W) and op.stage in left:
                left[op.stage] -= 1
                if left[op.stage] == 0:
                    row.append(Collective(op.stage, "REDUCE_GRAD"))
    return row
