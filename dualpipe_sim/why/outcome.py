"""Why a run takes as long as it does, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dualpipe_sim.analysis.critical_path import PARTS, CriticalPath
from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import format_percent, number_of
from dualpipe_sim.result import Result
from dualpipe_sim.why.bubble import WHERE, Bubble, Wait, Where
from dualpipe_sim.why.sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from dualpipe_sim.pictures.palette import ThemeName
    from dualpipe_sim.pictures.plot import Term

_SAME = 1e-6
_MOST_TERMS = 4


@dataclass(frozen=True, eq=False)
class Why(Tabular):
    """Why one run takes as long as it does.

    >>> from dualpipe_sim.why import why
    >>> found = why("figure5", schedule="1f1b")
    >>> found.bubble.rank, found.bubble.seconds, found.bubble.in_letters()
    (0, 21.0, '7 F + 7 B')
    >>> [(cost.key, cost.per_second) for cost in found.costs]
    [('B', 27.0), ('F', 27.0)]

    Attributes:
        result: the run.
        step_s: seconds of its training step where a model is known, else of the pipeline.
        path: the critical path.
        costs: how the step depends on what tasks take, the largest first.
        hardware: how it depends on GPUs and links.
        bubble: why the rank that idles longest does.
        lettered: whether all stages take the same, so that the letters of formulas stand for one number each.

    """

    result: Result
    step_s: float
    path: CriticalPath
    costs: Sequence[Sensitivity]
    hardware: Sequence[Sensitivity]
    bubble: Bubble
    lettered: bool

    def __repr__(self) -> str:
        first = self.costs[0].words if self.costs else ""
        return line(self, self.result.label, self.result.size, self.result.in_words(self.step_s), first)

    def to_dict(self) -> dict[str, object]:
        """Return everything, ready for JSON."""
        result = self.result
        return {
            "schedule": result.schedule,
            "ranks": result.ranks,
            "micro_batches": result.micro_batches,
            "options": dict(result.options),
            "step_s": self.step_s,
            "makespan_s": result.makespan_s,
            "critical_path_s": self.path.seconds_by_part(),
            "costs": [_as_dict(one) for one in self.costs],
            "hardware": [_as_dict(one) for one in self.hardware],
            "bubble": self._bubble_dict(),
            "theory": result.theory,
        }

    def _bubble_dict(self) -> dict[str, object]:
        bubble = self.bubble
        return {
            "rank": bubble.rank,
            "seconds": bubble.seconds,
            "sum": bubble.in_letters() or None,
            "one_s": dict(bubble.one_s),
            "parts": {
                where: {
                    "seconds": bubble.seconds_in(where),
                    "sum": bubble.in_letters(where) or None,
                    "slopes": None if bubble.slopes is None else dict(bubble.slopes[where]),
                    "waits": [asdict(wait) for wait in bubble.waits if wait.where == where],
                }
                for where in WHERE
            },
        }

    def to_table(self) -> Table:
        """Return how the step depends on each cost, as the table that this shows itself as."""
        rows = [self._row(one) for one in (*self.costs, *self.hardware)]
        headings = ("cost", "one", "critical path", "slope", "per 1 %", "with half", "gain")
        title = f"{self.result.caption}, {self.result.size}: a step of {self._words(self.step_s)}"
        notes = ["slope: by how many seconds the step grows as each of them takes a second more"]
        if len(self.hardware) > 1:
            notes.append("half of a bandwidth's cost is twice the bandwidth")
        return Table(headings, rows, ["cost"], title, notes, most=len(rows))

    def _row(self, one: Sensitivity) -> list[str]:
        step_s = self.step_s or 1.0
        return [
            one.words,
            "" if one.one_s is None else self._words(one.one_s),
            "" if one.path_s is None else f"{self._words(one.path_s)} {format_percent(one.path_s / step_s)}",
            "" if one.one_s is None else _range(one.less_s / one.one_s, one.more_s / one.one_s, "{:.4g}"),
            _range(one.less_s / step_s, one.more_s / step_s, "{:.3f}") + " %",
            self._words(one.halved_s),
            format_percent(1 - one.halved_s / step_s),
        ]

    def path_table(self) -> Table:
        """Return what the critical path is spent on."""
        makespan_s = self.result.makespan_s or 1.0
        rows = [
            [PARTS[part], self._words(seconds), format_percent(seconds / makespan_s)]
            for part, seconds in self.path.seconds_by_part().items()
        ]
        return Table(("critical path", "seconds", "share"), rows, ["critical path"])

    def bubble_table(self) -> Table:
        """Return what the rank that idles longest waits for, part by part of its run."""
        bubble, makespan_s = self.bubble, self.result.makespan_s or 1.0
        rows = [
            [words, self._words(bubble.seconds_in(where)), self._sum(where), _ends([*self._waits_in(where)])]
            for where, words in WHERE.items()
        ]
        rows.append(["in all", self._words(bubble.seconds), self._sum(*WHERE), ""])
        over = " between its first op and its last" if (self.result.theory or {}).get("over") == "span" else ""
        title = (
            f"rank {bubble.rank} idles longest{over}: {self._words(bubble.seconds)}, "
            f"{format_percent(bubble.seconds / makespan_s)} of the run"
        )
        return Table(("bubble", "idle", "as a sum", "ends with"), rows, ["bubble", "as a sum", "ends with"], title,
                     list(self._remarks()))  # fmt: skip

    def plot(self, ax: Axes | None = None, *, title: str | None = None, theme: ThemeName = "light") -> Axes:
        """Draw how the step depends on each cost; see :func:`dualpipe_sim.pictures.plot.sensitivity_bars`."""
        from dualpipe_sim.pictures.plot import Dependence, sensitivity_bars

        both = (*self.costs, *self.hardware)
        rows = [Dependence(one.words, one.less_s, one.more_s, one.halved_s) for one in both]
        what = f"{self.result.caption}, {self.result.size}: what a step of {self._words(self.step_s)} depends on"
        return sensitivity_bars(rows, self.step_s, ax, title=what if title is None else title, theme=theme)

    def gantt(self, ax: Axes | None = None, **options: Any) -> Axes:  # noqa: ANN401 - the plot names and types them
        """Draw the run with the terms of its bubble marked; see :func:`dualpipe_sim.pictures.plot.gantt`."""
        return self.result.gantt(ax, terms=self.terms(), **options)

    def terms(self) -> list[Term]:
        """Return the bubble part by part of its rank's run, as a chart marks it; parts without any are left out."""
        from dualpipe_sim.pictures.plot import Term

        parts = {words: tuple(self._waits_in(where)) for where, words in WHERE.items()}
        return [
            Term(words, self.bubble.rank, tuple((wait.begin_s, wait.end_s) for wait in waits), self._term(waits))
            for words, waits in parts.items()
            if waits
        ]

    def _term(self, waits: Sequence[Wait]) -> str:
        """Return how long the waits of a part are together, and in letters where these stand for one number each."""
        number = "" if len(waits) == 1 else f" in {number_of(len(waits), 'wait')}"
        letters = self.bubble.in_letters(waits[0].where) if self.lettered else ""
        return self._words(sum(wait.seconds for wait in waits)) + number + (f" = {letters}" if letters else "")

    def _waits_in(self, where: Where) -> Iterator[Wait]:
        return (wait for wait in self.bubble.waits if wait.where == where)

    def _sum(self, *parts: Where) -> str:
        """Return the idle time of parts of the run as a sum: by letters, or of seconds where stages differ."""
        bubble = self.bubble
        if bubble.slopes is None or self.lettered:
            return bubble.in_letters(*parts)
        seconds = {
            bubble.letters[key]: sum(bubble.slopes[part].get(key, 0.0) for part in parts) * one_s
            for key, one_s in bubble.one_s.items()
        }
        largest = sorted(seconds, key=lambda letter: -abs(seconds[letter]))
        least_s = _SAME * (self.result.makespan_s or 1.0)
        shown = [letter for letter in largest[:_MOST_TERMS] if abs(seconds[letter]) > least_s]
        terms = [f"{'-' if seconds[one] < 0 else '+'} {one} {self._words(abs(seconds[one]))}" for one in shown]
        rest = " + …" if any(abs(seconds[one]) > least_s for one in largest[_MOST_TERMS:]) else ""
        return " ".join(terms).removeprefix("+ ") + rest or "0"

    def _remarks(self) -> Iterator[str]:
        if self.bubble.slopes is None:
            graph = self.result.played.graph
            reasons = {
                "links or SMs are shared": not graph.fixed_durations,
                "ops wait for their host": graph.issue is not None,
                "several chains of waits are as long, or almost": True,
            }
            yield "it is no sum here: " + next(words for words, hinders in reasons.items() if hinders)
        theory = self.result.theory
        if theory is None:
            return
        bubble_s, numbers = theory["bubble_s"], theory["numbers"]
        value = "" if bubble_s is None else f" = {self._words(bubble_s)}"
        same = bubble_s is not None and numbers == f"{bubble_s:g}"
        filled = f" = {numbers}" if numbers and not same else ""
        verdict = (
            "exactly what it is here" if theory["exact"] else f"which does not hold here, since {theory['reason']}"
        )
        yield f"published: {theory['formula']}{filled}{value}, {verdict} ({theory['source']})"

    def _words(self, seconds: object) -> str:
        return self.result.in_words(seconds)


def _as_dict(one: Sensitivity) -> dict[str, object]:
    return asdict(one) | {"per_second": one.per_second}


def _range(less: float, more: float, form: str) -> str:
    """Return a slope, or both where they differ from side to side."""
    low, high = form.format(less), form.format(more)
    return low if low == high else f"{low} … {high}"


def _ends(waits: Sequence[Wait]) -> str:
    """Return what the waits of a part end with: an op, the first of a pair, or how many waits there are."""
    ops = [wait.op.strip("(").split(";")[0] or "the end" for wait in waits]
    if len(waits) < 2:
        return "".join(ops)
    alike = " alike" if len({round(wait.seconds, 9) for wait in waits}) == 1 else ""
    return f"{number_of(len(waits), 'wait')}{alike}, {ops[0]} to {ops[-1]}"
