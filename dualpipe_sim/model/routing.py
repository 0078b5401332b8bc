"""Where tokens go: expert-parallel groups, and how far a token's experts are spread in them, for even routing."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, perm

from dualpipe_sim.errors import UserError
from dualpipe_sim.model.architecture import Experts


@dataclass(frozen=True)
class ExpertGroup:
    """An expert-parallel group and how far a token's experts are spread in it.

    Attributes:
        nodes: nodes that the group lies on.
        gpus_per_node: its GPUs on each.
        distinct_nodes: expected nodes that a token's experts are on.
        distinct_gpus: expected GPUs that a token's experts are on.

    """

    nodes: int
    gpus_per_node: int
    distinct_nodes: float
    distinct_gpus: float

    @property
    def gpus(self) -> int:
        """GPUs of the group."""
        return self.nodes * self.gpus_per_node


def expert_group(experts: Experts, expert_parallel: int, gpus_per_node: int) -> ExpertGroup:
    """Return the expert-parallel group on neighbouring GPUs, experts in order over GPUs and nodes.

    Raises:
        UserError: the group does not fill whole nodes, or the experts do not divide over it.

    """
    if expert_parallel < 1:
        raise UserError(f"parallel.expert: must be 1 or more, not {expert_parallel}")
    inside = min(expert_parallel, gpus_per_node)
    if expert_parallel % inside:
        raise UserError(
            f"parallel.expert: {expert_parallel} GPUs do not fill whole nodes of {gpus_per_node}; "
            "take a multiple of it, or fewer"
        )
    nodes = expert_parallel // inside
    return ExpertGroup(nodes, inside, expected_distinct(experts, nodes), expected_distinct(experts, expert_parallel))


def expected_distinct(experts: Experts, units: int) -> float:
    """Return how many of ``units`` a token's routed experts are on, in expectation.

    The experts lie in ``units`` equal consecutive blocks (nodes, or GPUs). A token takes the ``group_limit``
    groups with the best single expert, and in them its top-k; all orders of the experts are equally likely.
    Where a unit is a group, this is the sum over j of min(L, j) P(K = j), K being the distinct groups among k
    random experts.

    Raises:
        UserError: the units do not divide the experts, or cut across groups.

    """
    e = experts
    if units < 1 or e.routed % units:
        raise UserError(f"{e.routed} routed experts cannot be spread evenly over {units} nodes or GPUs")
    if e.group_limit < e.groups and units % e.groups and e.groups % units:
        raise UserError(
            f"{units} nodes or GPUs and {e.groups} groups of experts cut across each other; one must divide the other"
        )
    return _expected_distinct(e.routed, e.active, e.groups, e.group_limit, units)


@lru_cache(maxsize=256)
def _expected_distinct(routed: int, active: int, groups: int, limit: int, units: int) -> float:
    if limit >= groups:
        return float(units * (1 - Fraction(comb(routed - routed // units, active), comb(routed, active))))
    if units >= groups:
        # Units within groups: a unit can be hit if its group is among the chosen, one in groups / limit.
        miss = _miss(routed, active, groups, limit, touched=1, share=routed // units)
        return float(Fraction(units * limit, groups) * (1 - miss))
    # Units of several whole groups, c of which are among the chosen.
    whole = groups // units
    hit = Fraction(0)
    for c in range(1, min(whole, limit) + 1):
        chance = Fraction(comb(whole, c) * comb(groups - whole, limit - c), comb(groups, limit))
        hit += chance * (1 - _miss(routed, active, groups, limit, touched=c, share=routed // groups))
    return float(units * hit)


def _miss(routed: int, active: int, groups: int, limit: int, touched: int, share: int) -> Fraction:
    """Return the chance that the top-k misses a unit that has ``share`` experts in each of ``touched`` chosen groups.

    Order the experts of the chosen groups by score, and let m be the place at which the last of these groups
    first appears. The groups are the chosen ones exactly if the m best experts of all are theirs.
    """
    size = routed // groups
    inside = limit * size
    total = Fraction(0)
    for m in range(limit, inside - size + 2):
        chosen = Fraction(comb(routed - m, routed - inside), comb(routed, inside))
        orders = sum(
            (touched if last else limit - touched)
            * _covering(limit - 1, touched - last, size, share, m - 1, min(active, m - 1))
            * _rest(inside, size, share, touched, m, active, last=last)
            for last in ((False, True) if touched < limit else (True,))
        )
        total += chosen * Fraction(orders, perm(inside, max(m, active)))
    return comb(groups, limit) * total


def _covering(groups: int, touched: int, size: int, share: int, places: int, avoided: int) -> int:
    """Count the ways to fill ``places`` from all of ``groups``, none left out, the unit avoided in the first ones.

    Inclusion and exclusion over the i groups without the unit, and the j with it, that stay empty.
    """
    ways = 0
    for i in range(groups - touched + 1):
        for j in range(touched + 1):
            pool = (groups - i - j) * size
            free = pool - (touched - j) * share
            if pool >= places and free >= avoided:
                fillings = perm(free, avoided) * perm(pool - avoided, places - avoided)
                ways += (-1) ** (i + j) * comb(groups - touched, i) * comb(touched, j) * fillings
    return ways


def _rest(inside: int, size: int, share: int, touched: int, m: int, active: int, *, last: bool) -> int:
    """Count the ways to fill place m, from the group that appears last, and those up to the top-k after it.

    ``last`` says that the unit has experts in that group; they are avoided within the top-k.
    """
    if m > active:
        return size
    first = size - share if last else size
    return first * perm(max(inside - m - touched * share, 0), active - m)
