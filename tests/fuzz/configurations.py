"""Configurations with values in them that nobody expects, and what commands make of them.

What comes out is held to what whoever reads the JSON counts on: numbers that are numbers, no negative time or memory,
shares between 0 and 1, and no warning of arithmetic.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from math import isfinite
from pathlib import Path
from random import Random

from dualpipe_sim.answers import answer, strict_json
from dualpipe_sim.config.load import load_experiment
from dualpipe_sim.demand import Limit, check
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.order.check import read_order
from dualpipe_sim.order.text import format_order
from dualpipe_sim.scoring.accuracy import comparison_errors, error_bar, run_error
from dualpipe_sim.simulation import build_choice, run, run_all
from tests.fuzz.config_data import configuration
from tests.fuzz.kind import Kind

_ROUNDING = 1e-9
"""Of a difference of times, over the longest of them."""


_FEW, _MANY = 100_000, 20_000_000
"""Steps of what is drawn or written out node by node, and of what is only run, that many cases have time for."""


def _small(path: Path, steps: int = _MANY, **overrides: object) -> Experiment:
    """Return the experiment of a file, where it is as small as many cases must be."""
    experiment = load_experiment(path, overrides)
    with experiment.named():
        check(experiment, (experiment.choice, *experiment.compare), Limit(300e6, steps, "a case takes"))
    return experiment


def _run(path: Path) -> None:
    experiment = _small(path)
    _check_answer("run", run(experiment).to_dict() | run_error(error_bar(experiment)))


def _compare(path: Path) -> None:
    experiment = _small(path)
    comparison = run_all(experiment)
    told = comparison.to_dict() | comparison_errors(comparison, error_bar(experiment))
    _check_answer("compare", told)
    assert comparison.to_csv()
    assert comparison.to_table().rows


def _memory(path: Path) -> None:
    memory = run(_small(path)).memory
    if memory is not None:
        _check_answer("memory", memory.to_dict())


def _layers(path: Path) -> None:
    from dualpipe_sim.costs.breakdown import breakdown
    from dualpipe_sim.costs.layers import LayerCosts

    experiment = _small(path)
    if isinstance(experiment.costs, LayerCosts):
        with experiment.named():
            _check_answer("layers", breakdown(experiment.costs).to_dict())


def _why(path: Path) -> None:
    from dualpipe_sim.why import why_run

    found = why_run(_small(path, _FEW))
    _check_answer("why", found.to_dict(), signed=True)  # it is about differences
    for table in (found.to_table(), found.path_table(), found.bubble_table()):
        assert table.rows is not None


def _timeline(path: Path) -> None:
    result = run(_small(path, _FEW))
    for *_, start_s, end_s in result.played.rows():
        assert 0 <= start_s <= end_s < float("inf")


def _order(path: Path) -> None:
    """Write the order down and check it, as `schedule` and `check` do."""
    experiment = _small(path, _FEW)
    with experiment.named():
        order = build_choice(experiment, experiment.choice)
        if len(order.placement.pipes) == 1 and not order.vocabulary:
            findings, _ = read_order(format_order(order), "explicit", barriers=1, name="order")
            assert not findings, findings[0]


def _sweep(path: Path) -> None:
    from dualpipe_sim.batch.study import collect
    from dualpipe_sim.sweeps.runs import study_of

    _small(path)
    for row in collect(study_of(path, {"pipeline.micro_batches": [2, 8]})):
        _check_answer("sweep", {key: one for key, one in row.items() if key not in ("point", "measured")}, points=True)


def _robust(path: Path) -> None:
    from dualpipe_sim.robustness.play import robust_choice

    _check_answer("robust", robust_choice(_small(path, scenarios={"runs": 3})).to_dict(), signed=True)


def _gantt(path: Path) -> None:
    from dualpipe_sim.pictures.plot import save

    save(run(_small(path, _FEW)).gantt().figure, path.with_suffix(".svg"))


def _report(path: Path) -> None:
    assert "NaN" not in str(run_all(_small(path, _FEW)).report())


def _trace(path: Path) -> None:
    from dualpipe_sim.export.chrome import write_chrome

    result, trace = run(_small(path, _FEW)), path.with_suffix(".json")
    write_chrome(result.played, trace, result.memory)
    strict_json(json.loads(trace.read_text(encoding="utf-8")))


_ACTIONS: tuple[tuple[Callable[[Path], None], int], ...] = (
    (_run, 60),
    (_compare, 8),
    (_memory, 4),
    (_layers, 4),
    (_why, 4),
    (_timeline, 4),
    (_order, 4),
    (_sweep, 4),
    (_robust, 4),
    (_trace, 2),
    (_report, 1),
    (_gantt, 1),
)
"""What is done with a file, and how often of a hundred."""


def _attempt(path: Path) -> None:
    chance = Random(sha256(path.read_bytes()).hexdigest())  # noqa: S311 - the same for the same file
    actions, often = zip(*_ACTIONS, strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # of numpy's arithmetic
        chance.choices(actions, often)[0](path)


def _check_answer(command: str, told: Mapping[str, object], *, signed: bool = False, points: bool = False) -> None:
    """Fail where what a command says as JSON has a number that can be none."""
    strict_json(answer(command, told))
    if points:
        assert any(key in told for key in ("makespan_s", "error"))
    scale = max((abs(one) for _, one in _numbers(told)), default=0.0)
    for key, one in _numbers(told):
        assert isfinite(one), f"{key} is {one}"
        if not signed:
            _check_number(key, one, _ROUNDING * scale)


def _check_number(key: str, one: float, rounding: float) -> None:
    if key.endswith(("_s", "_bytes", "_by_rank", "seconds", "_by_cause")):
        assert one >= -rounding, f"{key} is {one}"
    if key == "mfu_noncausal":  # which counts twice the attention that is computed
        assert 0 <= one <= 2 * (1 + _ROUNDING), f"{key} is {one}"
    elif "ratio" in key or key.startswith("mfu"):
        assert -_ROUNDING <= one <= 1 + _ROUNDING, f"{key} is {one}"


_AS_GIVEN = ("options", "measured")
"""Keys of what is said back as it was said."""


def _numbers(told: object, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield each number with the last key above it."""
    if isinstance(told, Mapping):
        for name, one in told.items():
            if name not in _AS_GIVEN:
                yield from _numbers(one, key if key.endswith("by_cause") else str(name))
    elif isinstance(told, (list, tuple)):
        for one in told:
            yield from _numbers(one, key)
    elif isinstance(told, float):
        yield key, told


KIND = Kind("configurations", ".yaml", configuration, _attempt, in_tests=40, in_long=20_000)
