"""What the page shows of a link: its controls, then each schedule's run, then the table of all.

A pure function of the link's text and the server's start, in parts, so that the first schedule is on the page while the
next one runs, and that a link which nobody waits for any more costs no more than the part under way.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from dualpipe_sim.base.kept import Kept
from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.batch.points import Point, Row
from dualpipe_sim.config.yaml_text import Data, as_yaml
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.explore.controls import controls_of
from dualpipe_sim.explore.link import Link, Start
from dualpipe_sim.result import Comparison, Result, fastest_first
from dualpipe_sim.serving.limits import check_size
from dualpipe_sim.simulation import run_or_refuse


@dataclass(frozen=True)
class Explored:
    """The experiment of one link.

    Attributes:
        data: the configuration, presets unread.
        experiment: what it describes.

    """

    data: Data
    experiment: Experiment

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The schedules that are shown: those compared, and before them the one that ``run`` plays."""
        own, compared = self.experiment.choice, self.experiment.compare
        return compared if own in compared else (own, *compared)

    @property
    def names(self) -> list[str]:
        """What they are called, each with its sizes where several would be called the same."""
        often = Counter(map(str, self.choices))
        return [
            f"{choice}" if often[f"{choice}"] == 1 else f"{choice}, {choice.ranks} × {choice.micro_batches}"
            for choice in self.choices
        ]

    @property
    def entries(self) -> list[str]:
        """The same in YAML, as entries of the list that ``compare:`` is."""
        own, compared = self.experiment.choice, self.experiment.compare
        given = self.data.get("compare")
        written = given if isinstance(given, list) else [choice.name for choice in compared]
        first = [] if own in compared else [self.data.get("schedule", own.name)]
        return [as_yaml([one])[1:-1] for one in (*first, *written)]

    @cached_property
    def _setting(self) -> str:
        """What all its runs have in common."""
        return digest({key: one for key, one in self.data.items() if key not in ("schedule", "compare")})

    def run(self, place: int) -> Result:
        """Return the run of one of its schedules."""
        choice = self.choices[place]
        measured = self.experiment.measured is not None and choice == self.experiment.choice  # stands beside that one
        question = (self._setting, self.entries[place], choice.ranks, choice.micro_batches, measured)
        return _RUNS.of(question, lambda: run_or_refuse(self.experiment, choice))

    def own(self) -> Result:
        """Return the run that ``run`` plays."""
        return self.run(self.choices.index(self.experiment.choice))

    def compared(self) -> Comparison:
        """Return all runs, the fastest first, with what the table must not be read without."""
        from dualpipe_sim.scoring.accuracy import error_bar, remarks

        comparison = fastest_first([self.run(place) for place in range(len(self.choices))])
        return replace(comparison, remarks=remarks(comparison, error_bar(self.experiment)))


def _nodes(run: Result) -> float:
    return 1 if run.timeline is None else len(run.timeline.start_s)


_RUNS: Kept[Result] = Kept(most=1_000_000, size=_nodes)
"""The last runs: whoever adds a schedule does not wait for the others again."""


@lru_cache(maxsize=8)
def explored(start: Start, query: str) -> Explored:
    """Return the experiment of a link.

    Raises:
        UserError: what is wrong with it, in one line.

    """
    found = Explored(*Link.parse(query).read(start))
    check_size(found.experiment, found.choices)
    return found


def head(start: Start, query: str, _place: int = 0) -> Row:
    """Return what the page shows before anything is run: controls, and the schedules to come."""
    found = explored(start, query)
    link = Link.parse(query)
    return {
        "link": "" if link.config or link.yaml else start.link,
        "controls": controls_of(found.data),
        "schedules": [
            {"label": name, "value": entry, "own": choice == found.experiment.choice}
            for choice, name, entry in zip(found.choices, found.names, found.entries, strict=True)
        ],
    }


_EFFORT = 3
"""Of making a run small, which is to be there soon and goes nowhere far."""


def run(start: Start, query: str, place: int) -> Row:
    """Return one schedule's run as the viewer takes it; without one where it was refused."""
    from dualpipe_sim.pictures.report import Run, page_data

    found = explored(start, query)
    result = found.run(place)
    if result.timeline is None:
        return {"place": place, "refused": result.error}
    shown = Run(found.names[place], result.timeline, result.memory)
    return {"place": place, "page": page_data([shown], effort=_EFFORT)}


_NUMBERS = ("label", "makespan_s", "step_time_s", "bubble_ratio")
"""What the page has of each run to the last digit."""


def table(start: Start, query: str, _place: int = 0) -> Row:
    """Return the numbers of all runs: in words, and whole."""
    found = explored(start, query)
    comparison, own = found.compared(), found.experiment.choice
    shown = comparison.to_table()
    return {
        "table": {
            "headings": shown.headings,
            "rows": shown.rows,
            "notes": shown.notes,
            "numbers": [{key: getattr(one, key) for key in _NUMBERS} for one in comparison],
            "own": [
                (one.label, one.ranks, one.micro_batches) == (f"{own}", own.ranks, own.micro_batches)
                for one in comparison
            ],
        }
    }


PARTS: dict[str, Callable[[Start, str, int], Row]] = {"head": head, "run": run, "table": table}
"""What can be asked of a link."""


@dataclass(frozen=True)
class Answers:
    """What a worker process evaluates: parts of answers.

    Attributes:
        start: what the server was started with.

    """

    start: Start

    def __call__(self, point: Point) -> Row:
        """Return a part of an answer, or the one line that says why there is none."""
        from dualpipe_sim.explore.downloads import FILES

        part, query, place = str(point["part"]), str(point["query"]), int(str(point["place"]))
        try:
            with self.start.guard(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of arithmetic: whoever started the page did not ask for this
                return {**PARTS, **FILES}[part](self.start, query, place)
        except UserError as error:
            return {"error": self.start.in_words(error)}
        except MemoryError:
            return {"error": "this takes more memory than a page has; `dualpipe-sim compare` takes more"}
        except Exception as error:  # noqa: BLE001 - a stranger's link must not show where this machine has what
            return {"error": f"this setting meets a fault of the program ({type(error).__name__})"}
