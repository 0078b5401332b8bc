"""Where tokens go: expert-parallel groups, and how far a token's experts are spread in them, for even routing.

How many bytes an all-to-all sends depends on how many nodes and GPUs a token's experts are on. With even routing, all
orders of the experts by score are equally likely for a token, so the expectation is a matter of counting orders. It is
exact: whole numbers and fractions, a float at the end only.

Two kinds of groups must be told apart. The *expert-parallel group* is GPUs; *groups* of experts are what group-limited
routing chooses from. A *unit* is a node or a GPU: a block of consecutive experts.
"""

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
    groups with the best single expert, and in them its top-k; all orders of the experts are equally likely. Units are
    alike, so the expectation is their number times the chance that a token hits one of them. Where a unit is a group,
    it is also the sum over j of min(``group_limit``, j) x the chance that the best k of all experts lie in j groups.

    Eight experts on four GPUs, in two groups of which a token takes one: its two experts are two of four on two GPUs.
    The second is on the first one's GPU with a chance of 1/3, so they are on 2 - 1/3 GPUs:

    >>> round(expected_distinct(Experts(routed=8, active=2, ffn=1, groups=2, group_limit=1), units=4), 6)
    1.666667

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
    """Return what :func:`expected_distinct` does, for numbers that fit each other."""
    # Without a limit the top-k are any of all experts: a unit is missed if they are all among the other units'.
    if limit >= groups:
        return float(units * (1 - Fraction(comb(routed - routed // units, active), comb(routed, active))))
    if units >= groups:
        # Units within groups: a unit can be hit if its group is among the chosen, one in groups / limit.
        miss = _miss(routed, active, groups, limit, touched=1, share=routed // units)
        return float(Fraction(units * limit, groups) * (1 - miss))
    # Units of several whole groups, c of which are among the chosen: of all ways to choose ``limit`` groups, those that
    # take c of the unit's and the rest of the others'.
    whole = groups // units
    hit = Fraction(0)
    for c in range(1, min(whole, limit) + 1):
        chance = Fraction(comb(whole, c) * comb(groups - whole, limit - c), comb(groups, limit))
        hit += chance * (1 - _miss(routed, active, groups, limit, touched=c, share=routed // groups))
    return float(units * hit)


def _miss(routed: int, active: int, groups: int, limit: int, touched: int, share: int) -> Fraction:
    """Return the chance that the top-k misses a unit that has ``share`` experts in each of ``touched`` chosen groups.

    Take any ``limit`` groups. Order their experts by score, and let m be the place in this order at which the last of
    these groups first appears. They are the chosen groups exactly if the m best experts of all are theirs. The chance
    that they are chosen and the top-k misses the unit is a sum over m of products of two chances:

    - ``chosen``: the first m of all places by score belong to these groups. The experts of the others then lie in the
      ``routed - m`` places behind, in comb(routed - m, others) ways of comb(routed, others).
    - of the ways to fill the first max(m, active) places of these groups' own order, ``orders`` is how many have the
      last group first appear at m and leave the unit out of the top-k. The last group is one of those in which the unit
      has experts (``last``), or one of the rest. :func:`_covering` counts the places before m, :func:`_rest` those from
      m on.

    In the end the sum is divided by the chance that these groups are chosen, which is the same for all groups: one in
    comb(groups, limit).
    """
    size = routed // groups
    inside = limit * size
    total = Fraction(0)
    # At the earliest each place up to m is another group's; at the latest all other groups' experts are before m.
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

    Inclusion and exclusion over the i groups without the unit, and the j with it, that stay empty: the fillings of the
    other groups count with a plus where i + j is even, else with a minus. Two places from two groups of two experts
    can be filled in 4 x 3 ways, of which 2 + 2 leave a group out:

    >>> _covering(groups=2, touched=0, size=2, share=1, places=2, avoided=0)
    8

    Args:
        groups: groups to fill from.
        touched: how many of them hold experts of the unit.
        size: experts of a group.
        share: the unit's experts in each of the touched groups.
        places: places to fill, each with another expert.
        avoided: how many places, from the first on, the unit's experts may not take.

    """
    ways = 0
    for i in range(groups - touched + 1):
        for j in range(touched + 1):
            pool = (groups - i - j) * size
            free = pool - (touched - j) * share
            if pool >= places and free >= avoided:
                # First the places that avoid the unit, then the others with whoever is left.
                fillings = perm(free, avoided) * perm(pool - avoided, places - avoided)
                ways += (-1) ** (i + j) * comb(groups - touched, i) * comb(touched, j) * fillings
    return ways


def _rest(inside: int, size: int, share: int, touched: int, m: int, active: int, *, last: bool) -> int:
    """Count the ways to fill place m, from the group that appears last, and those up to the top-k after it.

    ``last`` says that the unit has experts in that group; they are avoided within the top-k. Behind place m any expert
    of the chosen groups may follow, but for the m that have a place and the unit's, of which none has one.
    """
    if m > active:
        return size
    first = size - share if last else size
    return first * perm(max(inside - m - touched * share, 0), active - m)
