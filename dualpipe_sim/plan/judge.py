"""What can be said of a candidate without running it: whether it can be, the least memory, the least step time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import numpy as np

from dualpipe_sim.analysis.step import optimizer_s
from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.units import in_gb
from dualpipe_sim.bounds.limited import MemoryLimit
from dualpipe_sim.bounds.makespan import busiest_rank_s, order_bound_s, placement_bound_s
from dualpipe_sim.bounds.memory import StageBytes, least_memory_bytes, stage_bytes
from dualpipe_sim.bounds.tasks import Known
from dualpipe_sim.costs.layers import LayerCosts, LayerStageCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.hardware.cluster import Topology
from dualpipe_sim.model.footprint import State, state_by_rank
from dualpipe_sim.model.layout import LayoutChoice
from dualpipe_sim.order.ops import COPIES, R, Vocabulary
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.plan.space import Candidate, choice_at, costs_at
from dualpipe_sim.schedules.registry import spec

SIZES, SAME, STATIC, ACTIVATIONS, WORK, BOUND, MEMORY, FAILED = (
    "sizes",
    "same",
    "state",
    "activations",
    "work",
    "bound",
    "memory",
    "failed",
)
"""Why a candidate is ruled out: it cannot be at these sizes; it is another one by another name; its state alone does
not fit, or with the activations that its order surely holds; its busiest rank's work alone, or the bound on its step,
is above the best found; it was run and does not fit; it was run and failed."""


_ROUNDING = 1 - 1e-9  # sums of the same seconds in another order


@dataclass(frozen=True)
class Verdict:
    """What is known of a candidate.

    Attributes:
        reason: why it is ruled out, or None.
        detail: the same in a sentence.
        step_s: seconds that its step is not below.
        work_s: seconds that its busiest rank works and its optimizer takes.
        any_order_s: seconds that no order's step is below on its placement, within the memory of its GPUs.
        memory_bytes: bytes that its fullest rank's peak is not below.

    """

    reason: str | None = None
    detail: str = ""
    step_s: float = 0.0
    work_s: float = 0.0
    any_order_s: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, eq=False)
class _Placed:
    """Costs on a placement, and what of a step depends on nothing else.

    Attributes:
        costs: the costs of each stage.
        placement: the placement.
        topology: the links between its ranks.
        sizes: bytes on its GPUs.
        end_s: seconds of the optimizer, which every step ends with.
        known: what is known of its tasks, on other placements too.

    """

    costs: LayerStageCosts
    placement: Placement
    topology: Topology
    sizes: StageBytes
    end_s: float
    known: Known

    @cached_property
    def any_order_s(self) -> dict[tuple[int, ...], float]:
        """Bounds on the step of any order, as they become known, by micro-batches of each pipe."""
        return {}

    def any_order_bound_s(self, of_pipe: tuple[int, ...]) -> float:
        """Return seconds that no order's step is below within the memory of the GPUs."""
        if of_pipe not in self.any_order_s:
            room = np.maximum(self.costs.gpu.memory_bytes - self.sizes.state, 0).astype(np.float64)
            limit = MemoryLimit(self.sizes.activations.astype(np.float64), room, from_start=False)
            bound_s = placement_bound_s(
                self.placement,
                of_pipe,
                self.costs,
                self.topology,
                limit=limit,
                how=self.costs.costs.vocabulary,
                known=self.known,
            )
            self.any_order_s[of_pipe] = (bound_s + self.end_s) * _ROUNDING
        return self.any_order_s[of_pipe]

    def too_much(self, least: IntArray, what: str) -> Verdict | None:
        """Return the verdict on ranks that need so much, ``what`` included, if a GPU has less."""
        for reason, where, size_bytes in ((STATIC, "for state alone", self.sizes.state), (ACTIVATIONS, what, least)):
            rank = int(size_bytes.argmax())
            if size_bytes[rank] > self.costs.gpu.memory_bytes:
                has_gb, needs_gb = in_gb(self.costs.gpu.memory_bytes, ""), in_gb(float(size_bytes[rank]), "")
                detail = f"rank {rank} needs {needs_gb} GB {where}, its GPU has {has_gb}"
                return Verdict(reason, detail, memory_bytes=int(least.max()))
        return None


class Judge:
    """Judges the candidates of one experiment; what several share is made once."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._costs: dict[tuple[object, ...], LayerCosts] = {}
        self._placed: dict[tuple[object, ...], _Placed] = {}
        self._states: dict[tuple[object, ...], State] = {}
        self._orders: dict[tuple[object, ...], Schedule] = {}
        self._layouts: dict[tuple[object, ...], LayoutChoice] = {}
        self._known: dict[tuple[object, ...], Known] = {}
        self._topologies: dict[tuple[int, int], Topology] = {}

    def __call__(self, candidate: Candidate) -> Verdict:
        """Return what is known of a candidate without running it."""
        try:
            if candidate.setting not in self._costs:
                costs = costs_at(self._experiment, candidate)
                self._costs[candidate.setting] = costs.on_cluster(self._experiment.cluster)
            micro_batches = choice_at(self._experiment, candidate).micro_batches
            chosen = spec(candidate.schedule)
            if chosen.adapts_to_times:  # its order takes long to find
                how: Vocabulary | None = (
                    "one barrier" if chosen.cuts_vocabulary else None
                )  # F and B are as with any other
                placed = self._on(self.placement(candidate), candidate, how)
                return self._of_placement(placed, (micro_batches,))
            order = self._order(candidate, micro_batches)
            placed = self._on(order.placement, candidate, order.vocabulary)
            setting = (candidate.label, micro_batches, placed.costs.stage_layers, candidate.setting_of("any layout"))
            other = self._layouts.setdefault(setting, candidate.layout)
            if other != candidate.layout:
                return Verdict(SAME, f"the same layers are on each stage with layout {other}")
            return self._of_order(placed, order)
        except UserError as error:
            return Verdict(SIZES, str(error))

    def placement(self, candidate: Candidate) -> Placement:
        """Return where a candidate's stages are."""
        chosen = spec(candidate.schedule)
        if chosen.adapts_to_times:
            return chosen.placement(candidate.ranks, candidate.options)
        return self._order(candidate, choice_at(self._experiment, candidate).micro_batches).placement

    def room(self, candidate: Candidate) -> tuple[float, float]:
        """Return how many activations every rank surely has room for beside its state, and the bytes of one there.

        An activation is a micro-batch's through as many stages as a rank has, each as large as its largest.

        Raises:
            UserError: stages that the layers cannot be shared out over.

        """
        if candidate.setting not in self._costs:
            costs = costs_at(self._experiment, candidate)
            self._costs[candidate.setting] = costs.on_cluster(self._experiment.cluster)
        placement = self.placement(candidate)
        placed = self._on(placement, candidate, None)
        free = placed.costs.gpu.memory_bytes - placed.sizes.state
        found = []
        for rank in range(placement.ranks):
            stages = placement.stages_of_rank(rank)
            one_bytes = max(1.0, len(stages) * float(placed.sizes.activations[stages].max()))
            found.append((float(free[rank]) / one_bytes, one_bytes))
        return min(found)

    def _order(self, candidate: Candidate, micro_batches: int) -> Schedule:
        key = (candidate.label, candidate.ranks, micro_batches)
        if key not in self._orders:
            self._orders[key] = spec(candidate.schedule).build(candidate.ranks, micro_batches, candidate.options)
        return self._orders[key]

    def _on(self, placement: Placement, candidate: Candidate, how: Vocabulary | None) -> _Placed:
        key = (placement, candidate.setting, how)
        if key not in self._placed:
            costs = replace(self._costs[candidate.setting], vocabulary=how).on(placement)
            state = self._state(placement, costs)
            ends = costs.job.step_end.optimizer
            end_s = float(optimizer_s(state, costs.job.recipe, costs.gpu).max()) if ends else 0.0
            topology = self._topology(placement.ranks, costs.job.parallel.gpus)
            sizes = stage_bytes(costs, np.sum(state, axis=0))
            known = self._known.setdefault((*candidate.setting_of("any layout"), how), {})
            self._placed[key] = _Placed(costs, placement, topology, sizes, end_s, known)
        return self._placed[key]

    def _topology(self, ranks: int, gpus: int) -> Topology:
        """Return the links between ranks of so many GPUs; a topology keeps the routes that it was asked for."""
        if (ranks, gpus) not in self._topologies:
            self._topologies[ranks, gpus] = self._experiment.cluster.topology(ranks, gpus)
        return self._topologies[ranks, gpus]

    def _state(self, placement: Placement, costs: LayerStageCosts) -> State:
        job = costs.job
        key = (placement, costs.stage_layers, job.parallel, job.recipe, costs.buffer_bytes)
        if key not in self._states:
            self._states[key] = state_by_rank(job, costs.stage_layers, placement, costs.buffer_bytes)
        return self._states[key]

    def _of_order(self, placed: _Placed, order: Schedule) -> Verdict:
        least = least_memory_bytes(order, placed.sizes)
        too_much = placed.too_much(least, "with its activations")
        if too_much is not None:
            return too_much
        work_s = (busiest_rank_s(order, placed.costs, known=placed.known) + placed.end_s) * _ROUNDING
        return Verdict(
            step_s=(order_bound_s(order, placed.costs, placed.topology, known=placed.known) + placed.end_s) * _ROUNDING,
            work_s=work_s,
            any_order_s=placed.any_order_bound_s(order.micro_batches_of_pipe) if _is_plain(order) else work_s,
            memory_bytes=int(least.max()),
        )

    def _of_placement(self, placed: _Placed, of_pipe: tuple[int, ...]) -> Verdict:
        """Judge an order that is not known yet by what is true of every order; each holds one micro-batch at least."""
        sizes, placement = placed.sizes, placed.placement
        most = [int(sizes.activations[placement.stages_of_rank(rank)].max()) for rank in range(placement.ranks)]
        least = sizes.state + np.array(most)
        too_much = placed.too_much(least, "with one micro-batch")
        if too_much is not None:
            return too_much
        any_order_s = placed.any_order_bound_s(of_pipe)
        return Verdict(step_s=any_order_s, any_order_s=any_order_s, memory_bytes=int(least.max()))


def _is_plain(order: Schedule) -> bool:
    """Whether bounds of any order hold for an order; with slices, forwards again or copies it may be faster."""
    return order.slices == 1 and not order.of_kinds(R, *COPIES).any()


def ruled_out(verdict: Verdict, cutoff_s: float) -> Verdict:
    """Return the verdict once as many as are asked for are known to take no longer than ``cutoff_s``."""
    if verdict.reason is not None or verdict.step_s <= cutoff_s or cutoff_s == inf:
        return verdict
    by_work = verdict.work_s > cutoff_s
    least_s, what = (verdict.work_s, "its busiest rank works") if by_work else (verdict.step_s, "its step takes")
    detail = f"{what} at least {least_s:.4g} s, those above {cutoff_s:.4g} s or less"
    return Verdict(
        WORK if by_work else BOUND, detail, verdict.step_s, verdict.work_s, verdict.any_order_s, verdict.memory_bytes
    )
