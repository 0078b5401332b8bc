"""Which rank holds which stage, how stages chain into pipes, and which share of the model a stage holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.show import line
from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError

PlacementName: TypeAlias = Literal["loop", "v", "bidirectional", "explicit"]
"""How the stages of an order from a file lie: ``explicit`` is one pipe, each stage on the rank whose row names it."""


@dataclass(frozen=True)
class Placement:
    """Stages on ranks.

    Stage ids are global: pipe 0 has stages 0…S-1, pipe 1 has S…2S-1, and so on. Every pipe holds the whole
    model once, cut into equally deep stages, so stage k of two pipes is the same share of the model.

    >>> placement = v_shape(2)
    >>> placement.stages, placement.stages_of_rank(0), placement.share_of_stage.tolist()
    (4, [0, 3], [0.25, 0.25, 0.25, 0.25])

    Attributes:
        ranks: how many pipeline ranks there are.
        pipes: for each pipe, the rank of each of its stages in the order micro-batches flow through them.

    """

    ranks: int
    pipes: tuple[tuple[int, ...], ...]

    def __repr__(self) -> str:
        stages, pipes = number_of(self.stages, "stage"), number_of(len(self.pipes), "pipe")
        return line(self, f"{stages} of {pipes} on {number_of(self.ranks, 'rank')}")

    @property
    def stages(self) -> int:
        """Number of stages over all pipes."""
        return sum(len(pipe) for pipe in self.pipes)

    @cached_property
    def rank_of_stage(self) -> IntArray:
        """Rank of each stage, shape ``(stages,)``."""
        return np.concatenate([np.asarray(pipe, dtype=np.int64) for pipe in self.pipes])

    @cached_property
    def pipe_of_stage(self) -> IntArray:
        """Pipe of each stage, shape ``(stages,)``."""
        return np.repeat(np.arange(len(self.pipes)), [len(pipe) for pipe in self.pipes])

    @cached_property
    def depth_of_stage(self) -> IntArray:
        """Place of each stage in its own pipe, from 0, shape ``(stages,)``."""
        return np.concatenate([np.arange(len(pipe)) for pipe in self.pipes])

    @cached_property
    def pipe_depth(self) -> IntArray:
        """Number of stages of each stage's own pipe, shape ``(stages,)``."""
        return np.array([len(pipe) for pipe in self.pipes])[self.pipe_of_stage]

    @cached_property
    def share_of_stage(self) -> FloatArray:
        """Share of the model that each stage holds, shape ``(stages,)``; a pipe's shares sum to 1."""
        return 1.0 / self.pipe_depth

    @cached_property
    def activations_of_stage(self) -> FloatArray:
        """Each stage's share of the model in units of 1/ranks, a whole rank's share, shape ``(stages,)``."""
        return self.ranks / self.pipe_depth

    def overlap(self, cuts: int) -> FloatArray:
        """How much of each of ``cuts`` equal cuts of the model lies in each stage, shape ``(stages, cuts)``.

        In units of 1/(pipe depth x cuts) everything is whole, so that a stage that is one cut has exactly 1 of it. Two
        stages and three cuts: ``[[1, 0.5, 0], [0, 0.5, 1]]``.
        """
        depth, begin = self.pipe_depth[:, None], (self.depth_of_stage * cuts)[:, None]
        cut = np.arange(cuts) * depth
        inside = np.minimum(begin + cuts, cut + depth) - np.maximum(begin, cut)
        return np.asarray(np.maximum(inside, 0) / depth, dtype=np.float64)

    @cached_property
    def is_first(self) -> BoolArray:
        """Whether a stage is where its pipe begins, shape ``(stages,)``."""
        first: BoolArray = self.depth_of_stage == 0
        return first

    @cached_property
    def is_last(self) -> BoolArray:
        """Whether a stage is where its pipe ends, shape ``(stages,)``."""
        last: BoolArray = np.append(self.depth_of_stage[1:] == 0, True)
        return last

    @cached_property
    def first_stage_of_rank(self) -> IntArray:
        """First stage of each rank that has any, shape ``(ranks,)``: what S and T of the rank are named by."""
        return np.unique(self.rank_of_stage, return_index=True)[1]

    def stages_of_rank(self, rank: int) -> list[int]:
        """Stages that a rank holds, lowest first."""
        return [int(stage) for stage in np.flatnonzero(self.rank_of_stage == rank)]


def loop(ranks: int, stages_per_rank: int = 1) -> Placement:
    """One pipe that passes over the ranks ``stages_per_rank`` times: stage s on rank s mod ranks.

    >>> loop(2, stages_per_rank=2).pipes
    ((0, 1, 0, 1),)
    """
    return Placement(ranks, (tuple(range(ranks)) * stages_per_rank,))


def linear(ranks: int) -> Placement:
    """One pipe with one stage a rank: stage r on rank r.

    >>> linear(4).pipes
    ((0, 1, 2, 3),)
    """
    return loop(ranks)


def zigzag(ranks: int, turns: int) -> Placement:
    """One pipe that runs down the ranks and back up, ``turns`` times: 2·ranks·turns stages.

    >>> zigzag(2, turns=2).pipes
    ((0, 1, 1, 0, 0, 1, 1, 0),)
    """
    return Placement(ranks, ((*range(ranks), *reversed(range(ranks))) * turns,))


def v_shape(ranks: int) -> Placement:
    """One pipe of 2·ranks stages: rank r holds stages r and 2·ranks-1-r.

    >>> v_shape(3).pipes
    ((0, 1, 2, 2, 1, 0),)
    """
    return zigzag(ranks, 1)


def opposed(ranks: int, pairs: int = 1) -> Placement:
    """Pipes in opposite directions: rank r holds stage r of pipe 0 and stage ranks-1-r of pipe 1.

    With more pairs, the pipes of pair j start ranks/pairs · j ranks further on, around the ring; ``pairs`` divides
    ``ranks``. Even pipes run down, odd ones up (Chimera, https://arxiv.org/abs/2107.06925, section 3.6).

    >>> opposed(3).pipes
    ((0, 1, 2), (2, 1, 0))
    """
    pipes: list[tuple[int, ...]] = []
    for pair in range(pairs):
        down = tuple((ranks // pairs * pair + depth) % ranks for depth in range(ranks))
        pipes += [down, down[::-1]]
    return Placement(ranks, tuple(pipes))


def stages_to_fill(name: PlacementName, ranks: int, stages: int) -> int:
    """Return the least number of stages, at least ``stages``, that a placement of this name can have."""
    unit = {"loop": ranks, "v": 2 * ranks, "bidirectional": 2 * ranks, "explicit": 1}[name]
    return -(-stages // unit) * unit


def named(name: Literal["loop", "v", "bidirectional"], ranks: int, stages: int) -> Placement:
    """Return the placement of so many stages, over all pipes, that a user chose by name.

    Args:
        name: ``loop``, ``v`` (one pipe down the ranks and back, once or more often) or ``bidirectional`` (two pipes
            in opposite directions, or more pairs of them).
        ranks: pipeline ranks.
        stages: highest stage number + 1.

    Raises:
        ScheduleError: a number of stages that this placement cannot have.

    """
    if stages != stages_to_fill(name, ranks, stages):
        unit = stages_to_fill(name, ranks, 1)
        raise ScheduleError(
            f"placement '{name}' on {number_of(ranks, 'rank')} has a multiple of {number_of(unit, 'stage')}, "
            f"got {stages}"
        )
    if name == "loop":
        return loop(ranks, stages // ranks)
    turns = stages // (2 * ranks)
    if name == "v":
        return zigzag(ranks, turns)
    if ranks % turns:
        raise ScheduleError(
            f"placement 'bidirectional' with {number_of(stages, 'stage')} has {turns} pairs of pipes; "
            f"they must divide {number_of(ranks, 'rank')}"
        )
    return opposed(ranks, turns)
