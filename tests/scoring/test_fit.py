"""What a fit would gain: what is wrong everywhere is found, and no source is predicted by what it says itself."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from math import log
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytest

from dualpipe_sim.config.yaml_text import as_block
from dualpipe_sim.scoring import Board, Prediction
from tests.pages import script

ROOT = Path(__file__).parents[2]
PARTS = ("compute", "recompute", "exposed all-to-all", "tensor parallelism", "uneven stages", "bubble", "end of step")
GPUS = ("a100", "h100", "b200")


@pytest.fixture(scope="module")
def fit() -> ModuleType:
    return script(ROOT / "validation" / "fit.py")


def made_up(
    place: int,
    wrong: dict[str, float],
    *,
    source: str | None = None,
    **changes: Any,  # noqa: ANN401 - any field
) -> Prediction:
    """Return a prediction of parts drawn at random, some of which would have to be so many times as long."""
    drawn = random.Random(place)  # noqa: S311
    parts_s = {part: drawn.uniform(0.5, 5.0) for part in PARTS}
    gpu = GPUS[place % 3]
    measured_s = sum(seconds * wrong.get(part, wrong.get(gpu, 1.0)) for part, seconds in parts_s.items())
    known: dict[str, Any] = {
        "kind": "moe" if place % 2 else "dense",
        "source": source or f"source {place % 5}",
        "gpu": gpu,
        "step_time_s": sum(parts_s.values()),
        "parts_s": parts_s,
        "measured_step_time_s": measured_s,
    }
    return Prediction(f"run {place}", **known | changes)


def board(number: int, wrong: dict[str, float]) -> Board:
    return Board(tuple(made_up(place, wrong) for place in range(number)))


@pytest.mark.parametrize("part", ["tensor parallelism", "exposed all-to-all", "end of step", "bubble"])
def test_a_part_that_is_20_percent_short_everywhere_is_found(fit: ModuleType, part: str) -> None:
    found = fit.what_a_fit_gains(board(40, {part: 1.25}))
    assert found.factors[part] == pytest.approx(1.25, rel=0.01)
    assert [factor for name, factor in found.factors.items() if name != part] == pytest.approx([1.0] * 6, rel=0.01)
    assert found.before["all"].median > 0.01
    assert found.fitted["all"].p90 < 0.005
    assert found.left_out["all"].p90 < 0.005  # what is wrong everywhere is learnt from any source


def test_compute_has_a_factor_for_each_family_of_gpus(fit: ModuleType) -> None:
    wrong = {"a100": 1.1, "h100": 0.8, "b200": 1.3}
    others = dict.fromkeys(fit.ALONE, 1.0)
    found = fit.fit(fit.Steps.of(board(60, wrong | others).predictions))
    said = [found[f"compute, {family}"] for family in ("A100", "Hopper", "Blackwell")]
    assert said == pytest.approx([1.1, 0.8, 1.3], rel=0.01)


def test_several_parts_at_once(fit: ModuleType) -> None:
    wrong = {"tensor parallelism": 1.5, "bubble": 0.7, "end of step": 1.2}
    found = fit.fit(fit.Steps.of(board(60, wrong).predictions))
    assert {part: found[part] for part in wrong} == pytest.approx(wrong, rel=0.02)


def test_a_fit_is_never_worse_where_it_was_made_and_the_same_each_time(fit: ModuleType) -> None:
    """By the mean of logarithms, which it makes least."""
    drawn = random.Random(1)  # noqa: S311
    runs = [made_up(place, {}, measured_step_time_s=drawn.uniform(14, 26)) for place in range(60)]
    steps = fit.Steps.of(runs)
    factors = fit.fit(steps)
    assert fit.fit(steps) == factors

    def off(errors: Sequence[float]) -> float:
        return fmean(abs(log(1 + error)) for error in errors)

    least = off(steps.errors(factors))
    assert least < off(steps.errors({}))
    for name in factors:  # nor does any one factor alone make it better
        for times in (0.98, 1.02):
            assert off(steps.errors(factors | {name: factors[name] * times})) >= least - 1e-9


def test_a_source_is_predicted_by_what_the_others_say_alone(fit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    whole = fit.fit

    def watched(steps: Any) -> dict[str, float]:  # noqa: ANN401 - of a script
        seen.append(set(steps.sources))
        return whole(steps)  # type: ignore[no-any-return]

    monkeypatch.setattr(fit, "fit", watched)
    names = {f"source {place}" for place in range(5)}
    fit.left_out(fit.Steps.of(board(20, {}).predictions))
    assert seen == [names - {f"source {place}"} for place in range(5)]


def test_what_one_source_measured_changes_nothing_of_its_own_prediction(fit: ModuleType) -> None:
    """Its steps are ten times as long: the error of its prediction follows, what is predicted of it does not."""

    def predicted_s(times: float) -> list[float]:
        runs = [made_up(place, {"bubble": 1.5}) for place in range(20)]
        odd = [made_up(place, {}, source="odd", measured_step_time_s=times * 20.0) for place in range(20, 26)]
        errors = fit.left_out(fit.Steps.of([*runs, *odd]))[20:]
        return [(1 + error) * times * 20.0 for error in errors]

    assert predicted_s(1.0) == pytest.approx(predicted_s(10.0))


def test_what_nothing_says_stays_as_it_is(fit: ModuleType) -> None:
    """A family without a run, a part that no step has, a GPU of no family; and runs that do not count say nothing."""
    runs = [
        made_up(place, {"compute": 1.3, "recompute": 1.3, "uneven stages": 1.3}, gpu="mi300x") for place in range(9)
    ]
    factors = fit.fit(fit.Steps.of(runs))
    assert [factors[name] for name in fit.FACTORS if name.startswith("compute")] == [1.0] * 3
    aside = [made_up(place, {"bubble": 3.0}, counts=False) for place in range(9)]
    assert set(fit.fit(fit.Steps.of(aside)).values()) == {1.0}
    few = [made_up(place, {}, parts_s={"compute": 2.0}, step_time_s=2.0, measured_step_time_s=3.0) for place in (0, 3)]
    factors = fit.fit(fit.Steps.of(few))
    assert factors.pop("compute, A100") == pytest.approx(1.5, rel=0.01)
    assert set(factors.values()) == {1.0}


def test_parts_sum_to_the_step_whatever_they_are_called(fit: ModuleType) -> None:
    one = made_up(0, {}, gpu="tpu", parts_s={"compute": 1.0, "bubble": 2.0, "new": 3.0})
    assert sum(fit.parts_of(one)) == 6.0
    assert fit.parts_of(one)[-1] == 4.0


def test_errors_by_class_and_their_ratio_by_hand(fit: ModuleType) -> None:
    found = fit.what_a_fit_gains(board(40, {"bubble": 1.25}))
    assert (found.before["moe"].rows, found.before["dense"].rows, found.before["all"].rows) == (20, 20, 40)
    assert found.ratio == found.left_out["all"].median / found.fitted["all"].median
    assert f"{found.ratio:.2f} times" in found.verdict
    alone = fit.what_a_fit_gains(Board(tuple(made_up(place, {}, source="one") for place in range(4))))
    assert alone.verdict.startswith("All runs are of one source")


def test_the_command_says_what_a_fit_gains_and_that_nothing_of_it_is_used(
    fit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(fit, "score", lambda rows, **_: board(len(rows), {"bubble": 1.25}))
    file = tmp_path / "runs.yaml"
    file.write_text(as_block({"runs": [{"id": f"{place}"} for place in range(20)]}))
    monkeypatch.setattr(sys, "argv", ["fit.py", str(file), "--workers", "1"])
    fit.main()
    said = capsys.readouterr().out
    assert "20 runs of 5 sources" in " ".join(said.split())
    assert "times the" in " ".join(said.split())
    assert "Nothing of it is in the package" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 100
    monkeypatch.setattr(fit, "score", lambda _, **__: Board(()))
    with pytest.raises(SystemExit, match="nothing to fit to"):
        fit.main()
