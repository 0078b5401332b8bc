"""V-Half with vocabulary parallelism. Yeung et al., MLSys 2025, https://arxiv.org/abs/2411.05288."""

from dataclasses import replace

from dualpipe_sim.order.builder import OrderBuilder
from dualpipe_sim.order.placement import v_shape
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules import v_half
from dualpipe_sim.schedules.registry import register
from dualpipe_sim.schedules.size import of_v
from dualpipe_sim.schedules.vocab_1f1b import Barriers, Steps
from dualpipe_sim.schedules.zero_bubble.building_block import PERIOD, Slots, block
from dualpipe_sim.schedules.zero_bubble.problem import LETTERS


def slots(ranks: int, rank: int, barriers: int) -> Slots:
    """Return the slots of a rank's building block: V-Half's, gradients a period later for each barrier."""
    down, up, *back = v_half.slots(ranks, rank)
    return Slots(down, up, *(slot + PERIOD * barriers for slot in back))


@register("vocab-v-half", tries={"barriers": (1, 2)}, size=of_v(4, 2))
def vocab_v_half(ranks: int, micro_batches: int, barriers: Barriers = 1) -> Schedule:
    """V-Half, every rank with its share of the vocabulary. Yeung et al., MLSys 2025, https://arxiv.org/abs/2411.05288.

    S of a micro-batch comes a slot after the end of the V, with T of the one before it. Ops stand in the order of their
    slots, none pulled earlier.

    Recipe, on every rank:

    1. The slots of V-Half, those of I six later for each barrier.
    2. A step, T of one micro-batch and S of the next, every six slots, from the first slot behind the end of the V.
    3. Ops in the order of their slots; each W in the first free one behind its I.

    Args:
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step.
        barriers: at how many barriers ranks wait for each other, for each micro-batch, as in vocab-1f1b.

    """
    order = OrderBuilder(v_shape(ranks), (micro_batches,))
    first_step = slots(ranks, 0, barriers).forward_up + 2
    for rank in range(ranks):
        line, steps = order.rank(rank), Steps(order.rank(rank), rank, micro_batches)
        ops = sorted(
            (slot + PERIOD * micro_batch, LETTERS[kind], stage, micro_batch)
            for (kind, stage), slot in block(ranks, rank, slots(ranks, rank, barriers)).items()
            for micro_batch in range(micro_batches)
        )
        for slot, *op in ops:
            while first_step + PERIOD * steps.done <= slot and steps.done <= micro_batches:
                steps.step()
            line.op(*op)
        steps.rest()
    return replace(order.schedule(), barriers=barriers)
