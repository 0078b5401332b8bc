"""Memory of a run as CSV, ``rank,task,before_bytes,peak_bytes,after_bytes``, and what each stage holds by it.

A row says what was allocated on a rank's GPU before an op, at most while it ran, and after it, in the order in which
ops were issued; the run is one step.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from dualpipe_sim.calibration.actions import Action
from dualpipe_sim.calibration.tables import action_of, rank_of, rows_of
from dualpipe_sim.costs.measured import StageMemory
from dualpipe_sim.errors import UserError, quoted
from dualpipe_sim.order.ops import B, F, I, Op, W

HEADER = ["rank", "task", "before_bytes", "peak_bytes", "after_bytes"]


class Held(NamedTuple):
    """What one op found, needed and left.

    Attributes:
        op: the op.
        before_bytes: allocated before it.
        peak_bytes: at most while it ran.
        after_bytes: allocated when the next op of its rank began: a loss is what the forward before it leaves.

    """

    op: Op
    before_bytes: int
    peak_bytes: int
    after_bytes: int


def is_memory(text: str) -> bool:
    """Return whether a text begins as such a table does."""
    return [cell.strip() for cell in text.partition("\n")[0].split(",")] == HEADER


def read_memory(text: str, source: str) -> list[Held]:
    """Return the rows of lone ops; of a pair nobody knows which half needs what.

    Raises:
        UserError: a row that is none; the line, the value and what would be right.

    """
    of_rank: defaultdict[int, list[tuple[Action, Held]]] = defaultdict(list)
    for cells, where in rows_of(text, source, HEADER):
        rank, action, held = _row(cells, where)
        of_rank[rank].append((action, held))
    return [
        held if following is None else held._replace(after_bytes=following[1].before_bytes)
        for own in of_rank.values()
        for (action, held), following in zip(own, [*own[1:], None], strict=True)
        if len(action.cell) == 1
    ]


def _row(cells: list[str], where: str) -> tuple[int, Action, Held]:
    rank, task, *amounts = cells
    for key, amount in zip(HEADER[2:], amounts, strict=True):
        if not (amount.isascii() and amount.isdecimal() and len(amount) < 19):
            raise UserError(f"{where}: {key} must be a whole number of bytes, got {quoted(amount)}")
    action = action_of(task, where)
    if not action.cell:
        raise UserError(f"{where}: {task} is no op; rows are of forwards and backwards")
    before, peak, after = map(int, amounts)
    return rank_of(rank, where), action, Held(action.cell[0], before, peak, after)


def stage_memory(rows: list[Held], pipe_stages: int) -> dict[int, StageMemory]:
    """Return what each stage holds, of stages of which an F and a backward were measured.

    Args:
        rows: what ops found, needed and left.
        pipe_stages: stages of a pipe, the last of which keeps its outputs.

    """
    by_stage: defaultdict[int, list[Held]] = defaultdict(list)
    for row in rows:
        by_stage[row.op.stage].append(row)
    found = {}
    for stage, own in sorted(by_stage.items()):
        last = stage % pipe_stages == pipe_stages - 1
        memory = _of_stage(own, keeps_outputs=last)
        if memory is not None:
            found[stage] = memory
    return found


def _of_stage(rows: list[Held], *, keeps_outputs: bool) -> StageMemory | None:
    """Return what a stage holds: medians over micro-batches, without the op that makes its gradients.

    None where that is not known: ops are missing, or forwards leave less than they found.
    """
    first = next((place for place, row in enumerate(rows) if row.op.kind in (B, W)), None)
    changes: defaultdict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        if place != first:
            changes[row.op.kind].append(row.after_bytes - row.before_bytes)
    usual = {kind: float(np.median(of_kind)) for kind, of_kind in changes.items()}
    if first is None or F not in usual or not (B in usual or {I, W} <= usual.keys()):
        return None
    if I in usual and B in usual:
        held = usual[I] - usual[B]  # what an I leaves of what a B would have freed
    else:
        held = -usual[W] if I in usual else 0.0
    freed = -usual[B] if B in usual else held - usual[I]
    if freed < 0 or usual[F] < 0:
        return None
    needs: defaultdict[int, list[int]] = defaultdict(list)
    for op, before, peak, after in rows:
        if op.kind != F:
            needs[op.kind].append(peak - max(before, after))
    making = rows[first]
    frees = held if making.op.kind == W else freed
    return StageMemory(
        activation=freed if keeps_outputs else usual[F],
        held_for_weight=max(0.0, held),
        workspace=max(float(np.median(of_kind)) for of_kind in needs.values()),
        gradients=max(0.0, making.after_bytes - making.before_bytes + frees),
        output=max(0.0, usual[F] - freed) if keeps_outputs else 0.0,
    )
