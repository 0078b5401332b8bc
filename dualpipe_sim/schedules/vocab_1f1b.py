"""1F1B with vocabulary parallelism. Yeung et al., MLSys 2025, https://arxiv.org/abs/2411.05288."""

from dataclasses import replace
from typing import Literal

import numpy as np

from dualpipe_sim.order.builder import Line, OrderBuilder
from dualpipe_sim.order.op_times import OpTimes
from dualpipe_sim.order.ops import S, T
from dualpipe_sim.order.placement import linear
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_line

Barriers = Literal[1, 2]

_ROUNDING = 1e-9


@register(
    "vocab-1f1b",
    placement=linear,
    tries={"barriers": (1, 2)},
    cuts_vocabulary=True,
    size=of_line(4, 2),
)
def vocab_1f1b(ranks: int, micro_batches: int, times: OpTimes | None = None, barriers: Barriers = 1) -> Schedule:
    """1F1B, every rank with its share of the vocabulary. Yeung et al., MLSys 2025, https://arxiv.org/abs/2411.05288.

    The output layer is cut over all ranks, which do S and T of every micro-batch. A rank warms up with a forward more
    for each barrier, and then takes a forward, a backward and a step (T of one micro-batch, S of the next) in turn.
    Where the step stands depends on how long forwards and backwards take.

    Recipe, on rank r of P, a step being T of one micro-batch and S of the next:

    1. Warm-up: P - r forwards.
    2. For each barrier: a step and a forward.
    3. As many steps more as lie between this rank's turns and those of the last rank.
    4. Steady state: a backward, then a step and a forward, or a forward and a step, whichever times leave room for.
    5. Drain: the backwards that are left, each with a step while there are any.
    6. The steps that are left.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        times: seconds of F, I and W of each stage; all take 1 by default.
        barriers: at how many barriers ranks wait for each other, for each micro-batch: 2 with S = logits and T = both
            gradients, 1 where S makes the gradient of the input as well (algorithms 1 and 2).

    """
    times = times or OpTimes.uniform(linear(ranks))
    order = OrderBuilder(linear(ranks), (micro_batches,))
    for rank, (step_first, more_steps) in enumerate(_turns(ranks, times)):
        line, steps = order.rank(rank), Steps(order.rank(rank), rank, micro_batches)
        forwards = min(ranks - rank, micro_batches)
        for _ in range(forwards):
            line.forward(rank)
        for _ in range(barriers):
            steps.step()
            if forwards < micro_batches:
                line.forward(rank)
                forwards += 1
        for _ in range(more_steps):
            steps.step()
        for _ in range(micro_batches - forwards):
            line.backward(rank)
            if step_first:
                steps.step()
                line.forward(rank)
            else:
                line.forward(rank)
                steps.step()
        for _ in range(forwards):
            line.backward(rank)
            if steps.done < micro_batches + barriers - 1:
                steps.step()
        steps.rest()
    return replace(order.schedule(), barriers=barriers)


class Steps:
    """A rank's passes of the vocabulary while they are written down: step k is T of micro-batch k-1 and S of k."""

    def __init__(self, line: Line, stage: int, micro_batches: int) -> None:
        self.done = 0
        self._line, self._stage, self._micro_batches = line, stage, micro_batches

    def step(self) -> None:
        """Append the next T and S, as far as they exist."""
        if 0 < self.done <= self._micro_batches:
            self._line.op(T, self._stage, self.done - 1)
        if self.done < self._micro_batches:
            self._line.op(S, self._stage, self.done)
        self.done += 1

    def rest(self) -> None:
        """Append all that are left."""
        while self.done <= self._micro_batches:
            self.step()


def _turns(ranks: int, times: OpTimes) -> list[tuple[bool, int]]:
    """Return of each rank whether a step stands before the forward of its turn, and how many come before all turns.

    From the last rank up, each rank's forward begins F earlier than the next one's, as long as the step still fits
    between a backward and it. Then the step stands behind it, and the rank above begins anew.
    """
    forward_s, backward_s = (
        float(np.median(one)) for one in (times.forward_s, times.backward_input_s + times.backward_weight_s)
    )
    step_first, offset_s = [True], 0.0
    while len(step_first) < ranks:
        if offset_s - forward_s >= -backward_s - _ROUNDING * forward_s:
            offset_s -= forward_s
            step_first.append(True)
        else:
            offset_s += backward_s - forward_s
            step_first += [False, True]
    more_steps = [0]
    for here, below in zip(step_first[1:], step_first, strict=False):
        more_steps.append(more_steps[-1] + (not here or below))
    return list(zip(step_first, more_steps, strict=True))[:ranks][::-1]
