"""What the viewer explains, in a real browser: runs side by side, causes, the critical path, steps, links, files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from dualpipe_sim import compare, simulate
from dualpipe_sim.analysis.critical_path import PARTS, critical_path
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import CAUSE_STYLES, KIND_STYLES, THEMES, path_colour, tint
from dualpipe_sim.pictures.report import Page, Run, page, page_data, page_style, viewer_script
from dualpipe_sim.result import Comparison, Result
from tests.pictures.report.conftest import colours_of
from tests.pictures.report.test_browser import COUNT_STROKES, hex_of

if TYPE_CHECKING:
    from tests.pictures.report.conftest import Browser

FORWARD, BACKWARD = KIND_STYLES[0].light, KIND_STYLES[1].light
WAITING, WARM_UP, DRAIN = (tint(CAUSE_STYLES[cause].fill, THEMES["light"]) for cause in ("waiting", "warm_up", "drain"))


@pytest.fixture(scope="module")
def figure5() -> Comparison:
    return compare("figure5")


def shown_runs(browser: Browser) -> list[str]:
    return list(browser.ask("[...document.querySelectorAll('.gantt')].map((one) => one.dataset.run)"))


def said(browser: Browser) -> str:
    return str(browser.ask("said.textContent"))


def test_side_by_side_all_runs_are_on_one_axis_and_move_together(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page, size=(1400, 1600))
    browser.click(".side")
    assert shown_runs(browser) == ["dualpipe", "zb-h1", "chimera", "1f1b"]
    browser.look_at("1f1b")
    assert browser.span() == (0, 96)  # Chimera's
    assert hex_of(browser.colour(23, 0.2)) == BACKWARD
    browser.wheel(browser.place(23, 0.5), -240)
    spans = browser.ask(
        "[...document.querySelectorAll('.gantt')].map((one) => [one.dataset.from, one.dataset.to].join())"
    )
    assert len(set(spans)) == 1
    assert browser.span() != (0, 96)
    browser.click(".runs button:nth-child(3)")  # without Chimera
    assert shown_runs(browser) == ["dualpipe", "zb-h1", "1f1b"]
    browser.click(".fit-run")
    assert browser.span() == (0, 81)
    browser.click(".one")
    assert len(shown_runs(browser)) == 1


def test_the_strip_counts_idle_ranks_by_cause(browser: Browser, figure5_page: Page, figure5: Comparison) -> None:
    browser.open(figure5_page, size=(1400, 1600))
    browser.click(".side")
    (run,) = (run for run in figure5 if run.label == "1f1b")
    timeline = run.played
    browser.look_at("1f1b")
    for at_s in (2.5, 9.5, 61.5, 79.5):
        busy = np.unique(timeline.rank[(timeline.task_start_s <= at_s) & (timeline.task_end_s > at_s)])
        left, top, width = browser.box("strips")
        browser.move((left + browser.margin_px + at_s / 96 * (width - 2 * browser.margin_px), top + 12))
        title, *lines = browser.ask("tip.innerText").split("\n")
        assert title.startswith(f"{8 - len(busy)} of 8 ranks idle at {at_s}")
        of_cause = dict(zip(lines[::2], lines[1::2], strict=True))
        assert sum(int(of_cause.get(style.words, 0)) for style in CAUSE_STYLES.values()) == 8 - len(busy)


def test_idle_time_has_the_colour_of_its_cause(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    # rank 0 waits from 8 to 22; rank 7 warms up until 7 and is done at 67
    assert hex_of(browser.colour(15, 0.5)) == WAITING
    assert hex_of(browser.colour(3, 7.5)) == WARM_UP
    assert hex_of(browser.colour(75, 7.5)) == DRAIN
    browser.click(".idle")
    assert hex_of(browser.colour(15, 0.5)) == THEMES["light"].ground


def test_the_critical_path_is_drawn_and_its_parts_are_summed(browser: Browser, layered: Timeline) -> None:
    browser.open(page([Run("pair", layered)], title="pair", table=""))
    assert browser.ask("document.querySelector('.path-parts').hidden")
    plain = browser.tab.locator(".gantt").screenshot()
    browser.click(".path")
    assert browser.tab.locator(".gantt").screenshot() != plain
    parts = {PARTS[part]: seconds for part, seconds in critical_path(layered).seconds_by_part().items()}
    told = browser.tab.locator(".path-parts .swatch").all_inner_texts()
    shares = dict(re.fullmatch(r"([a-z, -]+) [\d.]+ [mµn]?s \(([\d.]+) %\)", one.strip()).groups() for one in told)  # type: ignore[union-attr, misc]
    assert shares.keys() == parts.keys()
    for words, share in shares.items():
        assert float(share) == pytest.approx(100 * parts[words] / layered.makespan_s, abs=0.06)
    assert {path_colour(part, THEMES["light"]) for part in ("compute", "alltoall")} <= colours_of(browser.picture())


def test_a_path_stays_on_the_ops_it_is_made_of(browser: Browser, figure5_page: Page, figure5: Comparison) -> None:
    browser.open(figure5_page)
    browser.click(".path")
    (run,) = (run for run in figure5 if run.label == "1f1b")
    path = critical_path(run.played)
    picture = browser.picture()
    for begin_s, end_s, rank in zip(path.begin_s, path.end_s, path.rank, strict=True):
        if end_s > begin_s:
            x, y = map(round, browser.place(float(begin_s + end_s) / 2, float(rank) + 0.84))
            assert colours_of(picture.crop((x, y, x + 1, y + 1))) == {THEMES["light"].ink}, (begin_s, rank)


def test_stepping_goes_from_op_to_op_and_fades_what_has_not_begun(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    for _ in range(3):
        browser.click(".next")
    assert said(browser).startswith("1F0 forward of micro-batch 0, stage 1, rank 1. ")  # 0F0 at 0, then 0F1 and it at 1
    assert hex_of(browser.colour(0.5, 0.2)) == FORWARD
    assert hex_of(browser.colour(5.5, 0.2)) != FORWARD
    browser.click(".back")
    assert said(browser).startswith("0F1 ")
    browser.ask("gantt.focus()")
    browser.tab.keyboard.press("n")
    browser.tab.keyboard.press(".")
    assert said(browser).startswith("0F2 ")
    browser.tab.keyboard.press("p")
    assert said(browser).startswith("1F0 ")
    browser.click(".stop")
    assert hex_of(browser.colour(5.5, 0.2)) == FORWARD


def test_a_run_plays_to_its_end(browser: Browser, figure5_page: Page) -> None:
    browser.open_still(figure5_page, motion="no-preference")
    browser.ask("document.querySelector('.play').click()")
    browser.tab.clock.run_for(5_000)
    assert browser.ask("document.querySelector('.play').textContent") == "pause"
    assert hex_of(browser.colour(0.5, 0.2)) == FORWARD
    assert hex_of(browser.colour(78, 0.2)) not in (FORWARD, BACKWARD)
    browser.tab.clock.run_for(20_000)
    assert browser.ask("document.querySelector('.play').textContent") == "play"
    assert hex_of(browser.colour(80.5, 0.2)) == BACKWARD


def test_who_wants_no_motion_is_shown_steps(browser: Browser, figure5_page: Page) -> None:
    browser.open_still(figure5_page, motion="reduce")
    browser.ask("document.querySelector('.play').click()")
    assert said(browser) == ""
    browser.tab.clock.run_for(1_000)
    assert said(browser).startswith("0F0 ")
    browser.tab.clock.run_for(1_000)
    assert said(browser).startswith("0F1 ")


def test_what_an_op_waits_for_and_what_waits_for_it_are_pointed_at(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    plain = browser.picture()
    told = browser.hover(21.0, 1.5)  # 1B0, from 20 to 22
    assert told.endswith("needs\n2B0 of rank 2\nneeded by\n0B0 of rank 0")
    focus = browser.ask("getComputedStyle(over).getPropertyValue('--focus')").strip()
    marked = browser.picture()
    for at_s, rank in ((20, 2), (22, 1)):  # the tensor comes at 20 from rank 2 and goes at 22 to rank 0
        x, y = browser.place(at_s, rank)
        crossing = (x - 4, y - 4, x + 4, y + 4)
        assert focus in colours_of(marked.crop(crossing))
        assert focus not in colours_of(plain.crop(crossing))
    browser.move((5, 5))
    assert browser.picture().tobytes() == plain.tobytes()


def test_a_search_jumps_to_an_op_and_says_where_there_is_none(browser: Browser, deepseek_v3_page: Page) -> None:
    browser.open(deepseek_v3_page)
    before = browser.span()
    browser.tab.fill(".op", "3b7")
    browser.tab.press(".op", "Enter")
    browser.settle()
    assert re.match(r"3B7 backward of micro-batch 7 of pipe 0, stage 3, rank 3\. ", said(browser))
    begin, end = (float(one) for one in re.findall(r"time: ([\d.]+) s to ([\d.]+) s", said(browser))[0])
    assert before[0] < browser.span()[0] < begin < end < browser.span()[1] < before[1]
    browser.tab.fill(".op", "3F120")
    browser.tab.click(".search button")
    assert said(browser) == "there is no 3F120 in dualpipe"
    browser.tab.fill(".op", "B7")
    browser.tab.click(".search button")
    assert said(browser) == "“B7” is no op's name; write stage, kind and micro-batch, as 3B7"


def test_arrow_keys_go_from_op_to_op(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    browser.ask("gantt.focus()")
    for key, name in [
        ("ArrowRight", "0F0"), ("ArrowRight", "0F1"), ("ArrowDown", "1F0"), ("ArrowRight", "1F1"), ("ArrowUp", "0F2"),
        ("ArrowLeft", "0F1"), ("ArrowUp", "0F1"),
    ]:  # fmt: skip
        browser.tab.keyboard.press(key)
        assert said(browser).startswith(f"{name} "), key
    browser.tab.keyboard.press("Escape")
    assert said(browser) == ""


@pytest.mark.parametrize("side", [False, True])
def test_what_is_shown_is_saved_as_png_and_as_svg(browser: Browser, figure5_page: Page, side: bool) -> None:
    browser.open(figure5_page)
    if side:
        browser.click(".side")
    files: dict[str, Path] = {}
    for suffix in ("png", "svg"):
        with browser.tab.expect_download() as waited:
            browser.click(f".{suffix}")
        files[suffix] = waited.value.path()
        name = "dualpipe_zb-h1_chimera_1f1b" if side else "1f1b"
        assert waited.value.suggested_filename == f"{name}.{suffix}"
    image = Image.open(files["png"])
    svg = ET.fromstring(files["svg"].read_text(encoding="utf-8"))  # noqa: S314
    assert image.size == tuple(round(2 * float(svg.attrib[one])) for one in ("width", "height"))
    assert {FORWARD, BACKWARD, WAITING} <= colours_of(image)
    name_of = "{http://www.w3.org/2000/svg}"
    texts = [one.text for one in svg.iter(f"{name_of}text")]
    assert texts.count("rank 7") == (4 if side else 2)  # Gantt and memory
    assert [text for text in texts if text and text.startswith("1f1b 81")]
    fills = [one.get("fill") for one in svg.iter(f"{name_of}rect")]
    if not side:
        assert fills.count(BACKWARD) == 8 * 20 + 1  # all ops, and the legend


TWO = """<!DOCTYPE html><meta charset="utf-8"><title>two</title><style>{style}</style>
<div id="a"></div><div id="b"></div><script>{script}</script><script>
window.told = [];
(async () => {{
  window.a = await mountViewer(document.querySelector("#a"), {first}, {{ onselect: (shown) => told.push(shown) }});
  window.b = await mountViewer(document.querySelector("#b"), {second}, {{ state: {state} }});
  document.body.dataset.ready = "yes";
}})();
</script>"""


def two(browser: Browser, first: Any, second: Any, state: str = "") -> None:  # noqa: ANN401
    """Open a page with two viewers."""
    told = {"first": json.dumps(first), "second": json.dumps(second), "state": json.dumps(state)}
    file = browser.folder / "two.html"
    file.write_text(TWO.format(style=page_style(), script=viewer_script(), **told), encoding="utf-8")
    browser.tab.goto(file.as_uri())
    browser.opened()


def data_of(*runs: Result) -> Any:  # noqa: ANN401
    return page_data([Run(run.label, run.played) for run in runs])


def test_two_viewers_on_a_page_do_not_meet(browser: Browser, figure5: Comparison) -> None:
    dualpipe, zb_h1, *_ = figure5
    two(browser, data_of(dualpipe, zb_h1), data_of(simulate("figure5", schedule="gpipe")))
    assert browser.ask("[a.state(), b.state()]") == ["run=dualpipe", "run=gpipe"]
    assert browser.ask("a.select('0F3')")
    assert browser.ask("told.at(-1)") == {
        "run": "dualpipe", "from_s": 0, "to_s": 66,
        "op": {"name": "0F3", "rank": 0, "begin_s": pytest.approx(3), "end_s": pytest.approx(4)},
    }  # fmt: skip
    assert browser.ask("b.state()") == "run=gpipe"
    assert not browser.ask("b.select('0F99')")
    browser.ask("a.destroy()")
    assert browser.ask("document.querySelector('#a').outerHTML") == '<div id="a" class=""></div>'
    browser.ask("document.querySelector('#b .zoom-in').click()")
    assert "window" in browser.ask("b.state()")


def test_a_state_brings_back_what_was_shown(browser: Browser, figure5: Comparison) -> None:
    states = (
        "run=zb-h1&window=10.0000..30.0000&op=3F7&path=1&idle=0",
        "run=1f1b&side=dualpipe&side=1f1b&window=5.00000..20.0000&now=12.0000",
        "run=chimera&side=*",
        "run=1f1b&window=all",
    )
    data = data_of(*figure5)
    for state in states:
        two(browser, data, data, state)
        assert browser.ask("b.state()").replace("%2A", "*") == state


def test_other_data_keep_run_window_and_op(browser: Browser, figure5: Comparison) -> None:
    data = data_of(*figure5)
    two(browser, data, data, "run=zb-h1&window=10.0000..30.0000&op=3F7")
    slower = compare("figure5", **{"costs.forward": "1.5 s"})
    browser.shown.evaluate("(next) => b.update(next)", data_of(*slower))
    assert browser.ask("b.state()") == "run=zb-h1&window=10.0000..30.0000&op=3F7"
    few = data_of(simulate("figure5", schedule="1f1b", ranks=2, micro_batches=4))
    browser.shown.evaluate("(next) => b.update(next)", few)
    assert browser.ask("b.state()") == "run=1f1b"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_keeps_anybody_from_runs_side_by_side(
    browser: Browser, figure5_page: Page, width: int, dark: bool
) -> None:
    browser.open(figure5_page, size=(width, 800), dark=dark)
    browser.click(".side")
    browser.click(".path")
    browser.click(".next")
    browser.ask("document.querySelector('details').open = true")
    assert browser.barriers() == []
    assert browser.ask("document.documentElement.scrollWidth") <= width


def test_large_runs_side_by_side_stay_usable(browser: Browser, v3: Result) -> None:
    """Two runs cost no more strokes than one with its lanes, and the pointer draws no chart anew."""
    runs = [Run(label, v3.played, v3.memory) for label in ("one", "other")]
    browser.open(page(runs, title="two", table=""))
    browser.click(".side")
    browser.ask(COUNT_STROKES)
    browser.ask("window.strokes = 0")
    browser.click(".zoom-out")
    assert 0 < browser.ask("window.strokes") < 20_000
    browser.ask("window.strokes = 0")
    browser.hover(9.0, 3.5)
    assert 0 < browser.ask("window.strokes") < 100
