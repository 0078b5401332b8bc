"""What is asked: a model's layers, the ranks that share them, what they may hold; and one answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

from dualpipe_sim.base.show import brief
from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.ops import B, F, I, Kind, R, W
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.order.schedule import Schedule

FORWARD, INPUT, WEIGHT, AGAIN = range(4)
"""Numbers of what an op does, in rows by them; where backwards are whole, ``INPUT`` is all of one. ``AGAIN`` is a
forward that runs again."""

_INPUT_OF_LAYER = 1 / 17
"""A transformer layer's input of its activations: 2 of 34 bytes a token and hidden unit (Korthikanti et al. 2022,
https://arxiv.org/abs/2205.05198, section 4, where attention keeps no scores)."""

Lines = list[list[tuple[int, int, int]]]
"""The ops of each rank in the order they run: what each does, stage, micro-batch."""


class Answer(NamedTuple):
    """A partition, a placement, and whose turn it is where a rank has several ops to choose from.

    Attributes:
        cuts: the first layer of each stage and, last, the number of layers.
        rank_of_stage: the rank of each stage.
        again: whether each stage's forward runs again before its backward, so that it keeps its input alone.
        turn: by ``FORWARD``, ``INPUT`` and ``WEIGHT``, for each stage the turn of its op of micro-batch 0; that of
            micro-batch i comes i later, and the op with the earliest turn runs.
        waits: whether a rank runs its forwards strictly in turn, and waits for the next, as where room is short;
            else the one runs that is there.

    """

    cuts: tuple[int, ...]
    rank_of_stage: tuple[int, ...]
    again: tuple[bool, ...]
    turn: tuple[tuple[float, ...], ...]
    waits: bool = False

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return len(self.rank_of_stage)

    @property
    def partition(self) -> tuple[int, ...]:
        """How many layers each stage holds."""
        return tuple(end - begin for begin, end in pairwise(self.cuts))


@dataclass(frozen=True)
class Problem:
    """Layers in a row, to be cut into stages and run by ranks in some order, as fast as can be.

    Attributes:
        ranks: pipeline ranks.
        micro_batches: micro-batches of a step.
        layer_s: seconds of each layer's forward, backward for the input and for the weights, for one micro-batch.
        hop_s: seconds that a stage boundary's tensor is under way between two ranks.
        most_stages: most stages that the model may be cut into.
        most_activations: most activations that a rank may hold at once, each of 1/ranks of the layers of a micro-batch,
            from the start of F to the end of W; None for any number.
        split: whether W is an op of its own; else the backward is whole.
        recompute: whether stages' forwards may run again, so that they keep their inputs alone until then.

    """

    ranks: int
    micro_batches: int
    layer_s: tuple[tuple[float, float, float], ...]
    hop_s: float = 0.0
    most_stages: int = 0
    most_activations: float | None = None
    split: bool = True
    recompute: bool = False

    __repr__ = brief

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.layer_s)

    @property
    def input_share(self) -> float:
        """What a stage's input holds, in activations of 1/ranks of the layers."""
        return _INPUT_OF_LAYER * self.ranks / self.layers

    @cached_property
    def until_s(self) -> tuple[list[float], list[float], list[float]]:
        """Seconds of all layers before each, and last of all, by what is done; each of length layers + 1."""
        of_layers = (
            self.layer_s if self.split else [(forward, into + weight, 0.0) for forward, into, weight in self.layer_s]
        )
        forward, backward, weight = (list(accumulate(seconds, initial=0.0)) for seconds in zip(*of_layers, strict=True))
        return forward, backward, weight

    @cached_property
    def work_until_s(self) -> list[float]:
        """Seconds of all work of the layers before each, for all micro-batches; length layers + 1."""
        return [self.micro_batches * sum(all_of) for all_of in zip(*self.until_s, strict=True)]

    @property
    def mean_work_s(self) -> float:
        """Seconds of a rank's work if all had the same."""
        return self.work_until_s[-1] / self.ranks

    def stage_s(self, cuts: Sequence[int]) -> tuple[list[float], ...]:
        """Return the seconds of each stage's op, by what it does."""
        return tuple([until[end] - until[begin] for begin, end in pairwise(cuts)] for until in self.until_s)

    def work_s(self, cuts: Sequence[int], rank_of_stage: Sequence[int]) -> list[float]:
        """Return the seconds of each rank's work."""
        work, until = [0.0] * self.ranks, self.work_until_s
        for (begin, end), rank in zip(pairwise(cuts), rank_of_stage, strict=True):
            work[rank] += until[end] - until[begin]
        return work

    def schedule(self, answer: Answer, lines: Lines) -> Schedule:
        """Return an order as a schedule; no stage is named of a rank that has none."""
        placement = Placement(self.ranks, (answer.rank_of_stage,))
        kinds: tuple[Kind, ...] = (F, I, W, R) if self.split else (F, B, W, R)
        builder = OrderBuilder(placement, (self.micro_batches,))
        for rank, ops in enumerate(lines):
            line = builder.rank(rank)
            for does, stage, micro_batch in ops:
                line.op(kinds[does], stage, micro_batch)
        return builder.schedule("searched")
