"""What is known of schedules after many scenarios: how long steps take, which is best how often, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.plain_data import data_frame
from dualpipe_sim.base.show import Table, Tabular, line
from dualpipe_sim.base.units import format_percent, number_of
from dualpipe_sim.engine.scenarios import Scenarios
from dualpipe_sim.result import Result

if TYPE_CHECKING:
    from dualpipe_sim.base.plain_data import DataFrame

_RESAMPLES = 400
_SURE = (2.5, 97.5)  # what 95 of 100 resamples lie between
_BOOTSTRAP = 300  # tells the generator of resamples from those of scenarios
QUANTILES = (50, 95)


@dataclass(frozen=True, eq=False)
class Standing:
    """One schedule in all scenarios.

    >>> from dualpipe_sim import robust
    >>> standing = robust("figure5", compare=["gpipe"], **{"scenarios.runs": 20})[0]
    >>> standing.label, standing.times_s.shape, standing.plain_s
    ('gpipe', (20,), 81.0)

    Attributes:
        run: its run without scenarios.
        times_s: seconds of a step in each scenario, shape ``(runs,)``; of the pipeline where no model is known.

    """

    run: Result
    times_s: FloatArray

    def __repr__(self) -> str:
        return line(self, self.label, f"p50 {self.run.in_words(self.p50_s)}", f"p95 {self.run.in_words(self.p95_s)}")

    @property
    def label(self) -> str:
        """The schedule's name with its options."""
        return self.run.label

    @property
    def plain_s(self) -> float:
        """Seconds of a step in which nothing happens."""
        return self.run.step_time_s or self.run.makespan_s or 0.0

    @property
    def p50_s(self) -> float:
        """Seconds that half of the scenarios take at most."""
        return float(np.percentile(self.times_s, 50))

    @property
    def p95_s(self) -> float:
        """Seconds that 95 % of the scenarios take at most."""
        return float(np.percentile(self.times_s, 95))

    @property
    def worst_s(self) -> float:
        """Seconds of the worst scenario."""
        return float(self.times_s.max())

    @property
    def costs(self) -> FloatArray:
        """Seconds a micro-batch in each scenario, or GPU-seconds a token where a model is known; what is compared."""
        rate = self.run.tokens_per_second_per_gpu
        return self.times_s / (self.run.micro_batches if rate is None else rate * self.plain_s)


@dataclass(frozen=True, eq=False)
class Lead:
    """Which schedule is best by one percentile, and how surely.

    Attributes:
        percentile: 50 or 95.
        best: its place among those that fit.
        behind: how much longer each of these takes, as a share, shape ``(schedules,)``.
        surely: what ``behind`` is between in 95 of 100 samples of as many scenarios, shape ``(2, schedules)``.

    """

    percentile: int
    best: int
    behind: FloatArray
    surely: FloatArray

    @property
    def close(self) -> list[int]:
        """Places of others that may as well be the best."""
        return [place for place, low in enumerate(self.surely[0]) if place != self.best and low <= 0]

    @property
    def second(self) -> int:
        """The place of the one next to the best."""
        return int(np.argsort(self.behind, kind="stable")[1])


@dataclass(frozen=True, eq=False)
class Robust(Tabular, Sequence[Standing]):
    """Schedules in the same scenarios: the best by its 95th percentile first, then what does not fit.

    >>> from dualpipe_sim import robust
    >>> found = robust("figure5", compare=["1f1b", "dualpipe"], **{"scenarios.runs": 200})
    >>> found.verdicts[-1]
    'best in so many scenarios: dualpipe in 100.0%'

    Attributes:
        scenarios: what was drawn.
        standings: in that order.
        refused: runs of schedules that cannot be played, with their ``error``.

    """

    scenarios: Scenarios
    standings: tuple[Standing, ...]
    refused: tuple[Result, ...] = ()

    @classmethod
    def of(cls, scenarios: Scenarios, standings: Sequence[Standing], refused: tuple[Result, ...]) -> Robust:
        """Put schedules in their order."""
        best_first = sorted(standings, key=lambda one: (not one.run.fits, np.percentile(one.costs, 95)))
        return cls(scenarios, tuple(best_first), refused)

    def __getitem__(self, index: int) -> Standing:  # type: ignore[override]
        """Return one schedule's standing by its place."""
        return self.standings[index]

    def __len__(self) -> int:
        return len(self.standings)

    def __iter__(self) -> Iterator[Standing]:
        return iter(self.standings)

    def __repr__(self) -> str:
        who = ", ".join(one.label for one in self.standings)
        return line(self, f"of {len(self)} in {number_of(self.scenarios.runs, 'scenario')}: {who}")

    @cached_property
    def _costs(self) -> FloatArray:
        """What is compared of those that fit (of all where none does), shape ``(schedules, runs)``."""
        fitting = [one for one in self.standings if one.run.fits]
        return np.array([one.costs for one in fitting or self.standings])

    @cached_property
    def best_shares(self) -> FloatArray:
        """Share of the scenarios in which each schedule is the best of those that fit, shape ``(schedules,)``.

        Where several are, to the last bit, each has its part of that scenario.
        """
        is_best = self._costs == self._costs.min(axis=0)
        return self._of_all((is_best / is_best.sum(axis=0)).mean(axis=1))

    @cached_property
    def regrets(self) -> FloatArray:
        """How much longer each takes than the best of each scenario, as a share, shape ``(schedules, runs)``."""
        costs = np.array([one.costs for one in self.standings])
        return _longer(costs, self._costs.min(axis=0))

    @cached_property
    def leads(self) -> tuple[Lead, ...]:
        """Which is best by each percentile; how surely, by drawing the scenarios again from themselves (bootstrap)."""
        costs = self._costs
        schedules, runs = costs.shape
        rng = np.random.default_rng([self.scenarios.seed, _BOOTSTRAP])
        drawn = np.empty((_RESAMPLES, schedules, len(QUANTILES)))
        for one in drawn:
            one[:] = np.percentile(costs[:, rng.integers(0, runs, runs)], QUANTILES, axis=1).T
        found = []
        for column, percentile in enumerate(QUANTILES):
            own = np.percentile(costs, percentile, axis=1)
            best = int(own.argmin())
            behind = _longer(drawn[:, :, column], drawn[:, best : best + 1, column])
            found.append(Lead(percentile, best, _longer(own, own[best]), np.percentile(behind, _SURE, axis=0)))
        return tuple(found)

    @property
    def verdicts(self) -> list[str]:
        """Who wins, in sentences."""
        said = [self._lead_in_words(lead) for lead in self.leads] if len(self._costs) > 1 else []
        shares = sorted(zip(self.best_shares.tolist(), self.standings, strict=True), key=lambda one: -one[0])
        often = ", ".join(f"{one.label} in {format_percent(share)}" for share, one in shares if share)
        return [*said, f"best in so many scenarios: {often}"]

    def to_table(self) -> Table:
        """Return the main numbers, a row a schedule, as the table that this shows itself as."""
        headings = ("schedule", "plain", "p50", "p95", "worst", "best in", "regret", "p95 regret")
        rows = []
        for one, share, regret in zip(self.standings, self.best_shares, self.regrets, strict=True):
            seconds = map(one.run.in_words, (one.plain_s, one.p50_s, one.p95_s, one.worst_s))
            shares = (share, float(regret.mean()), float(np.percentile(regret, 95)))
            rows.append([f"{one.run.caption}{self._own_size(one)}", *seconds, *map(format_percent, shares)])
        refused = [f"refused: {run.label}: {run.error}" for run in self.refused]
        title = f"{self.standings[0].run.size} (ranks × micro-batches), {number_of(self.scenarios.runs, 'scenario')}"
        return Table(headings, rows, ("schedule",), title, [*self.verdicts, self._drawn_in_words(), *refused])

    def to_dict(self) -> dict[str, object]:
        """Return all numbers, ready for JSON; seconds of single scenarios are left out."""
        return {
            "scenarios": asdict(self.scenarios),
            "schedules": self._rows(),
            "best": [
                {
                    "percentile": lead.percentile,
                    "schedule": self.standings[lead.best].label,
                    "too_close_to_call": [self.standings[place].label for place in lead.close],
                    "behind": {
                        one.label: {"share": float(share), "surely": [float(low), float(high)]}
                        for one, share, low, high in zip(self.standings, lead.behind, *lead.surely, strict=False)
                    },
                }
                for lead in self.leads
            ],
            "refused": [{"schedule": run.label, "error": run.error} for run in self.refused],
        }

    def to_pandas(self) -> DataFrame:
        """Return the numbers as a pandas DataFrame, a row a schedule.

        Raises:
            UserError: pandas is not installed.

        """
        rows = self._rows()
        return data_frame(rows, rows[0])

    def _rows(self) -> list[dict[str, object]]:
        return [
            {
                "schedule": one.run.schedule,
                "options": dict(one.run.options),
                "ranks": one.run.ranks,
                "micro_batches": one.run.micro_batches,
                "fits": one.run.fits,
                "plain_s": one.plain_s,
                "p50_s": one.p50_s,
                "p95_s": one.p95_s,
                "worst_s": one.worst_s,
                "best_share": float(share),
                "mean_regret": float(regret.mean()),
                "p95_regret": float(np.percentile(regret, 95)),
                "worst_regret": float(regret.max()),
            }
            for one, share, regret in zip(self.standings, self.best_shares, self.regrets, strict=True)
        ]

    def _of_all(self, of_compared: FloatArray) -> FloatArray:
        """Return a number of those compared for all, 0 for those that do not fit."""
        return np.append(of_compared, np.zeros(len(self.standings) - len(of_compared)))

    def _own_size(self, one: Standing) -> str:
        return "" if one.run.size == self.standings[0].run.size else f", {one.run.size}"

    def _lead_in_words(self, lead: Lead) -> str:
        best, second = self.standings[lead.best].label, self.standings[lead.second].label
        low, high = lead.surely[:, lead.second]
        behind = f"{lead.behind[lead.second]:.1%} longer ({low:.1%} to {high:.1%})"
        if lead.close:
            others = ", ".join(self.standings[place].label for place in lead.close)
            return f"p{lead.percentile}: too close to call between {best} and {others}; {second} takes {behind}"
        return f"p{lead.percentile}: {best} is best; {second} takes {behind}"

    def _drawn_in_words(self) -> str:
        told = self.scenarios
        skew = "" if told.routing_skew is None else f"; routing skew {told.routing_skew:g} at the mean"
        ranks = f"{told.stragglers:.0%} of ranks slow, by {told.slowdown:.0%} at the mean"
        links = f"{told.slow_links:.0%} of links slow, by {told.link_slowdown:.0%}"
        return f"drawn: jitter {told.jitter:.0%}; {ranks}; {links}{skew}; seed {told.seed}"


def _longer(costs: FloatArray, best: FloatArray) -> FloatArray:
    """Return how much longer than the best each takes, as a share of it: nothing where neither takes any time."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(costs == best, 0.0, costs / best - 1)
