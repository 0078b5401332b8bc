"""What a cost model answers, checked here alone: it may be anybody's, and nobody behind this file asks it directly.

An answer that no engine can play is one sentence that names the class or the op; what a cost model of a user's own
raises, too, with the line.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, cast

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.lanes import PHASE_LANES, Lane
from dualpipe_sim.base.plugins import in_code_of
from dualpipe_sim.base.units import number_of
from dualpipe_sim.costs.phases import Costs, Flow, Phase, StageCosts, ends_s
from dualpipe_sim.errors import UnfitCostsError, UserError, quoted
from dualpipe_sim.hardware.cluster import TIERS, Cluster
from dualpipe_sim.order.ops import OF_WEIGHTS, RESHARD, Kind, R, TaskShape, Vocabulary
from dualpipe_sim.order.placement import Placement

_FINITE = "times must be finite and 0 or more"
_KIND_NUMBERS = len(Kind)
_KINDS = ", ".join(f"{kind} ({kind.value})" for kind in Kind)
_FIRST_LANES, _LAST_LANE = PHASE_LANES[:-1], PHASE_LANES[-1]
_LANES = f"{', '.join(f'{lane} ({lane.value})' for lane in _FIRST_LANES)} or {_LAST_LANE} ({_LAST_LANE.value})"
_STAGE_COSTS = ("phases", "transfer_s", "transfer_bytes")
_LANES_OF_OPS = tuple(lane for lane in PHASE_LANES if lane != Lane.DATA)
_WAY = f" over {' or '.join(TIERS)}, with a cap above 0"
_WHOLE = (int, np.integer)
_NUMBERS = (float, int, np.floating, np.integer)


def stage_costs(costs: Costs, placement: Placement) -> StageCosts:
    """Return the costs of a placement's stages.

    Raises:
        UserError: no such costs, or a transfer without a time.

    """
    name = type(costs).__qualname__
    # (what overflows comes out as a time that is none, which is refused where it is asked for)
    with in_code_of(costs, f"costs: {name}.on"), np.errstate(over="ignore", invalid="ignore"):
        answer = costs.on(placement)
        missing = [key for key in _STAGE_COSTS if not hasattr(answer, key)]
        if missing:
            raise UserError(
                f"costs: {name}.on must return the costs of a placement's stages ({', '.join(_STAGE_COSTS)}); "
                f"{quoted(answer)} has no {missing[0]}"
            )
        transfer_s, transfer_bytes = answer.transfer_s, answer.transfer_bytes
        weights = getattr(answer, "micro_batch_weights", None)
    boundaries = len(placement.pipes[0]) - 1
    for seconds in () if transfer_s is None else _of_boundaries(transfer_s, boundaries):
        if not _is_size(seconds):
            raise UserError(f"a transfer takes {_seconds(seconds)}")
    for size in _of_boundaries(transfer_bytes, boundaries):
        if not _is_size(size):
            raise UserError(f"a transfer has {quoted(size)} bytes; sizes must be finite and 0 or more")
    for weight in weights or ():
        if not _is_size(weight):
            raise UserError(f"a micro-batch weighs {quoted(weight)}; weights must be finite and 0 or more")
    return answer


def _of_boundaries(amount: object, boundaries: int) -> tuple[object, ...]:
    """Return what a transfer takes or holds: one amount for all boundaries, or as many as a pipe has.

    Raises:
        UnfitCostsError: it has another number of boundaries.

    """
    if not isinstance(amount, (tuple, list)):
        return (amount,)
    if len(amount) != boundaries:
        raise UnfitCostsError(
            f"costs.transfer: a list needs one entry for each of the {number_of(boundaries, 'boundary')} between the "
            f"stages of a pipe, got {len(amount)}"
        )
    return tuple(amount)


def phases_of(costs: StageCosts, tasks: Sequence[TaskShape]) -> list[Sequence[Phase]]:
    """Return the phases of each task.

    Raises:
        UserError: phases that no engine can play.

    """
    with in_code_of(costs, f"costs: {type(costs).__qualname__}.phases"):
        answers: list[Any] = [_phases(costs, task) for task in tasks]
    sound: set[int] = set()  # flows that were looked at, by identity: many phases have the same tuple
    for task, phases in zip(tasks, answers, strict=True):
        if not isinstance(phases, (tuple, list)):
            raise UserError(_no_phases(costs, phases, task))
        if not phases:
            raise UserError(f"the costs have no phases for {_named(task)}; a task is one phase at least")
        for place, phase in enumerate(phases):
            if not isinstance(phase, Phase):
                raise UserError(_no_phases(costs, phases, task))
            if fault := _fault(phase, place, task, sound):
                raise UserError(fault)
        if phases[0].late and all(phase.late for phase in phases):
            raise UserError(f"{_named(task)} has late phases only; its output is there after one that is not")
    return answers


def _phases(costs: StageCosts, task: TaskShape) -> Sequence[Phase]:
    """Ask for a task's phases; what is done about weights takes no time where costs know of none."""
    kind, stage = task[0]
    if kind not in OF_WEIGHTS:
        return costs.phases(task)
    if kind == RESHARD:
        return (Phase(Lane.COMPUTE, 0.0, kind),)  # memory is free once the task before it is done
    moved = getattr(costs, "weights_moved", None)
    return (Phase(Lane.DATA, 0.0, kind) if moved is None else moved(kind, stage),)


def gathers_stages(costs: Costs) -> bool:
    """Whether these costs are of weights that GPUs share out and gather a stage at a time, as torch's pipelining."""
    return bool(getattr(costs, "gathers_stages", False))


def costs_of_kinds(costs: StageCosts, kinds: IntArray, how: Vocabulary | None = None) -> StageCosts:
    """Return the costs of stages for an order with ops of these kinds.

    Where forwards run again, backwards do not; where ranks share the output layer out, the last stage has none.

    Args:
        costs: the costs.
        kinds: kind of each op of the order.
        how: how ranks share the output layer out, where they do.

    """
    apart = getattr(costs, "with_forwards_again", None)
    if apart is not None and (kinds == int(R)).any():
        costs = cast("StageCosts", apart())
    return with_vocabulary_cut(costs, how)


def with_vocabulary_cut(costs: StageCosts, how: Vocabulary | None) -> StageCosts:
    """Return the costs of stages where ranks share the output layer out, in S and T; the same where they do not."""
    cut = getattr(costs, "with_vocabulary_cut", None)
    return costs if how is None or cut is None else cast("StageCosts", cut(how))


def op_seconds(costs: StageCosts, kind: int, stages: int) -> FloatArray:
    """Return the seconds of each stage's op of a kind where it runs alone, shape ``(stages,)``."""
    ops = phases_of(costs, [((kind, stage),) for stage in range(stages)])
    return np.array([max(ends_s(phases, [phase.duration_s for phase in phases])) for phases in ops])


def lane_seconds(costs: StageCosts, kind: int, stages: int) -> FloatArray:
    """Return the seconds that each stage's op of a kind has on each lane, shape ``(lanes, stages)``."""
    seconds = np.zeros((len(Lane), stages))
    for stage, phases in enumerate(phases_of(costs, [((kind, stage),) for stage in range(stages)])):
        for phase in phases:
            seconds[phase.lane, stage] += phase.duration_s
    return seconds


def on_cluster(costs: Costs, cluster: Cluster) -> Costs:
    """Return the costs on a cluster; those that do not ask for one are the same on each.

    Raises:
        UserError: what is returned is no cost model, or the costs do not fit the cluster.

    """
    return _again(costs, "on_cluster", cluster) if hasattr(costs, "on_cluster") else costs


def on_fewer_ranks(costs: Costs, shares: int) -> Costs:
    """Return the costs of the same model on fewer ranks, each holding as much as ``shares`` ranks did.

    Raises:
        UserError: a cost model that does not say how it scales, or returns no cost model.

    """
    if not hasattr(costs, "on_fewer_ranks"):
        raise UserError(
            f"costs: {type(costs).__qualname__} does not say how it scales to fewer ranks, so schedules with more "
            "stages a rank would be compared on other work; give it a method on_fewer_ranks(shares)"
        )
    return _again(costs, "on_fewer_ranks", shares)


def of_smaller_micro_batches(costs: Costs, share: float) -> Costs:
    """Return the costs of micro-batches that are a share of whole ones.

    Raises:
        UserError: a cost model that does not know them, or returns no cost model.

    """
    if share == 1:
        return costs
    if not hasattr(costs, "of_smaller_micro_batches"):
        raise UnfitCostsError(
            f"costs: {type(costs).__qualname__} does not say what a part of a micro-batch takes; give it a method "
            "of_smaller_micro_batches(share)"
        )
    return _again(costs, "of_smaller_micro_batches", share)


def _again(costs: Costs, method: str, told: object) -> Costs:
    """Return the cost model that a cost model's method makes of itself."""
    name = f"{type(costs).__qualname__}.{method}"
    with in_code_of(costs, f"costs: {name}"):
        answer = getattr(costs, method)(told)
    if not callable(getattr(answer, "on", None)):
        raise UserError(f"costs: {name} must return a cost model, with a method on(placement), got {quoted(answer)}")
    return cast("Costs", answer)


def _no_phases(costs: StageCosts, answer: object, task: TaskShape) -> str:
    name = type(costs).__qualname__
    return f"costs: {name}.phases must return a tuple of phases, got {quoted(answer)} for {_named(task)}"


def _fault(phase: Phase, place: int, task: TaskShape, sound: set[int]) -> str:
    """Return what no engine can play about a task's phase, or an empty string; ``sound`` flows are, and grow."""
    told: tuple[Any, ...] = phase
    lane, duration_s, kind, name, layer, half, after, flows, alone_s, kernels, late = told
    what = ""  # (asked of every phase of a run, so without a call where nothing is wrong)
    if not (isinstance(duration_s, _NUMBERS) and 0 <= duration_s < inf):
        what = f"takes {_seconds(duration_s)}"
    elif lane not in _LANES_OF_OPS and not (lane == Lane.DATA and task[0][0] in OF_WEIGHTS):
        what = _wrong_lane(lane, name)
    elif not (isinstance(kind, _WHOLE) and 0 <= kind < _KIND_NUMBERS):
        what = f"has a phase {quoted(name)} of kind {quoted(kind)}; kinds are {_KINDS}"
    elif not (alone_s is None or _is_size(alone_s)):
        what = f"takes, alone, {_seconds(alone_s)}"
    elif not (isinstance(kernels, _WHOLE) and kernels >= 0):
        what = f"has a phase {quoted(name)} of {quoted(kernels)} kernels; it must be a whole number, 0 or more"
    elif not isinstance(late, bool):
        what = f"has a phase {quoted(name)} that is late by {quoted(late)}; it is, or it is not"
    elif not (isinstance(half, _WHOLE) and 0 <= half < len(task)):
        or_1 = ", or 1 for the backward" if len(task) > 1 else ""
        what = f"has a phase {quoted(name)} of half {quoted(half)}; it must be 0{or_1}"
    elif after and not (
        isinstance(after, (tuple, list)) and all(isinstance(one, _WHOLE) and 0 <= one < place for one in after)
    ):
        waits = f"it is number {place} from 0, and waits for earlier ones by number"
        what = f"has a phase {quoted(name)} after {quoted(after)}; {waits}"
    elif not (isinstance(name, str) and isinstance(layer, _WHOLE)):
        what = f"has a phase {quoted(name)} of layer {quoted(layer)}; a name is text and a layer a whole number"
    elif flows and id(flows) not in sound:
        if not all(isinstance(one, Flow) and _can_flow(one) for one in flows):
            what = (
                f"has a phase {quoted(name)} with flows {quoted(flows)}; each must be a Flow of 0 bytes or more{_WAY}"
            )
        sound.add(id(flows))
    return f"{_named(task)} {what}" if what else ""


def _wrong_lane(lane: object, name: object) -> str:
    if lane == Lane.DATA:
        return f"has a phase on lane {Lane.DATA}, which only gathers weights and reduces gradients"
    return f"has a phase {quoted(name)} on lane {lane!r}; phases run on {_LANES}"


def _can_flow(flow: Flow) -> bool:
    told: tuple[Any, ...] = flow
    tier, size_bytes, cap = told
    return tier in TIERS and _is_size(size_bytes) and isinstance(cap, _NUMBERS) and bool(cap > 0)


def _is_size(value: object) -> bool:
    return isinstance(value, _NUMBERS) and bool(0 <= value < inf)


def _named(task: TaskShape) -> str:
    return " and ".join(f"{Kind(kind)} of stage {stage}" for kind, stage in task)


def _seconds(value: object) -> str:
    return f"{value} s; {_FINITE}" if isinstance(value, _NUMBERS) else f"{quoted(value)}, which is no number of seconds"
