"""How long each part of a problem takes, and over which links its bytes go, as ``docs/model.md`` has it."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate

from tests.referee.fluid import Activity, Flow, Link
from tests.referee.problem import Cost, Links, Op, Part, Problem, Tensor, Uniform, shape_of, tasks_of

_LANES = {
    "UNSHARD": ("data", "unshard"),
    "REDUCE_GRAD": ("data", "reduce_grad"),
    "RESHARD": ("compute", "unshard"),
    "O": ("copy", "offload"),
    "L": ("copy", "offload"),
}
"""Of what takes no compute: its lane, and what it takes; to free weights takes nothing."""


class Times:
    """The seconds of one problem's tasks and transfers."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.pipe_of_stage = [pipe for pipe, ranks in enumerate(problem.pipes) for _ in ranks]
        self.depth_of_stage = [depth for pipe in problem.pipes for depth in range(len(pipe))]
        self.rank_of_stage = [rank for pipe in problem.pipes for rank in pipe]
        ops = [op for row in problem.order for task in tasks_of(row) for op in task if len(op.letter) == 1]
        self.slices = 1 + max(op.slice for op in ops)
        of_pipe = [
            1 + max(op.micro_batch for op in ops if self.pipe_of_stage[op.stage] == pipe)
            for pipe in range(len(problem.pipes))
        ]
        self._before = [0, *accumulate(of_pipe)]
        self.together = any(op.letter == "S" for op in ops) and not any(op.letter == "T" for op in ops)
        self.bandwidth: dict[Link, float] = {}

    # How large micro-batches are.

    def size(self, op: Op) -> float:
        """Return how large an op's tensors are over those of a mean micro-batch."""
        if len(op.letter) > 1:
            return 1.0
        weights = self.problem.weights
        number = self._before[self.pipe_of_stage[op.stage]] + op.micro_batch
        return (1.0 if weights is None else weights[int(number * self.problem.share)]) / self.slices

    def weight(self, op: Op) -> float:
        """Return how long an op takes over that of a mean micro-batch."""
        shares = self.problem.slices
        of_slice = 1.0 if shares is None or len(op.letter) > 1 else shares[op.slice] * self.slices
        return self.size(op) * of_slice

    # Tasks.

    def parts_of(self, task: tuple[Op, ...]) -> list[Part]:
        """Return a task's parts, as long as its micro-batches make them."""
        if self.problem.costs is not None:
            return self._uniform(self.problem.costs, task)
        parts = self.problem.parts.get(shape_of(task))
        if parts is None:
            return [Part("compute" if task[0].letter == "RESHARD" else "data", 0.0)]
        if len(task) == 2 and not any(part.half for part in parts):
            return [_scaled(part, self._of_both(task, part.lane)) for part in parts]
        return [_scaled(part, self.weight(task[part.half])) for part in parts]

    def _of_both(self, task: tuple[Op, ...], lane: str) -> float:
        """Return how much longer two ops take on a lane, in turn, than those of two mean micro-batches."""
        alone = [sum(part.seconds for part in self.problem.parts[shape_of((op,))] if part.lane == lane) for op in task]
        weighed = sum(seconds * self.weight(op) for seconds, op in zip(alone, task, strict=True))
        return weighed / sum(alone) if sum(alone) else 1.0

    def _uniform(self, costs: Uniform, task: tuple[Op, ...]) -> list[Part]:
        first = task[0]
        if first.letter in _LANES:
            lane, cost = _LANES[first.letter]
            seconds = self._stage(getattr(costs, cost), first) * (self._times(first) if lane == "copy" else 1.0)
            return [Part(lane, seconds if first.letter != "RESHARD" else 0.0)]
        summed = sum(self._stage(costs.all_reduce, op) * self._times(op) for op in task if op.letter in "FRBI")
        after_all = Part("compute", 0.0, after=(1,))  # what has both ends with the later
        if len(task) == 2:
            pair = Part("compute", self._pair(costs, task))
            return [pair, Part("alltoall", summed), after_all] if summed else [pair]
        if not summed:
            return [Part("compute", self._op(costs, first))]
        if first.letter != "B":
            return [Part("compute", self._op(costs, first)), Part("alltoall", summed, after=(0,))]
        inputs, weights = (Part("compute", self._op(costs, first._replace(letter=letter))) for letter in "IW")
        return [inputs, Part("alltoall", summed, after=(0,)), weights, after_all]

    def _pair(self, costs: Uniform, task: tuple[Op, ...]) -> float:
        """Return a pair's seconds: the overlapped time, as much longer as its two ops would be in turn."""
        weighed = sum(self._op(costs, op) for op in task)
        if costs.overlapped is None or task[1].letter != "B":
            return weighed
        together = sum(self._stage(costs.overlapped, op) for op in task) / 2 * self.problem.share
        plain = sum(self._mean(costs, op) for op in task) * self.problem.share
        return together * (weighed / plain if plain else 1.0)

    def _op(self, costs: Uniform, op: Op) -> float:
        return self._mean(costs, op) * self._times(op)

    def _times(self, op: Op) -> float:
        return self.weight(op) * self.problem.share

    def _mean(self, costs: Uniform, op: Op) -> float:
        """Return the seconds of an op of a whole mean micro-batch."""
        of_letter = {
            "F": costs.forward, "I": costs.backward_input, "W": costs.backward_weight,
            "R": costs.forward if costs.recompute is None else costs.recompute,
        }  # fmt: skip
        if op.letter == "B":
            return sum(self._stage(of_letter[letter], op) for letter in "IW")
        if op.letter in "ST":
            letters = "ST" if self.together else op.letter
            passes = [{"S": costs.vocab_s, "T": costs.vocab_t}[letter] for letter in letters]
            rank = self.rank_of_stage[op.stage]
            return sum(one[rank] if isinstance(one, list) else one or 0.0 for one in passes)
        return self._stage(of_letter[op.letter], op)

    def _stage(self, cost: Cost, op: Op) -> float:
        """Return a stage's share: a list's entries are equal parts of the model's depth, of which it spans some."""
        depth = len(self.problem.pipes[self.pipe_of_stage[op.stage]])
        if not isinstance(cost, list):
            return (cost or 0.0) * self.problem.ranks / depth
        begin, end = (Fraction(self.depth_of_stage[op.stage] + one, depth) for one in (0, 1))
        total = 0.0
        for number, seconds in enumerate(cost):
            inside = min(end, Fraction(number + 1, len(cost))) - max(begin, Fraction(number, len(cost)))
            total += seconds * float(max(inside, Fraction(0)) * len(cost))
        return total

    # What is under way.

    def activity(self, part: Part, rank: int) -> Activity:
        """Return a part as it runs on a rank."""
        exchanges = part.lane == "alltoall"
        if not (self.problem.contention and part.flows):
            return Activity(part.seconds, (), part.alone, rank, exchanges)
        links = self.problem.links
        assert links is not None
        flows, slowest = [], 0.0
        for tier, size, cap in part.flows:
            own = tuple((way, tier, links.gpu_of_rank[rank]) for way in ("out", "in"))
            self.bandwidth |= dict.fromkeys(own, getattr(links, tier)[0])
            flows.append(Flow(size, own, cap))
            slowest = max(slowest, size / min(cap, getattr(links, tier)[0]))
        return Activity(max(part.seconds - slowest, 0.0), tuple(flows), None, rank, exchanges)

    def transfer(self, tensor: Tensor, maker: Op, source: int, target: int) -> Activity:
        """Return a tensor's way from a rank to another."""
        boundary = self.depth_of_stage[tensor.stage] - tensor.forward
        ((unit, amount),) = self.problem.transfer.items()
        if isinstance(amount, list):
            amount = amount[boundary]
        amount = amount * self.problem.share * self.size(maker)
        if unit == "s":
            return Activity(amount)
        links = self.problem.links
        assert links is not None
        latency, way = _route(links, source, target)
        self.bandwidth |= way
        narrowest = min(way.values())
        if self.problem.contention and amount:
            return Activity(latency, (Flow(amount, tuple(way)),))
        return Activity(latency + amount / narrowest)


def _route(links: Links, source: int, target: int) -> tuple[float, dict[Link, float]]:
    """Return the latency and the links between two ranks, with what each has."""
    gpus = links.gpu_of_rank[source], links.gpu_of_rank[target]
    if gpus[0] // links.gpus_per_node == gpus[1] // links.gpus_per_node:
        speed, latency = links.nvlink
        return latency, {("out", "nvlink", gpus[0]): speed, ("in", "nvlink", gpus[1]): speed}
    speed, latency = links.infiniband
    way: dict[Link, float] = {("out", "infiniband", gpus[0]): speed, ("in", "infiniband", gpus[1]): speed}
    if links.gpus_per_pod:
        pods = [gpu // links.gpus_per_pod for gpu in gpus]
        if pods[0] != pods[1]:
            for side, pod in zip(("up", "down"), pods, strict=True):
                ranks = sum(gpu // links.gpus_per_pod == pod for gpu in links.gpu_of_rank)
                way[side, pod] = ranks * speed / links.oversubscription
    return latency, way


def _scaled(part: Part, by: float) -> Part:
    flows = tuple((tier, size * by, cap) for tier, size, cap in part.flows)
    return part._replace(seconds=part.seconds * by, flows=flows, alone=None if part.alone is None else part.alone * by)
