"""The search: candidates are judged, those that may be among the best are run, the best are run with contention.

What is ruled out is ruled out by proof: with the same candidates, the ranking is that of running them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from heapq import nsmallest
from math import inf
from pathlib import Path
from typing import cast

from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.base.signals import Stopped
from dualpipe_sim.base.units import in_gb
from dualpipe_sim.batch.points import Evaluate, Progress, Row, Rows
from dualpipe_sim.batch.rows import RowFile
from dualpipe_sim.batch.runner import evaluate_all
from dualpipe_sim.batch.study import Study
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.plan.judge import FAILED, MEMORY, SAME, SIZES, Judge, Verdict, ruled_out
from dualpipe_sim.plan.outcome import Plan
from dualpipe_sim.plan.run import COLUMNS, RunCandidate
from dualpipe_sim.plan.searched import Tried, cuts_of, search_orders
from dualpipe_sim.plan.space import Candidate, candidates_of, gpus_of, layer_costs
from dualpipe_sim.version import __version__

_WAVE = 8  # candidates a worker runs before what they say rules others out; every wave is twice as long
_SAID = ("reason", "detail", "bound_s", "any_order_s", "confirmed_step_time_s")


@dataclass(frozen=True)
class Workers:
    """Where candidates run: processes on this machine, or a Dask scheduler's workers."""

    processes: int = 1
    dask: str | None = None


def plan(  # noqa: PLR0913 - all but the first by keyword
    config: str | Path | Mapping[str, object],
    *,
    settings: Iterable[str] = (),
    top: int = 10,
    confirm: int = 3,
    exhaustive: bool = False,
    orders: int = 0,
    workers: int = 1,
    dask: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Plan:
    """Return the fastest ways to run a configuration's model on its GPUs, of those that its ``plan:`` section leaves.

    >>> found = plan("plan_deepseek_v2_lite", settings=["plan={schedules: [1f1b, dualpipe]}"], top=1, confirm=0)
    >>> found.ranked[0]["schedule"], found.runs, len(found.candidates)
    ('dualpipe', 1, 2)

    Args:
        config: a YAML file, the name of a packaged one, or a mapping of the same shape.
        settings: values that replace its own, ``plan.ranks=[8, 16]``, in YAML.
        top: how many are ranked; any that surely is not among them is not run.
        confirm: how many are run again on SimPy with flows that share links; more, up to ``top``, while one that was
            not may still be the fastest.
        exhaustive: whether to run all that their sizes and memory allow.
        orders: for how many of the best cuts an order is searched, too, within their memory; one that is faster than
            all schedules there takes its place in the ranking. The output holds none of them.
        workers: processes on this machine.
        dask: address of a Dask scheduler whose workers run candidates instead.
        output: a ``.csv``, ``.jsonl`` or ``.parquet`` file of all candidates; those run are appended as they come.
        resume: whether to go on with an ``output`` that is there.
        progress: told of how many of how many candidates is known whether they are among the best.

    Raises:
        ConfigError: what is wrong with the configuration.
        UserError: no candidate can be at these sizes, or a file or workers that cannot be used.

    """
    from dualpipe_sim.config.load import experiment_of, read_config

    if top < 1 or confirm < 0:
        raise UserError(f"top must be 1 or more and confirm 0 or more, got {top} and {confirm}")
    if orders < 0:
        raise UserError(f"orders must be 0 or more (cuts to search an order for), got {orders}")
    data, source = read_config(config, settings=settings)
    experiment = experiment_of(data, source)
    with experiment.named():
        candidates = _distinct(candidates_of(experiment))
    base = {key: value for key, value in data.items() if key not in ("sweep", "compare", "plan")}
    search = _Search(experiment, candidates, top, Workers(workers, dask), progress)
    try:
        search.open(output, [__version__, base], resume=resume)
        search.run_all() if exhaustive else search.run_best()
        if not search.fitting:
            search.run_leanest()
        if search.search_orders(orders):
            search.confirm(confirm)
        return search.finish()
    finally:
        search.close()


class _Search:
    """One search: what is known of each candidate, by its place."""

    def __init__(
        self,
        experiment: Experiment,
        candidates: Sequence[Candidate],
        top: int,
        workers: Workers,
        progress: Progress | None,
    ) -> None:
        self._experiment = experiment
        self._top = top
        self._workers = workers
        self._progress = progress
        self._candidates = list(candidates)
        self._judge = Judge(experiment)
        self._verdicts = self._judged()
        self._registered = len(self._candidates)
        self._tried: list[Tried] = []
        self._interrupted = False
        if all(verdict.reason == SIZES for verdict in self._verdicts):
            raise UserError(f"{experiment.source}: plan: no candidate can be; the first: {self._verdicts[0].detail}")
        self._rows: dict[int, Row] = {}
        self._confirmed_s: dict[int, float] = {}
        self._file: RowFile | None = None
        self._gpu_bytes = int(layer_costs(experiment).gpu.memory_bytes)

    def _judged(self) -> list[Verdict]:
        """Judge all candidates; those ruled out are known already."""
        verdicts, known = [], 0
        for candidate in self._candidates:
            verdicts.append(self._judge(candidate))
            known += verdicts[-1].reason is not None
            if self._progress is not None:
                self._progress(known, len(self._candidates))
        return verdicts

    def open(self, output: str | Path | None, setting: object, *, resume: bool) -> None:
        """Open the file of rows, and take over those that an earlier run left there."""
        points = [candidate.to_dict() for candidate in self._candidates]
        self._study = Study(points, RunCandidate(self._experiment), [*COLUMNS, *_SAID, "error"], setting)
        self._names = list(self._study.by_name)
        if output is None:
            if resume:
                raise UserError("there is no output to resume; name its file")
            return
        self._file = RowFile(output, self._study.columns)
        there = self._file.open(self._names, resume=resume)
        for place, name in enumerate(self._names):
            row = there.get(name)
            if row is not None and (row["step_time_s"] is not None or row["reason"] == FAILED):
                self._rows[place] = {key: row[key] for key in (*COLUMNS, "error")}

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    @property
    def fitting(self) -> list[int]:
        """Places of candidates that ran and fit, fastest first; of equally fast ones that with the least memory."""
        fitting = [place for place, row in self._rows.items() if self._fits(row)]
        return sorted(fitting, key=self._rank)

    def run_all(self) -> None:
        """Run all candidates that can be."""
        self._run([place for place, verdict in enumerate(self._verdicts) if verdict.reason is None])

    def run_best(self) -> None:
        """Run candidates, the one with the least bound first, until no other can be among the best."""
        todo = [place for place, verdict in enumerate(self._verdicts) if verdict.reason is None]
        todo.sort(key=lambda place: (self._verdicts[place].step_s, place))
        self._run_while(todo, lambda place: self._verdicts[place].step_s <= self._cutoff_s())

    def run_leanest(self) -> None:
        """Run candidates, the one with the least memory first, until no other can need less: none fits."""
        todo = [place for place, verdict in enumerate(self._verdicts) if verdict.reason not in (SIZES, SAME)]
        todo.sort(key=lambda place: (self._verdicts[place].memory_bytes, place))
        self._run_while(todo, lambda place: self._verdicts[place].memory_bytes < self._leanest_bytes())

    def search_orders(self, most: int) -> bool:
        """Search an order for each of the best cuts; return whether it was not told to end before it was through."""
        ranked = self.fitting
        if not most or not ranked:
            return True
        faster: list[tuple[Candidate, Row]] = []
        try:
            for best in cuts_of([self._candidates[place] for place in ranked], self._judge, most):
                step_s = self._step_s(self._candidates.index(best))
                own = RunCandidate(self._experiment).result(best)
                held = max(own.peak_activations_by_rank or [0.0])
                found, row, remark = search_orders(
                    best, self._judge, self._rows_of, self._gpu_bytes, held, own.micro_batches
                )
                if found is None or row is None:
                    self._tried.append(Tried(best.label, step_s, remark=remark))
                    continue
                tried = Tried(best.label, step_s, found.label, cast("float", row["step_time_s"]))
                self._tried.append(tried)
                if tried.faster:
                    faster.append((found, row))
        except Stopped:
            self._interrupted = True
        self._add(faster)
        return not self._interrupted

    def _rows_of(self, candidates: list[Candidate]) -> list[Row]:
        points = [candidate.to_dict() for candidate in candidates]
        with closing(self._evaluated(points, self._study.evaluate)) as evaluated:
            rows = dict(evaluated)
        return [{**dict.fromkeys((*COLUMNS, "error")), **rows[place]} for place in range(len(points))]

    def _add(self, found: Sequence[tuple[Candidate, Row]]) -> None:
        """Take candidates over that were run."""
        if not found:
            return
        for candidate, row in found:
            self._rows[len(self._candidates)] = row
            self._candidates.append(candidate)
            self._verdicts.append(self._judge(candidate))
        points = [candidate.to_dict() for candidate in self._candidates]
        self._study = replace(self._study, points=points)
        self._names = list(self._study.by_name)

    def confirm(self, least: int) -> None:
        """Run the best ones again with contention, which only makes them slower, until the fastest is surely known."""
        if not least:
            return
        ranking = self.fitting[: self._top]
        evaluate = RunCandidate(self._experiment, "fair")
        while ranking:
            wanted = max(1, least - len(self._confirmed_s))
            now, ranking = ranking[:wanted], ranking[wanted:]
            points = [self._candidates[place].to_dict() for place in now]
            with closing(self._evaluated(points, evaluate)) as evaluated:
                for index, row in evaluated:
                    self._confirmed_s[now[index]] = cast("float", row.get("step_time_s") or inf)
            if not ranking or self._step_s(ranking[0]) >= min(self._confirmed_s.values()):
                return

    def finish(self) -> Plan:
        """Return the plan, and put the table in place."""
        ranking = self.fitting[: self._top]
        ranking.sort(key=lambda place: (place not in self._confirmed_s, self._confirmed_s.get(place, 0.0)))
        cutoff_s = self._cutoff_s()
        rows = tuple(self._row(place, cutoff_s) for place in range(len(self._candidates)))
        if self._file is not None:
            self._file.finish(rows[: self._registered])
        leanest = min(self._rows, key=lambda place: (self._peak_bytes(place), place), default=None)
        return Plan(
            experiment=self._experiment,
            candidates=tuple(self._candidates),
            rows=rows,
            ranking=tuple(ranking),
            leanest=None if ranking else leanest,
            gpus=gpus_of(self._experiment),
            gpu_bytes=self._gpu_bytes,
            searched=tuple(self._tried),
            interrupted=self._interrupted,
        )

    def _run_while(self, todo: Sequence[int], wanted: Callable[[int], bool]) -> None:
        """Run candidates in their order, in waves, for as long as the next one is wanted."""
        alone = self._workers.processes == 1 and self._workers.dask is None
        left = [place for place in todo if place not in self._rows]
        wave = 1 if alone else _WAVE * self._workers.processes
        while left and wanted(left[0]):
            now = [place for place in left[:wave] if wanted(place)]
            self._run(now)
            left = [place for place in left if place not in self._rows]
            wave *= 1 if alone else 2

    def _run(self, places: Sequence[int]) -> None:
        left = [place for place in places if place not in self._rows]
        points = [self._candidates[place].to_dict() for place in left]
        with closing(self._evaluated(points, self._study.evaluate)) as evaluated:
            for index, row in evaluated:
                place = left[index]
                self._rows[place] = {**dict.fromkeys((*COLUMNS, "error")), **row}
                if self._file is not None:
                    self._file.append(self._row(place, inf))
                self._report()

    def _evaluated(self, points: list[Row], evaluate: Evaluate) -> Rows:
        return evaluate_all(points, evaluate, workers=self._workers.processes, dask=self._workers.dask)

    def _report(self) -> None:
        if self._progress is None:
            return
        cutoff_s = self._cutoff_s()
        known = sum(
            place in self._rows or ruled_out(verdict, cutoff_s).reason is not None
            for place, verdict in enumerate(self._verdicts)
        )
        self._progress(known, len(self._candidates))

    def _row(self, place: int, cutoff_s: float) -> Row:
        """Return a candidate's row of the table, with why it is ruled out if it is."""
        verdict = self._said(place, cutoff_s)
        said = (verdict.reason, verdict.detail or None, verdict.step_s or None, verdict.any_order_s or None)
        row = dict(zip(_SAID, (*said, self._confirmed_s.get(place)), strict=True))
        return self._study.row(self._names[place], {**self._rows.get(place, {}), **row})

    def _said(self, place: int, cutoff_s: float) -> Verdict:
        verdict, row = self._verdicts[place], self._rows.get(place)
        if row is None or verdict.reason is not None:
            return ruled_out(verdict, cutoff_s)
        if row["error"] is not None:
            return replace(verdict, reason=FAILED, detail=str(row["error"]))
        if not self._fits(row):
            needs = f"rank {row['fullest_rank']} needs {in_gb(self._peak_bytes(place), '')} GB"
            return replace(verdict, reason=MEMORY, detail=f"{needs}, its GPU has {in_gb(self._gpu_bytes, '')}")
        return verdict

    def _cutoff_s(self) -> float:
        """Return the step time of the last one of as many as are asked for, infinite while there are fewer."""
        steps_s = (cast("float", row["step_time_s"]) for row in self._rows.values() if self._fits(row))
        best = nsmallest(self._top, steps_s)
        return best[-1] if len(best) == self._top else inf

    def _leanest_bytes(self) -> float:
        return min((self._peak_bytes(place) for place in self._rows), default=inf)

    def _peak_bytes(self, place: int) -> float:
        peak = self._rows[place]["peak_memory_bytes"]
        return inf if peak is None else cast("float", peak)

    def _step_s(self, place: int) -> float:
        return cast("float", self._rows[place]["step_time_s"])

    def _rank(self, place: int) -> tuple[float, float, int]:
        return self._step_s(place), self._peak_bytes(place), place

    def _fits(self, row: Row) -> bool:
        return row["error"] is None and cast("int", row["peak_memory_bytes"]) <= self._gpu_bytes


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    return list({digest(candidate.to_dict()): candidate for candidate in candidates}.values())
