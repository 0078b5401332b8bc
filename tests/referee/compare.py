"""All three play a problem, and are compared."""

from __future__ import annotations

from math import isclose

from dualpipe_sim.engine.play import Engine, play
from dualpipe_sim.errors import DeadlockError, ScheduleError
from tests.referee.judge import StopsForEverError, Verdict, WrongTensorError, judge
from tests.referee.packaged import graph_of, verdict_of
from tests.referee.problem import Problem

_NEAR = 1e-9


def disagreements(problem: Problem) -> list[str]:
    """Return in what the package's engines and the referee differ about a problem."""
    try:
        expected = judge(problem)
    except (StopsForEverError, WrongTensorError) as stopped:
        return _not_refused(problem, stops=isinstance(stopped, StopsForEverError))
    graph = graph_of(problem)
    found = list[str]()
    engines: tuple[Engine, ...] = ("simpy", "longest-path", "auto")
    for engine in engines if graph.fixed_durations else ("simpy", "auto"):
        found += [f"{engine}: {one}" for one in _differences(expected, verdict_of(play(graph, engine)), problem)]
    return found


def _not_refused(problem: Problem, *, stops: bool) -> list[str]:
    """Return which engine plays what never ends, or receives a wrong tensor."""
    found = []
    for engine in ("simpy", "auto"):
        try:
            play(graph_of(problem), engine)
        except DeadlockError as error:
            found += [] if stops else [f"{engine}: stops, where a wrong tensor is received: {error}"]
        except ScheduleError as error:
            found += [f"{engine}: refused, where it stops: {error}"] if stops else []
        else:
            found.append(f"{engine}: plays what {'stops for ever' if stops else 'receives a wrong tensor'}")
    return found


def _differences(expected: Verdict, found: Verdict, problem: Problem) -> list[str]:
    one, other = _spans(expected, problem), _spans(found, problem)
    if one.keys() != other.keys():
        return [f"only one of them knows {sorted(map(str, one.keys() ^ other.keys()))}"]
    longest = max(end for _, end in one.values())
    return [
        f"{name}: {other[name]}, the referee says {span}"
        for name, span in sorted(one.items(), key=lambda item: item[1])
        if not all(
            isclose(mine, theirs, rel_tol=_NEAR, abs_tol=1e-12 * longest)
            for mine, theirs in zip(span, other[name], strict=True)
        )
    ]


def _spans(verdict: Verdict, problem: Problem) -> dict[object, tuple[float, float]]:
    """Return begin and end of all tasks and transfers, and of each part where the problem says what they are."""
    spans: dict[object, tuple[float, float]] = dict(verdict.transfers.items())
    for (rank, place, number), (begin, end) in verdict.parts.items():
        if problem.costs is None:
            spans[rank, place, number] = begin, end
        task = f"{problem.order[rank].split(',')[place]} of rank {rank}"
        first, last = spans.get(task, (begin, end))
        spans[task] = min(first, begin), max(last, end)
    return spans
