"""Stage layouts: which layers of a model each stage of a pipe holds, and where embedding, head and MTP sit.

Stages hold layers in order, so a split is a row of cuts: cut s is the number of layers before stage s. ``balanced``
finds the best cuts by two dynamic programs over (stages so far, layers so far), one after the other: the first finds
how fast the slowest stage can be, the second, among all splits that are that fast, the most even one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise
from math import inf
from typing import TypeAlias

import numpy as np

from dualpipe_sim.base.arrays import FloatArray, IntArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.base.units import number_of
from dualpipe_sim.errors import ScheduleError, UserError, quoted
from dualpipe_sim.model.pattern import unroll

EVEN, BALANCED = "even", "balanced"

LayoutChoice: TypeAlias = str | tuple[int, ...]
"""``even``, ``balanced``, a Megatron layout string, or how many layers each stage holds."""


@dataclass(frozen=True)
class StageLayers:
    """What one stage holds, in the order of the forward pass.

    Attributes:
        layers: numbers of its transformer layers, in the model from 0.
        embedding: whether the token embedding is here.
        mtp: multi-token prediction modules here, each a projection and a layer.
        head: whether the head and the loss of the model itself are here.
        mtp_heads: how many passes through the head, with their losses, for multi-token prediction are here.
        vocabulary_over: ranks that share embedding and head out, one share of which is here; the head's is worked on in
            ops of its own (S and T). 0 where embedding and head are whole.

    """

    layers: tuple[int, ...]
    embedding: bool = False
    mtp: int = 0
    head: bool = False
    mtp_heads: int = 0
    vocabulary_over: int = 0

    __repr__ = brief

    @property
    def empty(self) -> bool:
        """Whether nothing is here for F and backward."""
        return not (self.layers or self.embedding or self.mtp or self.heads)

    @property
    def has_head(self) -> bool:
        """Whether the head's matrix is needed here."""
        return self.head or self.mtp_heads > 0

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the passes through the head in F and backward, in order."""
        return () if self.vocabulary_over else self.passes

    @property
    def passes(self) -> tuple[str, ...]:
        """The names of the passes through the head here, in order."""
        return ("head",) * self.head + mtp_head_names(self.mtp_heads)


def mtp_head_names(passes: int) -> tuple[str, ...]:
    """Return the names of so many passes through the head for multi-token prediction.

    >>> mtp_head_names(2)
    ('mtp head', 'mtp head 2')
    """
    return ("mtp head", *(f"mtp head {number}" for number in range(2, passes + 1)))[:passes]


def vocabulary_shared_out(stages: Sequence[StageLayers], holders: Collection[int]) -> tuple[StageLayers, ...]:
    """Return stages of which some, one of each rank, hold a share of embedding and head each, and no other any.

    >>> [one.vocabulary_over for one in vocabulary_shared_out(with_ends((1, 1), 0), [0, 1])]
    [2, 2]
    """
    head, mtp_heads = any(one.head for one in stages), sum(one.mtp_heads for one in stages)
    return tuple(
        replace(one, head=head and here, mtp_heads=mtp_heads * here, vocabulary_over=len(holders) * here)
        for one, here in ((one, stage in holders) for stage, one in enumerate(stages))
    )


@dataclass(frozen=True)
class DepthTimes:
    """How long each part of a model takes for one micro-batch, for :func:`balanced`.

    Attributes:
        layers_s: seconds of each layer.
        before_s: seconds of what the first stage has beside layers, the embedding.
        after_s: seconds of what the last stage has beside layers: head, loss and multi-token prediction.

    """

    layers_s: tuple[float, ...]
    before_s: float = 0.0
    after_s: float = 0.0

    __repr__ = brief


@lru_cache(maxsize=1024)
def lay_out(choice: LayoutChoice, stages: int, mtp: int, times: DepthTimes) -> tuple[StageLayers, ...]:
    """Return what each stage of one pipe holds.

    Args:
        choice: the layout.
        stages: stages of the pipe.
        mtp: multi-token prediction modules of the model.
        times: seconds of each part of the model; only ``balanced`` reads more of them than their number.

    Raises:
        ScheduleError: a layout for another number of stages.
        UserError: a layout that does not hold the model once, in order.

    """
    layers = len(times.layers_s)
    if choice == EVEN:
        return with_ends(even(layers, stages), mtp)
    if choice == BALANCED:
        return with_ends(balanced(times, stages), mtp)
    of_stage = explicit(choice, layers, mtp)
    if len(of_stage) != stages:
        raise ScheduleError(
            f"pipeline.layout has {number_of(len(of_stage), 'stage')}, but this schedule cuts the model into {stages}; "
            "'even' and 'balanced' fit any number"
        )
    return of_stage


def explicit(choice: LayoutChoice, layers: int, mtp: int) -> tuple[StageLayers, ...]:
    """Return what each stage holds by a layout that names its stages.

    Raises:
        UserError: a layout that does not hold the model once, in order.

    """
    of_stage = megatron(choice) if isinstance(choice, str) else with_ends(choice, mtp)
    for what, here, there in (
        ("layers", sum(len(stage.layers) for stage in of_stage), layers),
        ("multi-token prediction modules", sum(stage.mtp for stage in of_stage), mtp),
    ):
        if here != there:
            raise UserError(f"pipeline.layout holds {here} {what}, but the model has {there}")
    return of_stage


def even(layers: int, stages: int) -> tuple[int, ...]:
    """Return equal numbers of layers; where they do not divide, the rest is spread over the depth.

    >>> even(7, 3)
    (2, 2, 3)
    """
    return tuple(end - begin for begin, end in pairwise(stage * layers // stages for stage in range(stages + 1)))


def balanced(times: DepthTimes, stages: int) -> tuple[int, ...]:
    """Return the numbers of layers that make the slowest stage fastest, exactly.

    Among all such splits it is one with the least sum of squared stage times, so that the others are even too. Below,
    the embedding takes as long as two layers:

    >>> balanced(DepthTimes(layers_s=(1.0, 1.0, 1.0, 1.0), before_s=2.0), stages=2)
    (1, 3)
    """
    ends_s = [times.before_s, *[0.0] * (stages - 2), times.after_s]
    if stages == 1:
        return (len(times.layers_s),)
    slowest_s = _slowest_s(times.layers_s, ends_s)
    return _most_even(times.layers_s, ends_s, slowest_s)


def with_ends(counts: Sequence[int], mtp: int) -> tuple[StageLayers, ...]:
    """Return stages of so many layers each, the embedding on the first, head and multi-token prediction on the last."""
    begins = [0, *accumulate(counts)]
    last = len(counts) - 1
    return tuple(
        StageLayers(tuple(range(begin, end)), stage == 0, *((mtp, True, mtp) if stage == last else ()))
        for stage, (begin, end) in enumerate(pairwise(begins))
    )


def megatron(text: str) -> tuple[StageLayers, ...]:
    """Read a layout string of Megatron-Core, such as ``Et*3|(tt|)*29,m|L``.

    ``E`` is the embedding, ``t`` a transformer layer, ``m`` a multi-token prediction module, ``L`` head and loss; ``|``
    ends a stage, ``x*n`` and ``(…)*n`` repeat, commas and spaces mean nothing, stages may be empty
    (https://docs.nvidia.com/megatron-core/developer-guide/latest/user-guide/features/pipeline_parallel_layout.html).
    One ``L`` is all losses, that of the model and those of its modules. Several are one each, the model's own first,
    so that they may lie on several stages (https://github.com/NVIDIA/Megatron-LM/pull/5318). Unlike there ``E`` and
    ``L`` may be left out, for a part of a model.

    Raises:
        UserError: not such a string.

    """
    letters = _letters(text)
    modules, losses = letters.count("m"), letters.count("L")
    if not re.fullmatch("E?t*m*L?" if losses < 2 else "E?t*[mL]*", letters.replace("|", "")):
        raise UserError(f"pipeline.layout: must go from one E over all t and all m to one L, not as in {quoted(text)}")
    if losses > 1:
        _check_losses(letters, modules, losses)
    stages, begin, before = [], 0, 0
    for stage in letters.split("|"):
        end, here = begin + stage.count("t"), stage.count("L")
        head = before == 0 and here > 0
        mtp_heads = modules if losses == 1 and head else here - head
        stages.append(StageLayers(tuple(range(begin, end)), "E" in stage, stage.count("m"), head, mtp_heads))
        begin, before = end, before + here
    return tuple(stages)


def _check_losses(letters: str, modules: int, losses: int) -> None:
    """Refuse several losses that are not one each of the model and of its modules, each behind its module."""
    if losses != 1 + modules:
        own = f"the model and its {modules} m have {number_of(1 + modules, 'loss')}"
        raise UserError(f"pipeline.layout: {losses} L, but {own}; give one L for all, or one for each")
    made = 1
    for letter in letters:
        made += (letter == "m") - (letter == "L")
        if made < 0:
            raise UserError(
                "pipeline.layout: an L stands before the m whose loss it is; the first L is the model's own"
            )


def _letters(text: str) -> str:
    """Return the letters of a layout with all repeats written out."""
    letters = unroll(text, "pipeline.layout")
    strange = re.search(r"[^EtmL|]", letters)
    if strange or not letters:
        at = quoted(strange[0]) if strange else "nothing"
        raise UserError(
            f"pipeline.layout: must be 'even', 'balanced', a list of numbers of layers, or stages of E, t, m and L "
            f"such as 'Et*3|(tt|)*29,m|L'; got {at} in {quoted(text)}"
        )
    return letters


def _slowest_s(layers_s: Sequence[float], ends_s: Sequence[float]) -> float:
    """Return the least time that the slowest stage can have.

    ``best[n]``, of shape ``(layers + 1,)``, is the least time of the slowest of the stages so far, if they hold the
    first n layers. One more stage that begins at layer b and ends at n makes it the larger of ``best[b]`` and the
    stage's own time; the best b is the least of a column in the table of all (b, n). A stage costs layers² steps.
    """
    best = _spans_s(layers_s, ends_s[0])[0]
    for end_s in ends_s[1:]:
        best = np.maximum(best[:, None], _spans_s(layers_s, end_s)).min(axis=0)
    return float(best[-1])


def _most_even(layers_s: Sequence[float], ends_s: Sequence[float], slowest_s: float) -> tuple[int, ...]:
    """Return the numbers of layers with the least sum of squared stage times, no stage above ``slowest_s``.

    The same walk as in :func:`_slowest_s`, with a sum instead of a maximum: ``best[n]`` is now the least sum of
    squares. Stages that take too long are infinitely bad. Each stage's table also says which beginning b was best for
    each end n; followed back from the last layer, these are the cuts.
    """

    def squared(end_s: float) -> FloatArray:
        spans_s = _spans_s(layers_s, end_s)
        return np.where(spans_s <= slowest_s, spans_s * spans_s, inf)

    best = squared(ends_s[0])[0]
    begins: list[IntArray] = []
    for end_s in ends_s[1:]:
        tried = best[:, None] + squared(end_s)
        begins.append(tried.argmin(axis=0))
        best = tried.min(axis=0)
    cuts = [len(layers_s)]
    for begin_of in reversed(begins):
        cuts.append(int(begin_of[cuts[-1]]))
    return tuple(end - begin for begin, end in pairwise([0, *reversed(cuts)]))


def _spans_s(layers_s: Sequence[float], end_s: float) -> FloatArray:
    """Return the time of a stage with the layers from b up to n, for all b and n, shape ``(layers + 1, layers + 1)``.

    It is a difference of running sums, and infinite below the diagonal, where the end is before the beginning. Layers
    of 1 s and 2 s, and 0.5 s for what the stage has beside layers:

    >>> _spans_s([1.0, 2.0], 0.5)
    array([[0.5, 1.5, 3.5],
           [inf, 0.5, 2.5],
           [inf, inf, 0.5]])
    """
    sums_s = np.array([0.0, *accumulate(layers_s)])
    spans_s = sums_s[None, :] - sums_s[:, None] + end_s
    return np.where(np.tri(len(sums_s), k=-1, dtype=bool), inf, spans_s)
