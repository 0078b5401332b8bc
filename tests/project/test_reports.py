"""The notebooks that replay published reports: what they say is what comes out, and docs/reports.md is current."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.pages import script

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
GENERATOR = script(ROOT / "docs" / "make_reports.py")


@dataclass(frozen=True)
class Replay:
    """What is left of a notebook that has run.

    Attributes:
        names: its variables.
        tables: what it shows as tables, in Markdown.

    """

    names: dict[str, Any]
    tables: list[str]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - whatever a notebook's variable is
        return self.names[name]


Claim = Callable[[Replay], None]
CLAIMS: defaultdict[str, list[Claim]] = defaultdict(list)
"""Of each report what its notebook says in words."""


def claim(report: str) -> Callable[[Claim], Claim]:
    def keep(function: Claim) -> Claim:
        CLAIMS[report].append(function)
        return function

    return keep


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("report", GENERATOR.REPORTS)
def test_what_a_notebook_says_is_what_comes_out(report: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test a notebook, so that each runs once, whichever processes share the tests out."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(EXAMPLES)
    replay = ran(report)
    assert replay.tables == stored_tables(report), "run: make update-notebooks"
    assert CLAIMS[report]
    for holds in CLAIMS[report]:
        holds(replay)


def ran(report: str) -> Replay:
    """Run a notebook's cells one after the other in this process."""
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    names: dict[str, Any] = {}
    tables = []
    for cell in GENERATOR.cells_of(report):
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, report, "exec"), names)  # noqa: S102
            if isinstance(last, ast.Expr):
                shown = eval(compile(ast.Expression(last.value), report, "eval"), names)  # noqa: S307
                if hasattr(shown, "_repr_markdown_"):
                    tables.append(shown._repr_markdown_())
    plt.close("all")
    return Replay(names, tables)


def stored_tables(report: str) -> list[str]:
    outputs = [output for cell in GENERATOR.cells_of(report) for output in cell.get("outputs", [])]
    return ["".join(one["data"]["text/markdown"]) for one in outputs if "text/markdown" in one.get("data", {})]


def test_the_page_is_what_the_notebooks_store() -> None:
    assert GENERATOR.PAGE.read_text(encoding="utf-8") == GENERATOR.page(), "run: python docs/make_reports.py"


def test_every_report_is_on_the_page_and_small_enough_to_read() -> None:
    notebooks = sorted(path.stem for path in EXAMPLES.glob("report_*.ipynb"))
    assert notebooks == sorted(f"report_{report}" for report in GENERATOR.REPORTS)
    assert max(GENERATOR.notebook_of(report).stat().st_size for report in GENERATOR.REPORTS) < 600_000


def test_the_sites_pages_have_the_pictures_that_they_show() -> None:
    pages = dict(GENERATOR.site_pages())
    texts = {path: text for path, text in pages.items() if isinstance(text, str)}
    assert len(texts) == len(GENERATOR.REPORTS)
    assert sum(text.count("![") for text in texts.values()) == len(pages) - len(texts) > len(texts)
    assert not [path for path, text in texts.items() if "<style" in text or "](../docs" in text]


def test_a_table_says_none_where_all_printed_digits_are_alike() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        beside = script(EXAMPLES / "published.py").Beside({"a": (0.0808, 0.08274), "b": (66, 66.4), "c, s": (2.5, 2.0)})
    lines = str(beside).splitlines()
    assert lines[2:] == [
        "| a | 0.0808 | 0.0827 | +2.4% |",
        "| b | 66 | 66 | none |",
        "| c, s | 2.5 | 2.0 | -20.0% |",
    ]
    assert beside.worst == pytest.approx(0.2)


# What the notebooks say in words. Numbers without a source here are the texts'.


@claim("deepseek_v3")
def deepseeks_figure_and_formulas_come_out(replay: Replay) -> None:
    assert replay["figure"].worst == 0
    assert replay["formulas"].worst < 1e-9
    assert set(replay["idle"]) == {6.0}


@claim("deepseek_v3")
def deepseeks_formula_is_an_upper_bound_where_i_is_longer_than_f(replay: Replay) -> None:
    by_rank_ms = replay["by_rank_ms"]
    assert by_rank_ms.max() < replay["formula_ms"]
    assert by_rank_ms[7] == pytest.approx(replay["formula_ms"] - 58.7)  # a forward less
    assert all(outer < inner for outer, inner in pairwise(by_rank_ms[:8]))


@claim("deepseek_v3")
def deepseeks_step_is_short_in_its_pairs_a_third_of_it_by_even_routing(replay: Replay) -> None:
    step, measured = replay["step"], {what: row["MPFT"] for what, row in replay["measured"].items()}
    assert step.difference("time a step, s") == pytest.approx(-0.095, abs=5e-4)
    assert replay["measured"]["time a step"]["MRFT"] / measured["time a step"] - 1 == pytest.approx(0.001, abs=5e-5)
    short_s = replay["short_s"]
    assert max(short_s, key=short_s.get) == "1F1B"
    assert sum(short_s.values()) == pytest.approx(measured["time a step"] - replay["v3"].step_time_s, abs=0.03)
    parts_s = replay["parts_s"](replay["v3"])
    assert [
        what for what in ("1F", "1B", "1W", "bubble") if not parts_s[what].min() < measured[what] < parts_s[what].max()
    ] == []
    schedule = replay["v3"].played.graph.schedule
    lone_weights = [int((schedule.kind[schedule.rank == rank] == replay["W"]).sum()) for rank in (0, 7, 8, 15)]
    assert lone_weights == [15, 8, 8, 15]
    gained_s = replay["skewed"].step_time_s - replay["v3"].step_time_s
    assert gained_s / (measured["time a step"] - replay["v3"].step_time_s) == pytest.approx(1 / 3, abs=0.02)


@claim("zero_bubble")
def zero_bubbles_figures_come_out_cell_by_cell(replay: Replay) -> None:
    assert [printed - alike for printed, alike in replay["same"].values()] == [0, 0, 0, 9]
    printed = replay["PAPER"]["figure_8"].split()
    assert list(map(sorted, printed)) == list(map(sorted, replay["zb_v"]))
    assert replay["drawn"]["figure 8: ZB-V"][1].makespan_s == 51
    assert replay["table_2"].worst < 1e-9


@claim("zero_bubble")
def zero_bubbles_rates_come_out_but_for_two_columns(replay: Replay) -> None:
    off = replay["off"]
    assert (off[["1F1B", "ZB-H1", "ZB-H2", "ZB-1p"]] == 0).all(axis=None)
    assert off["ZB-2p"].between(-5, 5).all()
    assert (off["1F1B-I"] > 0).all()
    around = replay["around"]
    assert (around["printed"] == around["first of a group waits"]).all()
    assert (around["simulated"] == around["all wait"]).all()


@claim("zero_bubble")
def zero_bubbles_throughput_is_less_than_its_ops_allow(replay: Replay) -> None:
    longer = replay["longer"]
    others = longer[["1F1B", "ZB-1p", "ZB-2p"]]
    assert (others.min(axis=None).round(2), others.max(axis=None).round(2)) == (0.04, 0.12)
    assert (longer["1F1B-I"] > others.drop(columns="ZB-2p").max(axis=1)).all()
    assert longer["1F1B-I"].max().round(2) == 0.17
    messages = replay["as_issued"]["ideal"] - replay["as_issued"]["megatron"]
    assert messages.between(0.015, 0.03).all()
    ordered, settings = replay["in_measured_order"], replay["PAPER"]["settings"]
    assert all(ordered(row, ["1F1B", "ZB-1p", "ZB-2p"]) for row in settings)
    assert all(ordered(row, ["1F1B", "1F1B-I", "ZB-2p"]) for row in settings)


@claim("zero_bubble")
def zero_bubbles_rate_falls_with_memory_until_twice_the_stages(replay: Replay) -> None:
    at_two = replay["limits"].index(2.0)
    for model, rates in replay["curves"].items():
        assert all(after <= before + 1e-9 for before, after in pairwise(rates)), model
        assert (rates[at_two] < 0.01) == (model != "1.5B")


@claim("chimera")
def chimeras_formulas_come_out_where_they_are_meant_to(replay: Replay) -> None:
    assert replay["figure_3"].worst == replay["figure_7"].worst == 0
    assert all(value == pytest.approx(formula, abs=5e-5) for formula, value in replay["rows"].values())
    rows = replay["twice"].rows
    assert all((value - formula > 0.04) == ("table 2" in what) for what, (formula, value) in rows.items())
    idle = replay["idle_by_size"]
    assert len(set(idle["forward-doubling"])) == 1
    assert all(after > before for before, after in pairwise(idle["direct"]))


@claim("megatron_interleaving")
def megatrons_interleaving_gains_as_the_text_says(replay: Replay) -> None:
    assert all(value == pytest.approx(formula, abs=5e-5) for formula, value in replay["fractions"].rows.values())
    assert all(0 < replay["table_2"].difference(what) < 0.04 for what in replay["table_2"].rows)
    gain = replay["gain"]
    assert gain == sorted(gain, reverse=True)
    assert gain[0] > 0.4
    assert gain[3] > replay["at_least"] > gain[4] > 0.07
    parts = replay["parts"]
    assert parts["interleaved", 60]["bubble"] - parts["interleaved", 12]["bubble"] == pytest.approx(0.4, abs=0.03)
    assert parts["1F1B", 60]["bubble"] - parts["1F1B", 12]["bubble"] < 0.15


@claim("megatron_interleaving")
def megatrons_steps_are_as_much_longer_whatever_their_micro_batches(replay: Replay) -> None:
    ranges_s = []
    for (_, printed), row, step_s in zip(
        replay["PAPER"]["table_2"].items(), replay["published_rows"], replay["steps_s"], strict=True
    ):
        simulated = replay["tflops"](row, step_s)
        ranges_s.append([step_s * simulated / (printed + rounded) - step_s for rounded in (0.5, -0.5)])
    least, most = max(low for low, _ in ranges_s), min(high for _, high in ranges_s)
    assert 0.5 < least < most < 0.8  # one number of seconds fits all three


@claim("llama3")
def llamas_bubble_ratio_holds_from_as_many_micro_batches_as_ranks_on(replay: Replay) -> None:
    ratios = replay["ratios"]
    for what, (formula, value) in ratios.rows.items():
        assert (value == pytest.approx(formula, abs=5e-5)) == ("<" not in what), what


@claim("llama3")
def llamas_choice_of_n_hides_transfers_for_activations(replay: Replay) -> None:
    sweet_spot = replay["sweet_spot"]
    assert sweet_spot["bubble, transfer 0 F"].nunique() == 1
    assert sweet_spot["bubble, transfer 0.1 F"].loc[5:].nunique() == 1
    assert (sweet_spot["bubble, transfer 0.1 F"].loc[4] > sweet_spot["bubble, transfer 0.1 F"].loc[5:]).all()
    assert sweet_spot["bubble, transfer 0.3 F"].is_monotonic_decreasing
    assert sweet_spot["activations"].is_monotonic_increasing


@claim("llama3")
def llamas_three_settings_stand_to_each_other_as_printed(replay: Replay) -> None:
    assert all(0.155 < replay["table_4"].difference(what) < 0.195 for what in replay["table_4"].rows)
    assert replay["relative"].worst < 0.03
    assert replay["by_stages"][2] < replay["second"]["tflops"] < replay["by_stages"][4] < replay["by_stages"][8]
    causal = replay["causal"]
    assert causal["not causal"].iloc[2] == causal["not causal"].max()
    assert causal["causal"].iloc[2] == causal["causal"].min()
    assert min(map(replay["fullest_gb"], ("torch-eager", "torch-compile", "megatron"))) > 80


@claim("vocabulary_parallelism")
def a_cut_vocabularys_runs_take_what_was_measured(replay: Replay) -> None:
    assert replay["activations"].worst == 0
    differences = replay["differences"]
    assert differences.abs().max() < 0.0185
    assert differences[differences > 0].index.tolist() == [("interlaced", "64k")]
    passes = next(row for row in replay["measured"] if (row["method"], row["vocabulary"]) == ("interlaced", "64000"))
    *others, last = replay["seconds"](passes, "S_us")
    assert last > 1.35 * sum(others) / len(others)
    assert replay["speedups"].worst < 0.0205


@claim("vocabulary_parallelism")
def a_cut_vocabularys_memory_is_a_little_too_much(replay: Replay) -> None:
    memory = replay["memory"]
    assert [what for what in memory.rows if not 0.02 < memory.difference(what) < 0.0705] == []
