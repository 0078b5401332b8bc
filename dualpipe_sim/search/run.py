"""The search: walks from several starts, walks on from the best so far, then a solver on the best orders.

Rounds are of a fixed number of walks, and a walk draws from its own seed: so the same seed and as many rounds find the
same, whatever the machine and however many processes. Beside what walks find stand all registered schedules that fit,
so that the answer is never worse than any of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from math import inf
from os import cpu_count
from pathlib import Path
from time import monotonic
from typing import cast

from dualpipe_sim.base.files import TABLE, output_file, read_text, written_whole
from dualpipe_sim.base.json_text import parse_json
from dualpipe_sim.base.locks import locked
from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.base.signals import Stopped
from dualpipe_sim.batch.points import Evaluate, Row
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.order.ops import R
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import format_order, parse_order
from dualpipe_sim.schedules.annealing.anneal import begun, spread_out
from dualpipe_sim.schedules.annealing.in_turn import play
from dualpipe_sim.schedules.annealing.problem import Answer, Problem
from dualpipe_sim.search.ask import problem_of
from dualpipe_sim.search.bound import lower_bound
from dualpipe_sim.search.found import Found
from dualpipe_sim.search.named import Order, fits, played, registered
from dualpipe_sim.search.walks import Polish, Walk, answer_of

_EXPLORED = 3  # rounds from the start
_KEPT = 4  # answers
_HOT = (5e-3, 4e-2, 1e-2, 2e-2)  # of a rank's mean work, each walk of a round
_WARMER = 0.3  # as hot, where a walk goes on
_FOR_THE_SOLVER = 0.25  # of the time
_POLISHED = 2  # orders
_A_ROUND_S = 4.0  # of the solver's own seconds, where rounds are counted
_ROUNDING = 1e-9

Watched = Callable[[float, float, float], None]
"""Told how much of how much is done, and the best makespan so far."""


@dataclass
class _State:
    """Where a search stands; as a file, what it goes on from.

    Attributes:
        rounds: how many are done.
        spent_s: seconds spent.
        kept: the best answers, the shortest first, each (makespan, answer).

    """

    rounds: int = 0
    spent_s: float = 0.0
    kept: list[tuple[float, Answer]] = field(default_factory=list)

    def keep(self, row: Row) -> None:
        """Keep a walk's answer if it is one of the best, and no other with the same cuts is better."""
        if row.get("answer") is None:
            return
        new = cast("float", row["makespan_s"]), answer_of(row["answer"])
        self.kept = [old for old in self.kept if old[1].cuts != new[1].cuts or old[0] < new[0]]
        if all(old[1].cuts != new[1].cuts for old in self.kept):
            self.kept = sorted([*self.kept, new])[:_KEPT]


def search(
    config: str | Path | Mapping[str, object],
    *,
    settings: list[str] | tuple[str, ...] = (),
    workers: int | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    watched: Watched | None = None,
) -> Found:
    """Find the partition, placement and order with the shortest step, of any that fit.

    >>> from dualpipe_sim.search import search
    >>> layers = [{"forward": 1.0, "backward": 2.0, "count": 4}, {"forward": 2.0, "backward": 4.0}]
    >>> found = search({"pipeline": {"ranks": 2, "micro_batches": 2}, "costs": {"kind": "profile", "layers": layers},
    ...                 "search": {"rounds": 1, "moves": 300, "stages_per_rank": 2}}, workers=1)
    >>> found.makespan_s <= min(found.named.values())
    True

    Args:
        config: a YAML file, a packaged configuration, or a mapping; its section ``search`` says what is looked for.
        settings: ``key=value`` that replace some of it.
        workers: processes; by default as many as there are cores, of which a round keeps four busy.
        output: a file that keeps where the search stands, after each round.
        resume: whether to go on from such a file.
        watched: told how far the search is.

    Raises:
        UserError: what is wrong, in one line; among it that nothing fits within the limit.

    """
    from dualpipe_sim.config.load import load_experiment

    experiment = load_experiment(config, settings=settings)
    with nullcontext() if output is None else locked(output_file(output), output), experiment.named():
        return _Search(experiment, workers or cpu_count() or 1, output, resume, watched).found()


class _Search:
    def __init__(
        self, experiment: Experiment, workers: int, output: str | Path | None, resume: bool, watched: Watched | None
    ) -> None:
        self._experiment, self._sought = experiment, experiment.sought
        self._problem = problem_of(experiment)
        self._workers, self._output, self._watched = workers, output, watched
        self._begun_s = monotonic()
        self._name = digest([self._problem, self._sought.moves, self._sought.seed])
        if output is not None and not resume and output_file(output).exists():
            raise UserError(f"{output}: is there already; --resume goes on from it, or name another file")
        self._state = self._read() if resume else _State()
        self._begun_s -= self._state.spent_s
        self._remark = ""
        self._best_s = inf

    def found(self) -> Found:
        """Search, and say what was found."""
        bound_s, bound = lower_bound(self._problem)
        named = sorted(registered(self._experiment, self._problem), key=_by_makespan)
        orders, proved, interrupted = named[:1], False, False
        self._best_s = min([order.makespan_s for order in orders], default=inf)
        try:
            while self._goes_on(bound_s):
                self._round()
            orders += self._walked()
            orders, proved = self._polished(sorted(orders, key=_by_makespan))
        except Stopped:
            interrupted = True
            orders += self._walked()
        if not orders:
            limit = self._problem.most_activations
            raise UserError(f"search: found no order that holds at most {limit:g} activations on a rank; allow more")
        best = min(orders, key=_by_makespan)
        proved = proved or best.makespan_s <= bound_s * (1 + _ROUNDING)
        return Found(
            self._problem,
            best.result,
            best.partition,
            {order.origin: order.makespan_s for order in named},
            bound_s,
            bound,
            best.origin,
            proved,
            self._state.rounds,
            monotonic() - self._begun_s,
            self._sought.seed,
            interrupted,
            self._remark,
        )

    def _goes_on(self, bound_s: float) -> bool:
        """Return whether another round is due, and has the time."""
        state, sought = self._state, self._sought
        if self._best_s <= bound_s * (1 + _ROUNDING):
            return False
        if sought.rounds is not None:
            return state.rounds < sought.rounds
        spent_s = monotonic() - self._begun_s
        a_round_s = spent_s / state.rounds if state.rounds else 0.0
        return spent_s + a_round_s / 2 < sought.seconds * (1 - _FOR_THE_SOLVER)

    def _round(self) -> None:
        state = self._state
        points = [
            {
                "start": start,
                "hottest": hottest,
                "seed": f"{self._sought.seed} {state.rounds} {place}",
            }
            for place, (start, hottest) in enumerate(_starts(self._problem, state))
        ]
        for row in self._evaluated(points, Walk(self._problem, self._sought.moves)):
            state.keep(row)
            self._best_s = min(self._best_s, cast("float", row.get("makespan_s", inf)))
            self._tell()
        state.rounds += 1
        state.spent_s = monotonic() - self._begun_s
        if self._output is not None:
            self._write(self._output)

    def _walked(self) -> list[Order]:
        """Return the orders of the answers that were kept, with their runs."""
        orders = []
        for _, answer in self._state.kept[:_POLISHED]:
            order = play(self._problem, answer)
            if order is not None:
                schedule = self._problem.schedule(answer, order.lines)
                orders.append(self._run(schedule, answer.partition, "found by annealing"))
        return orders

    def _polished(self, orders: list[Order]) -> tuple[list[Order], bool]:
        """Return the best orders with what the solver makes of them, and whether the best one is proved."""
        if self._sought.rounds is not None:
            within_s, patience_s = _A_ROUND_S, None
        else:
            within_s = patience_s = max(1.0, self._sought.seconds - (monotonic() - self._begun_s))
        tried = [order for order in orders if not order.schedule.of_kinds(R).any()][:_POLISHED]  # (CP-SAT has no R)
        points: list[dict[str, object]] = [
            {
                "text": format_order(order.schedule),
                "partition": list(order.partition),
                "within_s": within_s,
                "patience_s": patience_s,
            }
            for order in tried
        ]
        found, proofs = list(orders), {}
        for order, row in zip(tried, self._evaluated(points, Polish(self._problem)), strict=True):
            if "text" not in row:
                self._remark = f"orders were not improved by CP-SAT: {row['error']}"
                continue
            schedule = parse_order(cast("str", row["text"]), name="searched")
            polished = self._run(schedule, order.partition, f"{order.origin}, improved by CP-SAT")
            shorter = polished.makespan_s < order.makespan_s * (1 - _ROUNDING)
            kept = polished if shorter and fits(polished, self._problem) else order
            found.append(kept)
            proofs[id(kept)] = bool(row["proved"])
        best = min(found, key=_by_makespan)
        return found, proofs.get(id(best), False)

    def _run(self, schedule: Schedule, partition: tuple[int, ...], origin: str) -> Order:
        return played(self._experiment, self._problem, schedule, partition, origin)

    def _evaluated(self, points: list[dict[str, object]], evaluate: Evaluate) -> list[Row]:
        """Return the rows of points, in their order."""
        rows: dict[int, Row] = {}
        with closing(evaluate_all(points, evaluate, workers=max(1, min(self._workers, len(points))))) as evaluated:
            rows.update(evaluated)
        return [rows[place] for place in range(len(points))]

    def _tell(self) -> None:
        if self._watched is None:
            return
        if self._sought.rounds is None:
            self._watched(monotonic() - self._begun_s, self._sought.seconds, self._best_s)
        else:
            self._watched(self._state.rounds, self._sought.rounds, self._best_s)

    def _write(self, output: str | Path) -> None:
        state = self._state
        data = {"search": self._name, "rounds": state.rounds, "spent_s": state.spent_s, "kept": state.kept}
        with written_whole(output, ours=True) as part:
            part.write_text(json.dumps(data))

    def _read(self) -> _State:
        if self._output is None:
            raise UserError("there is no output to resume; name its file")
        if not Path(self._output).exists():
            return _State()
        try:
            data = parse_json(read_text(self._output, TABLE), str(self._output))
            name, state = data["search"], _State(data["rounds"], data["spent_s"])
            state.kept = [(makespan_s, answer_of(answer)) for makespan_s, answer in data["kept"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self._output}: is no file of a search") from error
        if name != self._name:
            raise UserError(f"{self._output}: is of another search; name another file, or leave --resume out")
        return state


def _by_makespan(order: Order) -> float:
    return order.makespan_s


def _starts(problem: Problem, state: _State) -> Iterator[tuple[Answer, float]]:
    """Yield where each walk of the next round begins, and how hot."""
    exploring = state.rounds < _EXPLORED or state.rounds % _EXPLORED == 0 or not state.kept
    deep = -(-problem.most_stages // problem.ranks)
    depths = [depth for depth in (4, 3, 5, 2, 6, 1, 8) if depth <= deep] or [1]
    for place, hottest in enumerate(_HOT):
        if exploring:
            stages = min(problem.ranks * depths[(place + state.rounds) % len(depths)], problem.most_stages)
            zigzag = (place // 2 + state.rounds) % 2 == 1
            if problem.most_activations is None:
                yield begun(problem, stages, zigzag=zigzag), hottest
            elif place % 2:
                yield spread_out(problem, stages, zigzag=zigzag), hottest
            else:
                yield begun(problem, stages, zigzag=zigzag, deep_first=True), hottest
        else:
            yield state.kept[place // 2 % len(state.kept)][1], _WARMER * hottest
