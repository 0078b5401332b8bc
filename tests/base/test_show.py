"""What objects show of themselves: a short ``repr`` whatever their size, a table that fits, HTML that is inert."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import isclass
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualpipe_sim
from dualpipe_sim import Comparison, Op, Pair, Result, SweepTable, build, compare, regimes, robust
from dualpipe_sim.base.show import SHOWN_ROWS, Table, Tabular, brief, line
from dualpipe_sim.calibration import calibrate, read_recording
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs import Flow, LayerCosts, MeasuredCosts
from dualpipe_sim.costs.breakdown import Breakdown, breakdown
from dualpipe_sim.costs.measured import OpTime
from dualpipe_sim.engine import Noise, Spread
from dualpipe_sim.model.attention import Core
from dualpipe_sim.order import OpTimes, OrderBuilder, opposed
from dualpipe_sim.order.ops import B, F
from dualpipe_sim.pictures.plot import Dependence, Term
from dualpipe_sim.pictures.report import Run
from dualpipe_sim.plan import Plan
from dualpipe_sim.plan.space import candidates_of
from dualpipe_sim.schedules import spec
from dualpipe_sim.scoring import Board, Errors, Prediction
from dualpipe_sim.scoring.accuracy import class_bar
from dualpipe_sim.search import search
from dualpipe_sim.why import why

TRACES = sorted((Path(__file__).parents[2] / "examples" / "data").glob("*.json.gz"))
EVIL = "<script>alert(1)</script>"


def public_classes() -> Iterator[type]:
    """Every class that a package offers by name: it holds values, so neither errors nor protocols count."""
    names = ["dualpipe_sim", *(one.name for one in pkgutil.walk_packages(dualpipe_sim.__path__, "dualpipe_sim."))]
    for name in names:
        if name.endswith("__main__"):
            continue
        module = import_module(name)
        for offered in getattr(module, "__all__", ()):
            value = getattr(module, offered)
            if isclass(value) and not issubclass(value, BaseException) and Protocol not in value.__bases__:
                yield value


PUBLIC = sorted(set(public_classes()), key=lambda one: one.__name__)


def deepseek_plan() -> Plan:
    """A plan with all candidates of DeepSeek-V3, none of them run but the first."""
    experiment = load_experiment("plan_deepseek_v3")
    candidates = candidates_of(experiment)
    keys = ("step_time_s", "confirmed_step_time_s", "any_order_s", "tokens_per_second_per_gpu", "mfu", "bubble_ratio")
    done = dict.fromkeys((*keys, "exposed_s", "peak_memory_bytes"), 0.5)
    rows = [{**one.to_dict(), **dict.fromkeys(done), "reason": "bound", "bound_s": 1.0} for one in candidates]
    rows[0] |= {**done, "reason": None}
    return Plan(experiment, tuple(candidates), tuple(rows), (0,), None, 2048, 80 * 10**9)


def layers_of_v3() -> Breakdown:
    costs = load_experiment("deepseek_v3").costs
    assert isinstance(costs, LayerCosts)
    return breakdown(costs)


SEARCHED: dict[str, object] = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "costs": {"kind": "profile", "layers": [{"forward": 1, "backward": 2, "count": 64}]},
    "search": {"rounds": 1, "moves": 3, "stages_per_rank": 16},
}


@pytest.fixture(scope="module")
def plan() -> Plan:
    return deepseek_plan()


@pytest.fixture(scope="module")
def shown(v3: Result, plan: Plan) -> dict[type, object]:
    """An example of every class that is within reach of what runs, sweeps, plans and calibrations give."""
    recording = read_recording(TRACES)
    ops = {(kind, stage): OpTime(0.01) for kind in range(4) for stage in range(64)}
    roots = [
        v3,
        Comparison((v3,) * 10),
        SweepTable((v3.to_dict(),) * 1000),
        plan,
        load_experiment("figure5"),
        search(SEARCHED, workers=1),
        load_experiment(SEARCHED).cost_model,
        v3.report(),
        Run("dualpipe", v3.played, v3.memory),
        plan.experiment.topology(16),
        recording,
        calibrate(TRACES),
        MeasuredCosts("costs.yaml", 64, 1, ops),
        Board(
            (Prediction("a run", "dense", parts_s=dict.fromkeys(map(str, range(64)), 1.0), assumed=("x" * 99,) * 9),)
            * 99
        ),
        Errors.of([0.1] * 99),
        layers_of_v3(),
        class_bar("moe"),
        robust("figure5", scenarios={"runs": 2}),
        regimes("figure5", "costs.transfer=0..9", "micro_batches=32,40"),
        why("figure5"),
        Dependence("forward", 27.0, 27.0, 67.5),
        Term("drain", 0, ((1.0, 2.0),) * 99, "99 in 99 waits"),
        Noise(slow_ranks=dict.fromkeys(range(64), 1.1)),
        Spread(100, 1.0, 0.9, 1.1),
        Flow("nvlink", 1e9),
        Core(1e12, 2e12),
        OpTimes.uniform(opposed(16)),
        OrderBuilder(opposed(16), (60, 60)),
        spec("zb-auto"),
        Pair(Op(F, 0, 1), Op(B, 3, 0)),
    ]
    found: dict[type, object] = {}
    for root in roots:
        collect(root, found, set())
    return found


def collect(value: object, found: dict[type, object], seen: set[int]) -> None:
    """Note what a value is made of, the first few of many equals."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if type(value).__module__.partition(".")[0] == "dualpipe_sim":
        found.setdefault(type(value), value)
    parts: Iterable[object] = ()
    if isinstance(value, tuple | list):
        parts = value[:5]
    elif isinstance(value, Mapping):
        parts = [*list(value.values())[:5], *list(value)[:5]]
    elif is_dataclass(value):
        parts = [getattr(value, one.name) for one in fields(value)]
    for part in parts:
        collect(part, found, seen)


@pytest.mark.parametrize("public", PUBLIC, ids=[one.__name__ for one in PUBLIC])
def test_there_is_an_example_of_every_public_class(public: type, shown: dict[type, object]) -> None:
    assert public in shown, (
        f"{public.__module__}.{public.__name__} is public, but nothing here has a large one; add it to the roots of "
        "`shown`, and `__repr__ = brief` to the class if that is long"
    )


def test_whatever_is_in_reach_shows_itself_in_a_line(shown: dict[type, object]) -> None:
    long = {kind.__name__: repr(value)[:400] for kind, value in shown.items() if len(repr(value)) > 300}
    assert long == {}
    assert [kind.__name__ for kind, value in shown.items() if "\n" in repr(value)] == []


def test_main_objects_say_what_they_are(v3: Result, plan: Plan) -> None:
    assert repr(v3) == "<Result dualpipe, 16 ranks × 120 micro-batches, 17.94 s, bubble 10.8%>"
    assert repr(v3.played) == ("<Timeline dualpipe, 16 ranks × 120 micro-batches, 2,418 tasks, 17.94 s, longest-path>")
    assert repr(v3.played.graph.schedule.placement) == "<Placement 32 stages of 2 pipes on 16 ranks>"
    assert repr(compare("figure5")) == "<Comparison of 4: dualpipe, zb-h1, chimera, 1f1b>"
    assert repr(plan).startswith("<Plan of 2,048 GPUs, 9,216 candidates, 1 run, first: 1f1b, 4 ranks, EP 16, even")
    assert "refused: 1f1b needs a rank" in repr(Result("1f1b", 0, 4, error="1f1b needs a rank"))


def test_a_long_name_is_cut() -> None:
    assert len(repr(Result("x" * 1000, 4, 8))) < 300
    assert line(ValueError(), "a\nb") == "<ValueError a b>"


def test_a_field_that_does_not_fit_is_left_out_with_those_behind_it() -> None:
    wide = MeasuredCosts("x" * 1000, 64, 1, {})
    assert brief(wide).startswith("MeasuredCosts(source='xxx")
    assert "stages=64" in brief(wide)
    assert len(brief(wide)) < 300


@pytest.fixture(params=["result", "comparison", "schedule", "plan", "sweep", "memory", "layers", "layer", "refused"])
def tabular(request: pytest.FixtureRequest, v3: Result, plan: Plan) -> Tabular:
    rows = [{**v3.to_dict(), "costs.transfer": f"{place} s"} for place in range(100)]
    assert v3.memory is not None
    layers = layers_of_v3()
    return {
        "result": v3,
        "comparison": compare("figure5", compare=["1f1b", "dualpipe"], micro_batches=17),
        "schedule": v3.played.graph.schedule,
        "plan": plan,
        "sweep": SweepTable(tuple(rows)),
        "memory": v3.memory,
        "layers": layers,
        "layer": layers.layers[-1],
        "refused": Result("dualpipe", 3, 4, error="dualpipe needs " + "an even number of ranks, " * 20),
    }[request.param]


@pytest.mark.parametrize("columns", [80, 60, 30])
def test_what_is_printed_fits_the_terminal(tabular: Tabular, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", f"{columns}")
    lines = str(tabular).splitlines()
    assert max(map(len, lines)) <= columns
    assert 2 <= len(lines) < 60


def test_what_does_not_fit_is_said(v3: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert "… 2 more columns: hidden, GB" in str(v3).splitlines()
    many = str(SweepTable((v3.to_dict(),) * 1000))
    assert "… 1,000 rows, the first 20 shown" in many
    assert many.count("dualpipe") == SHOWN_ROWS


def test_a_schedule_prints_its_text_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    title, _, _, first, second = str(build("1f1b", ranks=2, micro_batches=2)).splitlines()
    assert title == "1f1b, 2 ranks × 2 micro-batches"
    assert first.split() == ["0", "4", "0F0,0F1,0B0,0B1"]
    assert second.split() == ["1", "4", "1F0,1B0,1F1,1B1"]


def test_words_that_do_not_fit_go_on_in_the_next_line() -> None:
    table = Table(("plan", "step"), [["dualpipe, 16 ranks, 20 SMs", "17 s"]], ("plan",))
    assert table.text(20).splitlines()[2:] == ["dualpipe, 16    17 s", "ranks, 20 SMs"]


WORD = st.text("ab<&é×- ", max_size=30)
ROW = st.lists(WORD, min_size=1, max_size=4)


@given(st.lists(WORD, min_size=4, max_size=4), st.lists(ROW, max_size=30), st.integers(1, 100), st.data())
def test_no_line_of_any_table_is_too_long(
    headings: list[str], rows: list[list[str]], width: int, data: st.DataObject
) -> None:
    words = data.draw(st.lists(st.sampled_from(headings)))
    table = Table(headings, rows, words, data.draw(WORD), data.draw(st.lists(WORD)))
    assert max(map(len, table.text(width).split("\n"))) <= width
    html = table.html()
    assert html.count("<tr>") == 1 + min(len(rows), SHOWN_ROWS)
    assert html.count("<td") == sum(len(row) for row in rows[:SHOWN_ROWS])


def test_html_of_any_object_is_a_table(tabular: Tabular) -> None:
    html = tabular._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") > 1
    assert len(html) < 20_000


def test_a_name_from_elsewhere_is_inert_in_html(v3: Result) -> None:
    order = build("1f1b", ranks=2, micro_batches=2)
    evil = [
        Result(EVIL, 2, 2, {EVIL: EVIL}),
        Result("1f1b", 2, 2, error=EVIL),
        SweepTable(({**v3.to_dict(), "schedule": EVIL, "axis": EVIL, EVIL: 1},)),
        type(order)(EVIL, order.placement, (2,), order.rank, order.kind, order.stage, order.micro_batch, order.partner),
        Comparison((Result(EVIL, 2, 2),)),
    ]
    for thing in evil:
        html = thing._repr_html_()
        assert "<script" not in html
        assert "&lt;script&gt;" in html
