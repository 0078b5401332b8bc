"""The referee: when everything of a problem runs, by the longest way through a graph of moments (networkx).

It is slow and plain, and knows what ``docs/model.md`` and ``docs/runtimes.md`` say and nothing of the package. Each
task, part of a task and message has a moment at which it begins and one at which it ends; an edge says how many seconds
must be between two moments. Where links or SMs are shared, no time is known before it has been played: ``fluid`` then
takes the place of the longest way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp, inf
from typing import NamedTuple, TypeAlias, cast

import networkx as nx

from tests.referee.fluid import Activity, Fluid
from tests.referee.problem import Batch, Message, Op, Problem, Tensor, Wait, cells_of, shape_of, tasks_of
from tests.referee.times import Times


class Moment(NamedTuple):
    """When something begins, ends, is ready or done, or is come to by a rank."""

    what: str
    of: Hashable = None


class Slot(NamedTuple):
    """A place in a rank's order."""

    rank: int
    place: int


class PartName(NamedTuple):
    """A part of the task at a place in a rank's order."""

    rank: int
    place: int
    number: int

    @property
    def slot(self) -> Slot:
        """Where its task stands."""
        return Slot(self.rank, self.place)


Name: TypeAlias = "PartName | Tensor"
"""Of what begins and ends: of a tensor it is the transfer."""


class _Way(NamedTuple):
    """Where the n-th send meets the n-th receive, and one of its sides."""

    source: int
    target: int
    own: bool
    sends: bool


_START = Moment("start")
_BESIDE = {"O", "L", "UNSHARD", "REDUCE_GRAD"}
_SAME = 1e-13
_TURNS = 500


class StopsForEverError(Exception):
    """Some wait for each other in a circle."""


class WrongTensorError(Exception):
    """A receive meets the send of another tensor."""


@dataclass(frozen=True)
class Verdict:
    """When each part of each task, and each tensor's transfer, begins and ends."""

    parts: dict[PartName, tuple[float, float]]
    transfers: dict[Tensor, tuple[float, float]]


def judge(problem: Problem) -> Verdict:
    """Return when everything runs.

    Raises:
        StopsForEverError: it never ends.
        WrongTensorError: messages meet others than their own.

    """
    referee = _Referee(problem)
    longer: dict[Name, float] = {}
    verdict = referee.verdict(longer)
    if problem.load is None:
        return verdict
    for _ in range(_TURNS):
        now = referee.under_load(verdict, *problem.load)
        change = max((abs(now[name] - longer.get(name, 1.0)) for name in now), default=0.0)
        longer, verdict = now, referee.verdict(now)
        if change <= _SAME:
            break
    return verdict


class _Referee:
    """One problem's moments."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.times = Times(problem)
        self.tasks = [tasks_of(row) for row in problem.order]
        self.waits: nx.DiGraph[Moment] = nx.DiGraph()
        self.activities: dict[Name, Activity] = {}
        self.rank_of_stage = [rank for pipe in problem.pipes for rank in pipe]
        self.depth_of_stage = [depth for pipe in problem.pipes for depth in range(len(pipe))]
        self.last_of_stage = [stage + 1 == len(pipe) for pipe in problem.pipes for stage in range(len(pipe))]
        self.slot: dict[Op, Slot] = {}
        for rank, row in enumerate(self.tasks):
            for place, task in enumerate(row):
                self.slot.update({op: Slot(rank, place) for op in task if len(op.letter) == 1})
        self.slices = 1 + max(op.slice for op in self.slot)
        self.there: dict[Message, Moment] = {}  # when a tensor's sender, or receiver, has come to it
        self.passed = defaultdict[_Way, list[Tensor]](list)
        self.parts = {Slot(rank, place): self.times.parts_of(task) for rank, place, task in self._all()}
        for rank in range(problem.ranks):
            self._rank(rank)
        for rank, place, task in self._all():
            for op in task:
                if op.letter in "FBIWROL":
                    self._inputs(op, Slot(rank, place))
        if any(op.letter == "S" for op in self.slot):
            self._vocabulary()
        if problem.program is not None:
            self._program()

    # What a rank's order says.

    def _all(self) -> Iterator[tuple[int, int, tuple[Op, ...]]]:
        for rank, row in enumerate(self.tasks):
            for place, task in enumerate(row):
                yield rank, place, task

    def _after(self, earlier: Moment, later: Moment, seconds: float = 0.0) -> None:
        known = self.waits.get_edge_data(earlier, later, {"seconds": -inf})
        self.waits.add_edge(earlier, later, seconds=max(seconds, known["seconds"]))

    def _run(self, name: Name, activity: Activity) -> None:
        self.activities[name] = activity
        self._after(_START, Moment("begin", name))
        self._after(Moment("begin", name), Moment("end", name))

    def _rank(self, rank: int) -> None:
        """Tasks of a rank run in turn; copies and what is done about weights run beside them, on lanes of their own."""
        before: Moment = _START
        on_lane: dict[str, Moment] = {}
        issued = 0.0
        left: list[Moment] = []  # copies to the host
        gathered: dict[int, Moment] = {}
        for place, task in enumerate(self.tasks[rank]):
            slot = Slot(rank, place)
            ready, done = Moment("ready", slot), Moment("done", slot)
            own, after = self.problem.host.get(shape_of(task), (0.0, 0.0))
            self._after(before, ready)
            self._after(_START, ready, issued)
            self._after(_START, done, issued + own)
            self._parts(slot, on_lane)
            self._after(_START, Moment("end", PartName(*slot, len(self.parts[slot]) - 1)), issued + own)
            issued += own + after
            letters = {op.letter for op in task}
            if "F" in letters and len(left) > 1:
                self._after(left[-2], ready)
            for op in task:
                if op.letter in "FBIWR" and op.stage in gathered:
                    self._after(gathered[op.stage], ready)
            if "O" in letters:
                left.append(done)
            if "UNSHARD" in letters:
                gathered[task[0].stage] = done
            if not letters & _BESIDE:
                before = done

    def _parts(self, slot: Slot, on_lane: dict[str, Moment]) -> None:
        for number, part in enumerate(self.parts[slot]):
            name = PartName(*slot, number)
            self._run(name, self.times.activity(part, slot[0]))
            self._after(Moment("ready", slot), Moment("begin", name))
            self._after(Moment("end", name), Moment("done", slot))
            for other in part.after:
                self._after(Moment("end", PartName(*slot, other)), Moment("begin", name))
            if part.lane in on_lane:
                self._after(on_lane[part.lane], Moment("begin", name))
            on_lane[part.lane] = Moment("end", name)

    # What ops wait for.

    def _slot(self, op: Op, *letters: str) -> tuple[Slot, Op] | None:
        found = (op._replace(letter=letter) for letter in letters)
        return next(((self.slot[one], one) for one in found if one in self.slot), None)

    def _output(self, slot: Slot, op: Op) -> Moment:
        """Return when an op's output is there: with the last part of its own half but for those that come later."""
        in_time = [(number, part) for number, part in enumerate(self.parts[slot]) if not part.late]
        half = self.tasks[slot[0]][slot[1]].index(op)
        own = [number for number, part in in_time if part.half == half]
        return Moment("end", PartName(*slot, max(own) if own else in_time[-1][0]))

    def _needs(self, op: Op) -> Iterator[tuple[Op, str]]:
        """Yield what an op waits for, and by which letters that goes."""
        letter, stage, _, part = op
        above, below = op._replace(stage=stage - 1), op._replace(stage=stage + 1)
        if letter == "F":
            if self.depth_of_stage[stage]:
                yield above, "F"
            if part:
                yield op._replace(slice=part - 1), "F"
            return
        yield from ((op, letters) for letters in {"W": "I", "R": "F", "O": "F", "L": "O"}.get(letter, "FRL"))
        if letter in "BI" and part + 1 < self.slices:
            yield op._replace(slice=part + 1), "BI"
        if (letter in "BI" or (letter == "R" and self.problem.late_again)) and not self.last_of_stage[stage]:
            yield below, "BI"

    def _inputs(self, op: Op, slot: Slot) -> None:
        """What an op waits for: of other ranks by a transfer, of its own as its order has it."""
        for other, letters in self._needs(op):
            found = self._slot(other, *letters)
            if found is None:
                continue
            theirs, made_by = found
            if theirs.rank == slot.rank:
                self._after(Moment("done", theirs), Moment("ready", slot))
                continue
            tensor = Tensor(letters == "F", *op[1:])
            if tensor not in self.activities:
                self._run(tensor, self.times.transfer(tensor, made_by, theirs.rank, slot.rank))
            self._after(self._output(theirs, made_by), Moment("begin", tensor))
            self._after(Moment("end", tensor), Moment("ready", slot))

    def _vocabulary(self) -> None:
        """Barriers around S and T, and passes of all ranks at once where there is no T."""
        last = len(self.rank_of_stage) - 1
        passes = defaultdict[tuple[str, int, int], list[Slot]](list)
        for op, slot in self.slot.items():
            if op.letter in "ST":
                passes[op.letter, op.micro_batch, op.slice].append(slot)
        together = not any(letter == "T" for letter, _, _ in passes)
        for (letter, micro_batch, part), slots in passes.items():
            at_last = Op("F", last, micro_batch, part)
            if letter == "S":
                for slot in slots:
                    self._after(self._output(self.slot[at_last], at_last), Moment("ready", slot))
            else:
                self._outputs_before(passes["S", micro_batch, part], slots)
            if letter == ("T" if self.problem.barriers == 2 and not together else "S"):
                backward = self._slot(at_last, "B", "I")
                assert backward is not None
                self._outputs_before(slots, [backward[0]])
            if together:
                self._at_once(slots)

    def _all_before(self, earlier: Iterable[Slot], later: Sequence[Slot]) -> None:
        for one in earlier:
            for other in later:
                self._after(Moment("done", one), Moment("ready", other))

    def _outputs_before(self, earlier: Iterable[Slot], later: Sequence[Slot]) -> None:
        for rank, place in earlier:
            for other in later:
                self._after(self._output(Slot(rank, place), self.tasks[rank][place][0]), Moment("ready", other))

    def _at_once(self, slots: Sequence[Slot]) -> None:
        """A pass of all ranks starts when all have come to it, and goes on with the last."""
        for rank, place in slots:
            in_turn = [one for one, task in enumerate(self.tasks[rank]) if task[0].letter not in (*_BESIDE, "RESHARD")]
            where = in_turn.index(place)
            if where:
                self._all_before([Slot(rank, in_turn[where - 1])], slots)
            if where + 1 < len(in_turn):
                self._all_before(slots, [Slot(rank, in_turn[where + 1])])

    # What a program says.

    def _program(self) -> None:
        for rank, row in enumerate(self.problem.program or ()):
            self._issue(rank, row)
        for way, met in self.passed.items():
            other = self.passed.get(way._replace(sends=not way.sends), [])
            if met != other:
                raise WrongTensorError(f"from rank {way.source} to rank {way.target}")

    def _issue(self, rank: int, row: str) -> None:
        """Go through a rank's program: ops on its compute stream, messages on their lines."""
        places = (place for place, task in enumerate(self.tasks[rank]) if len(task[0].letter) == 1)
        stream: list[Moment] = []  # what the compute stream has waited for
        lines: dict[Hashable, list[Moment]] = {}
        issued: list[Slot] = []
        for cell in cells_of(row):
            if isinstance(cell, Wait):
                stream += [Moment("end", one.tensor) for one in cell.messages]
            elif isinstance(cell, Batch):
                at_line: dict[Hashable, list[Moment]] = {}
                for one in cell.messages:
                    way, line = self._line(rank, one, lone=cell.lone)
                    self.passed[way].append(one.tensor)
                    there = self.there[one] = Moment("there", one)
                    for moment in (*stream, *lines.get(line, ())):
                        self._after(moment, there)
                    self._after(_START, there, self._host_done(issued))
                    self._after(there, Moment("begin", one.tensor))
                    at_line.setdefault(line, []).append(Moment("end", one.tensor))
                lines |= at_line
            else:
                slot = Slot(rank, next(places))
                if cell[0].letter in _BESIDE:
                    continue
                for moment in stream:
                    self._after(moment, Moment("ready", slot))
                issued.append(slot)
                stream = [Moment("done", slot)]

    def _line(self, rank: int, message: Message, *, lone: bool) -> tuple[_Way, Hashable]:
        """Return where a message is matched, and the line of the rank that it goes on."""
        sends, (forward, stage, *_) = message
        other = self.rank_of_stage[stage if sends else stage + (-1 if forward else 1)]
        own = lone and self.problem.lines != "one"
        source, target = (rank, other) if sends else (other, rank)
        line = (other, sends and self.problem.lines == "direction") if own else None
        return _Way(source, target, own, sends), line

    def _host_done(self, issued: Sequence[Slot]) -> float:
        """Return when the host has issued the last of some tasks."""
        if not issued:
            return 0.0
        rank, last = issued[-1]
        host = [self.problem.host.get(shape_of(task), (0.0, 0.0)) for task in self.tasks[rank][: last + 1]]
        return sum(own + after for own, after in host) - host[-1][1]

    # When things run.

    def verdict(self, longer: dict[Name, float]) -> Verdict:
        """Return when everything runs where some parts take longer, by these factors."""
        activities = {name: one.times(longer.get(name, 1.0)) for name, one in self.activities.items()}
        if not nx.is_directed_acyclic_graph(self.waits):
            raise StopsForEverError
        shared = any(one.flows or one.alone is not None for one in activities.values())
        self.moments = (self._played if shared else self._longest)(activities)
        spans = {name: (self.moments[Moment("begin", name)], self.moments[Moment("end", name)]) for name in activities}
        return Verdict(
            {name: span for name, span in spans.items() if isinstance(name, PartName)},
            {name: span for name, span in spans.items() if isinstance(name, Tensor)},
        )

    def _longest(self, activities: dict[Name, Activity]) -> dict[Moment, float]:
        moments: dict[Moment, float] = {}
        for moment in nx.topological_sort(self.waits):
            moments[moment] = max(
                (
                    moments[earlier] + max(edge["seconds"], self._lasts(earlier, moment, activities))
                    for earlier, edge in self.waits.pred[moment].items()
                ),
                default=0.0,
            )
        return moments

    @staticmethod
    def _lasts(earlier: Moment, later: Moment, activities: dict[Name, Activity]) -> float:
        """Return the seconds of an activity between its begin and its end, 0 of others."""
        if earlier.what == "begin" and later == Moment("end", earlier.of):
            return activities[cast("Name", earlier.of)].seconds
        return 0.0

    def _played(self, activities: dict[Name, Activity]) -> dict[Moment, float]:
        moments: dict[Moment, float] = {}
        missing = dict(self.waits.in_degree())
        fluid = Fluid(self.times.bandwidth, lambda name: pass_on(Moment("end", name)))

        def pass_on(later: Moment) -> None:
            missing[later] -= 1
            if not missing[later]:
                reach(later)

        def reach(moment: Moment) -> None:
            moments[moment] = fluid.now
            for later, edge in self.waits.succ[moment].items():
                if moment.what == "begin" and later.what == "end":
                    fluid.begin(moment.of, activities[cast("Name", moment.of)])
                elif edge["seconds"]:
                    fluid.at(fluid.now + edge["seconds"], partial(pass_on, later))
                else:
                    pass_on(later)

        reach(_START)
        fluid.run()
        return moments

    # Load.

    def under_load(self, verdict: Verdict, beta: float, tau: float, gamma: float) -> dict[Name, float]:
        """Return how many times as long each part on compute takes as on an idle GPU, after what this verdict says."""
        factors: dict[Name, float] = {}
        for rank in range(self.problem.ranks):
            names = [name for name in verdict.parts if name[0] == rank and self._on_compute(name)]
            held = [
                (self.moments[moment], verdict.transfers[message.tensor][1])
                for message, moment in self.there.items()
                if self._side(message) == rank
            ]
            for place, name in enumerate(names):
                start, end = verdict.parts[name]
                busy = sum(
                    exp(-(start - verdict.parts[one][1]) / tau) - exp(-(start - verdict.parts[one][0]) / tau)
                    for one in names[:place]
                )
                beside = _covered(held, start, end) / (end - start) if end > start else 0.0
                factors[name] = (1 + beta * busy) * (1 + gamma * beside)
        return factors

    def _on_compute(self, name: PartName) -> bool:
        return self.parts[name.slot][name.number].lane == "compute"

    def _side(self, message: Message) -> int:
        sends, (forward, stage, *_) = message
        return self.rank_of_stage[stage + ((-1 if forward else 1) if sends else 0)]


def _covered(spans: Iterable[tuple[float, float]], start: float, end: float) -> float:
    """Return for how long of a time at least one of some spans is there."""
    covered, until = 0.0, start
    for begin, stop in sorted(spans):
        if min(stop, end) > max(begin, until):
            covered, until = covered + min(stop, end) - max(begin, until), min(stop, end)
    return covered
