"""Where to cut a sequence into slices, and what those cost: a later one attends to all before it, so takes longer."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, sqrt
from typing import NamedTuple

import numpy as np

from dualpipe_sim.errors import UserError
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.attention.registry import Exchanged
from dualpipe_sim.model.flops import model_flops_per_token


def shares_of_even_slices(model: Model, sequence_length: int, slices: int) -> tuple[float, ...]:
    """Return the share of a causal model's FLOPs that each of some equally long slices has, the first one first.

    What the first p tokens take is p times the FLOPs a token of a sequence of p; a slice takes what it adds to them.

    Args:
        model: what is trained.
        sequence_length: tokens of a sequence.
        slices: into how many it is cut.

    """
    ends = np.linspace(0, sequence_length, slices + 1).tolist()
    taken = [end * model_flops_per_token(model, max(1, round(end))) for end in ends]
    flops = np.diff(taken)
    return tuple((flops / flops.sum()).tolist())


class Shape(NamedTuple):
    """What the FLOPs of a slice depend on in a transformer of one kind of layer.

    Attributes:
        layers: its layers.
        hidden: width of the residual stream.
        ffn: width of the feed-forward network, of two maps.
        heads: attention's heads.
        head: dimensions of a head.
        vocabulary: rows of the embedding, and of the head.

    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    head: int
    vocabulary: int

    @property
    def flops_a_token(self) -> int:
        """FLOPs a token of F, attention's core left out; the embedding counts as a product."""
        projections, ffn = 8 * self.hidden * self.heads * self.head, 4 * self.hidden * self.ffn
        return self.layers * (projections + ffn) + 4 * self.hidden * self.vocabulary

    @property
    def flops_a_score(self) -> int:
        """FLOPs of F of a query and a key in all heads and layers: two products, and three for the softmax."""
        return self.layers * (4 * self.head + 3) * self.heads

    def flops(self, tokens: float, end: float) -> float:
        """Return the FLOPs of F of the slice of so many tokens that ends at a place of its sequence."""
        return self.flops_a_score * (tokens * end - tokens**2 / 2) + self.flops_a_token * tokens


def balanced_cut(shape: Shape, sequence_length: int, slices: int, multiple: int = 1) -> tuple[int, ...]:
    """Return the tokens of slices that take about as many FLOPs each, later ones shorter: Seq1F1B's ``uniform_comp``.

    From the last slice on, each is as long as an equal share of all FLOPs makes it, rounded down; the first has the
    rest (https://github.com/thunlp/Seq1F1B, ``split_solver``).

    >>> balanced_cut(Shape(24, 4096, 16384, 32, 128, 32000), sequence_length=16384, slices=4)
    (4929, 4238, 3777, 3440)

    Args:
        shape: what a slice's FLOPs depend on.
        sequence_length: tokens of a sequence.
        slices: into how many it is cut.
        multiple: what tokens of slices but the first are multiples of, as sequence parallelism needs.

    Raises:
        UserError: a sequence too short for so many slices.

    """
    share, end = shape.flops(sequence_length, sequence_length) / slices, sequence_length
    found: list[int] = []
    for _ in range(slices - 1):
        # of the two solutions of flops(tokens, end) = share the one inside the sequence
        slope = shape.flops_a_score * end + shape.flops_a_token
        exact = (slope - sqrt(slope**2 - 2 * shape.flops_a_score * share)) / shape.flops_a_score
        found.append(int(exact) // multiple * multiple)
        end -= found[-1]
    found.append(end)
    if min(found) < 1:
        raise UserError(f"{sequence_length} tokens are too few for {slices} slices of multiples of {multiple}")
    return tuple(found[::-1])


class Cut(NamedTuple):
    """A cut of a sequence, and what a pipeline takes with it.

    Attributes:
        lengths: tokens of each slice, the first one first.
        seconds: until the last slice has left the last rank.

    """

    lengths: tuple[int, ...]
    seconds: float


def terapipe_cut(ranks: int, sequence_length: int, seconds: Callable[[int, int], float], multiple: int = 8) -> Cut:
    """Return the cut with which one sequence passes a pipeline soonest: TeraPipe's dynamic programme.

    A pipeline takes the sum of what slices take on a rank and, for each rank but one, the longest of them. For each
    longest time there can be, S(i) = min over the last slice x of S(i-x) + t(x, i-x) is the least sum of the first i
    tokens (Li et al., ICML 2021, https://arxiv.org/abs/2102.07988, section 3.3).

    >>> terapipe_cut(4, 32, lambda tokens, context: 6 + tokens * (1 + context / 32))
    Cut(lengths=(16, 8, 8), seconds=126.0)

    Args:
        ranks: pipeline ranks.
        sequence_length: tokens of a sequence, a multiple of ``multiple``.
        seconds: what a slice takes on a rank, by its tokens and how many are before it.
        multiple: what slices' tokens are multiples of.

    Raises:
        UserError: a sequence that has no such slices.

    """
    count, rest = divmod(sequence_length, multiple)
    if rest or not count:
        raise UserError(f"{sequence_length} tokens cannot be cut into slices of multiples of {multiple}")
    # took[i, x]: of the last slice of x + 1 multiples of the first i + 1, infinite where it would be longer than that
    took = np.full((count, count), inf)
    for end in range(count):
        took[end, : end + 1] = [seconds((x + 1) * multiple, (end - x) * multiple) for x in range(end + 1)]
    best = Cut((), inf)
    for longest in np.unique(took[np.isfinite(took)]).tolist():
        if (ranks - 1) * longest >= best.seconds:
            break
        lengths, total = _least_sum(took, longest)
        if (length_s := total + (ranks - 1) * longest) < best.seconds:
            best = Cut(tuple(length * multiple for length in lengths), length_s)
    return best


def _least_sum(took: np.ndarray[tuple[int, int], np.dtype[np.float64]], longest: float) -> tuple[list[int], float]:
    """Return the slices of the least sum of which none takes longer than one may, and that sum; infinite if none."""
    count = len(took)
    least, last = np.full(count + 1, inf), np.zeros(count + 1, dtype=np.int64)
    least[0] = 0.0
    for end in range(count):
        of_end = took[end, : end + 1]
        sums = np.where(of_end <= longest, least[end::-1] + of_end, inf)
        last[end + 1] = int(sums.argmin()) + 1
        least[end + 1] = sums.min()
    lengths: list[int] = []
    left = count if np.isfinite(least[count]) else 0
    while left:
        lengths.append(int(last[left]))
        left -= lengths[-1]
    return lengths[::-1], float(least[count])


def exchange_bytes(
    exchanged: Exchanged, slice_tokens: int, ranks: int, element_bytes: float = 2.0
) -> tuple[float, ...]:
    """Return the bytes that each pair of ranks exchanges in a layer so that all attend to as much: SlimPipe's exchange.

    At one moment ranks work on slices that lie one behind the other, so their contexts differ. The rank with the
    longest one pairs with that with the shortest, and so on: the one sends its queries, and keys and values of half of
    what it has more; the other attends for it and sends the outputs back (Li et al., SC'25,
    https://arxiv.org/abs/2504.14519). The middle one of an odd number has the mean already.

    >>> exchange_bytes(Exchanged(queries=4096, keys_values=2048, outputs=4096), slice_tokens=1024, ranks=4)
    (23068672.0, 18874368.0)

    Args:
        exchanged: elements of a token's queries, keys and values, and outputs.
        slice_tokens: tokens of a slice.
        ranks: pipeline ranks.
        element_bytes: bytes of an element.

    """
    there_and_back = slice_tokens * (exchanged.queries + exchanged.outputs)
    moved = [(ranks - 1 - 2 * pair) / 2 * slice_tokens * exchanged.keys_values for pair in range(ranks // 2)]
    return tuple(element_bytes * (there_and_back + keys_values) for keys_values in moved)
