"""The longest-path engine: what the discrete-event engine finds by playing, computed where nothing shares a link.

In a fixed order a phase starts when the last of all it waits for is there, so its end is the longest path to it.
All lanes walk their phases in step: in one turn, a few array operations compute the end of every lane's next phase.
An end that is not known yet is infinite, and a sum or a maximum with infinity stays infinite. So a lane whose phase
came out infinite asked too early; it stays where it is and asks again in the next turn. No count of what is still
missing is kept, and a circle shows as lanes that all stay where they are.

The arrays, from the graph to the answer:

- *places* number the phases lane by lane, so that "the next phase of this lane" is the next place.
- ``before[slot, place]`` is what a place waits for. It waits for as many places as it has slots; slot 0 is the order
  of its own lane, the others are the graph's edges into it.
- ``via[slot, place]`` is the transfer in between, whose duration is added on the way.
- ``end_s[place]`` is the answer, filled turn by turn.

In which turn a place can be computed does not depend on how long anything takes. So who plays the same wiring again, or
:func:`play_many` scenarios side by side, notes those turns once, with what each waits for in one piece, and then
computes turn by turn without asking too early.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from dualpipe_sim.base.arrays import BoolArray, FloatArray, IntArray
from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.load import Load
from dualpipe_sim.engine import by_node
from dualpipe_sim.engine.deadlock import explain
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.task_graph import Issue, Lanes, TaskGraph
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.graph.wiring import Wiring
from dualpipe_sim.order.ops import F

NAME = "longest-path"
_START = 0  # the place that stands for the start of time
_BLOCK_CELLS = 1 << 18  # scenarios x nodes that are played side by side: an array of them stays in a core's cache
_FEWEST = 8  # scenarios side by side, however many nodes there are: a turn of fewer is more calls than work


def play(graph: TaskGraph) -> Timeline:
    """Play a graph as if nothing shared a link; the result is the discrete-event engine's to the last bit.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.

    """
    if by_node.is_worth_it(graph):
        start_s, end_s = by_node.times_s(graph, _played(graph))
        _check_all_ended(graph, end_s)
        return Timeline(graph, *_with_transfers(graph, start_s, end_s, graph.duration_s), NAME)
    if graph.wiring in _TURNS:
        start_s, end_s = _play_turns(_turns(graph), graph, graph.duration_s)
        return Timeline(graph, start_s, end_s, NAME)
    start_s, end_s = _walk(_lanes(graph), graph.duration_s, graph.issue)
    _check_all_ended(graph, end_s)
    _TURNS[graph.wiring] = None
    return Timeline(graph, *_with_transfers(graph, start_s, end_s, graph.duration_s), NAME)


def warm_durations_s(graph: TaskGraph, load: Load) -> FloatArray:
    """Return how long each node takes on GPUs that were busy before it, shape ``(nodes,)``, in one pass.

    How busy a GPU was is known when a phase starts. What stands beside it (``load.gamma``) is not, and not counted.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.

    """
    lanes = _lanes(graph)
    warm = _Warm(lanes, lanes.place[np.flatnonzero(graph.on(Lane.COMPUTE))], load)
    _, end_s = _walk(lanes, graph.duration_s, graph.issue, warm)
    _check_all_ended(graph, end_s)
    return np.concatenate([warm.took_s[lanes.place], graph.duration_s[len(lanes.place) :]])


def play_many(graph: TaskGraph, durations_s: Iterable[FloatArray]) -> Iterator[Timeline]:
    """Play one graph under many durations: jitter, other costs, other links.

    The turn in which each phase can be computed is found once. Scenarios are played side by side in blocks of bounded
    memory, so durations that are generated row by row need never be there all at once.

    Args:
        graph: who waits for what; its own durations do not count.
        durations_s: seconds of each node in each scenario, shape ``(scenarios, nodes)``, or any iterable of its rows.

    Returns:
        The scenarios' timelines in order, all of the same graph.

    Raises:
        DeadlockError: an order in which ranks wait for each other in a circle.
        UserError: durations that are negative, not finite, or not as many as nodes; while iterating.

    """
    turns = _turns(graph)
    return (
        Timeline(graph, start_s, end_s, NAME)
        for block_s in _blocks(graph, durations_s)
        for start_s, end_s in zip(*(times.T for times in _play_turns(turns, graph, block_s)), strict=True)
    )


def makespans_s(graph: TaskGraph, durations_s: Iterable[FloatArray]) -> FloatArray:
    """Return the makespan of each scenario of :func:`play_many`, shape ``(scenarios,)``."""
    return np.array([timeline.makespan_s for timeline in play_many(graph, durations_s)])


@dataclass(frozen=True)
class _Lanes:
    """What each phase waits for, as tables of places.

    Each phase has a place, lane by lane in the order they run. Behind the last phase of each lane is one more place, a
    stop that never ends: a lane that is done stays there without a test for it. Place 0 is the start of time; every
    lane's first phase waits for it, and so does every slot that is not needed.

    Attributes:
        place: place of each phase, shape ``(phases,)``; with rendezvous transfers are played like phases.
        first: place of each lane's first phase, shape ``(lanes,)``.
        before: places that each place waits for, padded with the start of time, shape ``(slots, places)``; slot 0 is
            the lane's order.
        via: node of the transfer that it waits for them by, or ``nodes`` for none, shape ``(slots, places)``.

    Two ranks with a stage each, and one micro-batch: rank 0 runs 0F0 and 0B0 at places 1 and 2, with its stop at 3;
    rank 1 runs 1F0 and 1B0 at places 4 and 5, with its stop at 6. Beside the order of the lanes (slot 0), 0B0 waits for
    1B0 and 1F0 for 0F0 (slot 1), by the transfers 5 and 4; node 6 would be the seventh of six and stands for none.

    >>> from dualpipe_sim import build
    >>> from dualpipe_sim.costs.uniform import UniformCosts
    >>> from dualpipe_sim.graph.lowering import lower
    >>> lanes = _lanes(lower(build("gpipe", ranks=2, micro_batches=1), UniformCosts(1.0, 1.0, 1.0)))
    >>> lanes.place, lanes.first
    (array([1, 2, 4, 5]), array([1, 4]))
    >>> lanes.before
    array([[0, 0, 1, 2, 0, 4, 5],
           [0, 0, 5, 0, 1, 0, 0]])
    >>> lanes.via
    array([[6, 6, 6, 6, 6, 6, 6],
           [6, 6, 5, 6, 4, 6, 6]])

    """

    place: IntArray
    first: IntArray
    before: IntArray
    via: IntArray


def _lanes(graph: TaskGraph) -> _Lanes:
    """Number the places and fill the tables; :class:`_Lanes` has an example."""
    by_lane, begins = _played(graph).in_order()
    phases = len(by_lane)
    place = np.empty(phases, dtype=np.int64)
    # One more for the start of time, and one more for the stop of every lane before: as many as lanes have begun.
    place[by_lane] = np.arange(phases) + np.cumsum(begins)
    first = place[by_lane[begins]]
    places = _START + 1 + phases + len(first)

    # Edges are sorted by the node that waits, so those into phases come first, and an edge's place among the edges of
    # its node is its slot. Slot 0 is the lane's order.
    source, target = graph.edges[:, : graph.predecessor_start[phases]]
    slot = 1 + np.arange(len(target)) - graph.predecessor_start[target]
    shape = (1 + int(slot.max(initial=0)), places)
    before, via = np.full(shape, _START), np.full(shape, graph.nodes)
    before[0, 1:] = np.arange(places - 1)
    before[0, first] = _START
    # A phase that waits for a transfer waits, by way of it, for the phase that the transfer leaves.
    crosses = source >= phases
    via[slot[crosses], place[target[crosses]]] = source[crosses]
    sender = np.arange(graph.nodes)
    sender[phases:] = graph.sender[: graph.nodes - phases]
    before[slot, place[target]] = place[sender[source]]
    return _Lanes(place, first, before, via)


def _played(graph: TaskGraph) -> Lanes:
    """Return the lanes of all that is played."""
    in_turn = graph.wiring.in_turn
    if in_turn is None:
        return graph.lanes
    # what goes from a rank to another in one direction, in order, is a lane of its own
    return graph.lanes.and_on(Lane.RECV, _channels(graph, in_turn.abreast))


def _channels(graph: TaskGraph, abreast: IntArray) -> IntArray:
    """Return a number for sender, receiver and direction of each transfer, beyond those of ranks.

    What goes there at once, or on lines of its own, has another number.
    """
    schedule, transfers = graph.schedule, graph.transfers
    pair = schedule.rank[transfers.producer] * schedule.ranks + schedule.rank[transfers.consumer]
    way = 2 * pair + (schedule.kind[transfers.consumer] == F)
    return np.asarray(schedule.ranks + way * (1 + abreast.max(initial=0)) + abreast)


class _Warm:
    """How busy each lane's GPU was so far, as :mod:`dualpipe_sim.engine.load` has it.

    Attributes:
        took_s: how long each place took, shape ``(places,)``.

    """

    def __init__(self, lanes: _Lanes, computing: IntArray, load: Load) -> None:
        places, count = lanes.before.shape[1], len(lanes.first)
        self.took_s = np.zeros(places)
        self._beta = np.zeros(places)
        self._beta[computing] = load.beta
        self._tau_s = load.tau_s
        self._end_s, self._busy, self._now = np.zeros((3, count))

    def lasts_s(self, here: IntArray, ready_s: FloatArray, cold_s: FloatArray) -> FloatArray:
        """Return how long each lane's next place takes if it starts when it is ready."""
        self._now = self._busy * np.exp((self._end_s - np.maximum(ready_s, self._end_s)) / self._tau_s)
        self.took_s[here] = lasts_s = cold_s * (1 + self._beta.take(here) * self._now)
        return lasts_s

    def passed(self, moves: BoolArray, ready_s: FloatArray, end_s: FloatArray) -> None:
        """Take in which lanes moved on, and how long they were busy."""
        kept = np.exp((ready_s[moves] - end_s[moves]) / self._tau_s)
        self._busy[moves] = 1 - (1 - self._now[moves]) * kept
        self._end_s[moves] = end_s[moves]


def _walk(
    lanes: _Lanes, duration_s: FloatArray, issue: Issue | None = None, warm: _Warm | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return start and end of each phase, shape ``(phases,)`` each; infinite where a circle is in the way.

    In the example of :class:`_Lanes`, with F = 1 and B = 2 and transfers that take no time, ``end_s`` of the places 0
    to 6 fills up like this; both lanes ask in every turn, and a lane stays where the answer is infinite::

        turn  lanes ask for  end_s
        1     1 and 4        0  1  inf  inf  inf  inf  inf   lane 1 stays: the end of place 1 came in this turn
        2     2 and 4        0  1  inf  inf  2    inf  inf   lane 0 stays
        3     2 and 5        0  1  inf  inf  2    4    inf   lane 0 stays
        4     2 and 6        0  1  6    inf  2    4    inf   lane 1 is at its stop
        5     3 and 6        both are at their stops: the end
    """
    slots, places = lanes.before.shape
    phase_s = np.full(places, np.inf)  # what no phase stands on, the stops, lasts for ever
    phase_s[lanes.place] = duration_s[: len(lanes.place)]
    delay_s = np.append(duration_s, 0.0)[lanes.via]
    delayed = np.count_nonzero(delay_s)
    end_s = np.full(places, np.inf)
    end_s[_START] = 0.0
    # One flat index into (slot, place) serves both tables: here[slot, lane] is slot x places + the lane's place, and a
    # lane moves on by adding 1 to all of its slots. ``take`` on flat arrays is the fastest look-up that numpy has.
    before, delay_by_slot_s = lanes.before.ravel(), delay_s.ravel()
    issue = None if issue is None else _by_place(lanes, issue)
    here = lanes.first + places * np.arange(slots)[:, None]
    moves = np.ones(len(lanes.first), dtype=bool)
    while np.count_nonzero(moves):
        arrival_s = end_s.take(before.take(here))
        if delayed:
            arrival_s += delay_by_slot_s.take(here)
        ends_s = np.maximum.reduce(arrival_s)
        if issue is not None:
            np.maximum(ends_s, issue.begin_s.take(here[0]), out=ends_s)
        ready_s, lasts_s = ends_s, phase_s.take(here[0])
        if warm is not None:
            lasts_s = warm.lasts_s(here[0], ready_s, lasts_s)
        ends_s = ready_s + lasts_s
        if issue is not None:
            np.maximum(ends_s, issue.end_s.take(here[0]), out=ends_s)
        end_s[here[0]] = ends_s  # slot 0 has no offset, so here[0] is the lanes' places
        moves = np.isfinite(ends_s)
        if warm is not None:
            warm.passed(moves, ready_s, ends_s)
        here += moves
    # Starts once, at the end: cheaper than to write them down in every turn.
    start_s = (end_s[lanes.before] + delay_s).max(axis=0)
    if issue is not None:
        np.maximum(start_s, issue.begin_s, out=start_s)
    return start_s[lanes.place], end_s[lanes.place]


def _by_place(lanes: _Lanes, issue: Issue) -> Issue:
    """Return when each place is issued, shape ``(places,)`` each."""
    by_place = np.zeros((2, lanes.before.shape[1]))
    by_place[:, lanes.place] = np.stack(issue)[:, : len(lanes.place)]
    return Issue(*by_place)


def _check_all_ended(graph: TaskGraph, end_s: FloatArray) -> None:
    ended = np.isfinite(end_s)
    if not ended.all():
        raise explain(graph, done=ended if graph.rendezvous else np.append(ended, ended[graph.sender]))


@dataclass(frozen=True)
class _Turn:
    """What one turn computes: rows of a table in which all that are played stand turn by turn.

    Attributes:
        rows: from which row to which.
        before: rows that each waits for, padded with row 0, the start of time, shape ``(slots, rows)``.
        via: node of the transfer in between, or ``nodes`` for none, same shape.

    """

    rows: slice
    before: IntArray
    via: IntArray


@dataclass(frozen=True)
class _Turns:
    """All turns.

    Attributes:
        node: node of each row from 1 on, shape ``(phases,)``, or with rendezvous ``(nodes,)``.
        turns: one after the other; in the example of :class:`_Lanes`, whose phases all wait for each other, there is a
            phase in each.

    """

    node: IntArray
    turns: list[_Turn]


_TURNS: WeakKeyDictionary[Wiring, _Turns | None] = WeakKeyDictionary()
"""The turns of what was played; None where it was played once, for which they would not be worth it."""


def _turns(graph: TaskGraph) -> _Turns:
    """Return the turns of a graph's wiring, which are found once.

    Where every phase takes one turn and transfers none, a phase ends in the turn that can compute it.
    """
    known = _TURNS.get(graph.wiring)
    if known is not None:
        return known
    lanes = _lanes(graph)
    every_phase_one_turn = np.where(np.arange(graph.nodes) < len(lanes.place), 1.0, 0.0)
    _, turn = _walk(lanes, every_phase_one_turn)
    _check_all_ended(graph, turn)
    node = np.argsort(turn, kind="stable")  # stable, so that a turn reads and writes memory from front to back
    row = np.full(lanes.before.shape[1], _START)
    row[lanes.place[node]] = 1 + np.arange(len(node))
    before, via = row[lanes.before[:, lanes.place[node]]], lanes.via[:, lanes.place[node]]
    cuts = np.flatnonzero(np.diff(turn[node], prepend=0.0, append=np.inf)).tolist()
    turns = []
    for begin, end in itertools.pairwise(cuts):
        slots = 1 + int(np.flatnonzero(before[:, begin:end].any(axis=1)).max(initial=0))
        own = (np.ascontiguousarray(table[:slots, begin:end]) for table in (before, via))
        turns.append(_Turn(slice(1 + begin, 1 + end), *own))
    _TURNS[graph.wiring] = found = _Turns(node, turns)
    return found


def _play_turns(turns: _Turns, graph: TaskGraph, duration_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return start and end of each node, shape as ``duration_s``: ``(nodes,)`` or ``(nodes, scenarios)``.

    Within a turn no phase waits for another, so a few array operations compute the whole turn in all scenarios.
    """
    node, others = turns.node, duration_s.shape[1:]
    lasts_s = np.concatenate([np.zeros((1, *others)), duration_s[node]])
    # The last row, node number ``nodes``, is what ``via`` names where no transfer is in between: no delay.
    delay_s = np.concatenate([duration_s, np.zeros((1, *others))])
    delayed = not graph.rendezvous and duration_s[graph.first_transfer :].any()
    issue = None if graph.issue is None else _by_row(turns, graph.issue, others)
    start_s, end_s = np.zeros((2, *lasts_s.shape))
    for turn in turns.turns:
        rows = turn.rows
        arrival_s = end_s.take(turn.before, axis=0)
        if delayed:
            arrival_s += delay_s.take(turn.via, axis=0)
        ready_s, done_s = start_s[rows], end_s[rows]
        np.maximum.reduce(arrival_s, axis=0, out=ready_s)
        if issue is not None:
            np.maximum(ready_s, issue.begin_s[rows], out=ready_s)
        np.add(ready_s, lasts_s[rows], out=done_s)
        if issue is not None:
            np.maximum(done_s, issue.end_s[rows], out=done_s)
    starts_s, ends_s = np.empty((2, len(node), *others))
    starts_s[node], ends_s[node] = start_s[1:], end_s[1:]
    return _with_transfers(graph, starts_s, ends_s, duration_s)


def _by_row(turns: _Turns, issue: Issue, others: tuple[int, ...]) -> Issue:
    """Return when what stands on each row is issued, in each scenario alike."""
    by_row = np.concatenate([np.zeros((2, 1)), np.stack(issue)[:, turns.node]], axis=1)
    return Issue(*by_row.reshape(*by_row.shape, *[1] * len(others)))


def _with_transfers(
    graph: TaskGraph, start_s: FloatArray, end_s: FloatArray, duration_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return start and end of all nodes from those that were played.

    Without rendezvous a transfer waits for its sender only, so it is not played: its times follow from the phases'.
    """
    if graph.rendezvous:
        return start_s, end_s
    leaves_s = end_s[graph.sender]
    arrives_s = leaves_s + duration_s[graph.first_transfer :]
    return np.concatenate([start_s, leaves_s]), np.concatenate([end_s, arrives_s])


def _blocks(graph: TaskGraph, durations_s: Iterable[FloatArray]) -> Iterator[FloatArray]:
    """Yield the scenarios' durations a block at a time, shape ``(nodes, scenarios)`` each.

    A block holds as many scenarios as ``_BLOCK_CELLS`` allows, ``_FEWEST`` at least.
    """
    scenarios = iter(durations_s)
    played = 0
    while rows := list(itertools.islice(scenarios, max(_FEWEST, _BLOCK_CELLS // graph.nodes))):
        if any(row.shape != (graph.nodes,) for row in rows):
            raise UserError(f"scenarios need a duration for each of the graph's {graph.nodes} nodes")
        block = np.array(rows, dtype=float)  # shape (scenarios, nodes)
        wrong = np.argwhere(~((block >= 0) & (block < np.inf)))
        if len(wrong):
            row, node = wrong[0].tolist()
            what = f"scenario {played + row}: {graph.label(node)}"
            raise UserError(f"{what} takes {block[row, node]} s; times must be finite and 0 or more")
        played += len(rows)
        # Side by side in memory while they are played, so that a turn reads and writes whole rows.
        yield np.ascontiguousarray(block.T)
