"""The costs of a task graph: what its phases and transfers of a kind take, each second of them being one cost's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dualpipe_sim.analysis.critical_path import PARTS
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.base.show import brief
from dualpipe_sim.costs.asked import op_seconds
from dualpipe_sim.graph.task_graph import TaskGraph
from dualpipe_sim.order.ops import B, F, I, Kind, W
from dualpipe_sim.pictures.palette import words_of

_PAIR = "X"


class Cost(NamedTuple):
    """What tasks of one kind take.

    Attributes:
        key: ``F``, ``B``, ``I``, ``W``, … for compute of a kind of op, ``X`` for that of a forward and a backward that
            are one piece (``F&W`` and the like for other pairs); else the critical path's part: ``alltoall``,
            ``collective``, ``transfer``, ``copy``, ``weights``. Where backwards are split, ``I`` and ``W`` have their
            parts of those that are not.
        words: what it is.
        letter: what formulas call it, or what is short enough to stand in one.
        share: of which share of each phase and transfer it is, shape ``(nodes,)``.
        one_s: the mean seconds of one: of compute a rank's share of an op, of anything else a phase or transfer.

    """

    key: str
    words: str
    letter: str
    share: FloatArray
    one_s: float

    def __repr__(self) -> str:
        return brief(self)


def costs_of(graph: TaskGraph) -> Iterator[Cost]:
    """Yield each cost of a graph that takes time; the shares of each phase and transfer that does sum to 1."""
    schedule, phases = graph.schedule, graph.first_transfer
    kind, whole, exchanges = (
        np.array(column)[graph.phase]
        for column in zip(*((one.kind, one.is_whole, one.is_alltoall) for one in graph.phases), strict=True)
    )
    computes = graph.lane == Lane.COMPUTE
    partner = schedule.partner[schedule.first_op[graph.task]]
    pair = computes & whole & (partner >= 0)
    other = np.where(pair, schedule.kind[partner], kind)
    found = {
        (str(one), words_of(one, schedule.vocabulary), str(one)): (computes & ~pair & (kind == one)).astype(np.float64)
        for one in Kind
    }
    _split_backwards(graph, found)
    for one in Kind:
        key = _PAIR if one == B else f"{Kind(F)}&{one}"
        words = "overlapped pair" if one == B else f"overlapped pair of {Kind(F)} and {one}"
        found[key, words, key] = (pair & (other == one)).astype(np.float64)
    for part, letter, mask in (
        ("alltoall", "all-to-all", exchanges),
        ("collective", "collective", (graph.lane == Lane.ALLTOALL) & ~exchanges),
        ("copy", "copy", graph.lane == Lane.COPY),
        ("weights", "gather", graph.lane == Lane.DATA),
    ):
        found[part, PARTS[part], letter] = mask.astype(np.float64)
    for (key, words, letter), share in found.items():
        seconds = float(share @ graph.duration_s[:phases])
        if seconds:
            count = _ops(graph, share) if computes[share > 0].all() else np.count_nonzero(share)
            yield Cost(key, words, letter, np.append(share, np.zeros(len(graph.transfers))), seconds / count)
    if graph.duration_s[phases:].any():
        share = (np.arange(graph.nodes) >= phases).astype(np.float64)
        yield Cost("transfer", PARTS["transfer"], "C", share, float(graph.duration_s[phases:].mean()))


def _split_backwards(graph: TaskGraph, found: dict[tuple[str, str, str], FloatArray]) -> None:
    """Give the halves of backwards in one piece to I and W, where there are such ops."""
    backward, inputs, weights = (next(key for key in found if key[0] == str(kind)) for kind in (B, I, W))
    if not (found[inputs].any() and found[weights].any()):
        return
    stages = graph.schedule.placement.stages
    inputs_s, weights_s = (op_seconds(graph.costs, kind, stages) for kind in (I, W))
    of_input = np.divide(inputs_s, inputs_s + weights_s, out=np.ones(stages), where=inputs_s + weights_s > 0)
    part = of_input[graph.schedule.stage[graph.op_of_node[: graph.first_transfer]]]
    found[inputs] += found[backward] * part
    found[weights] += found[backward] * (1 - part)
    found[backward] = np.zeros(graph.first_transfer)


def _ops(graph: TaskGraph, share: FloatArray) -> float:
    """Return how many ops of a rank's share of the model have some of their time in these shares of phases."""
    schedule = graph.schedule
    ops = np.unique(graph.op_of_node[: graph.first_transfer][share > 0])
    size = schedule.placement.activations_of_stage[schedule.stage[ops]]
    return float(size.sum()) * schedule.micro_batch_share / schedule.slices
