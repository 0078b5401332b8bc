"""Reports in a real browser without a network: what is drawn, what the pointer says, how the window moves."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from dualpipe_sim import parse_order, simulate
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import F, L, O
from dualpipe_sim.pictures.palette import BESIDE_STYLES, CAUSE_STYLES, KIND_STYLES, THEMES, rgb, tint
from dualpipe_sim.pictures.report import Page, Run, page

if TYPE_CHECKING:
    from tests.pictures.report.conftest import Browser


COUNT_STROKES = """(() => {
    const pen = CanvasRenderingContext2D.prototype;
    for (const name of ["drawImage", "fill", "fillRect", "fillText", "stroke", "strokeRect"]) {
        const original = pen[name];
        pen[name] = function (...places) { window.strokes += 1; return original.apply(this, places); };
    }
})()"""

HOLD_INFLATED = """(() => {
    const original = Response.prototype.arrayBuffer;
    window.held = [];
    Response.prototype.arrayBuffer = function () {
        return new Promise((give) => { window.held.push(async () => give(await original.call(this))); });
    };
})()"""
"""From now on hold back every run that is inflated, in the order asked for; ``held[0]()`` gives the first."""

RECORD_TEXTS = """(() => {
    const original = CanvasRenderingContext2D.prototype.fillText;
    window.texts = [];
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        const width = this.measureText(text).width;
        const left = x - { left: 0, center: 0.5, right: 1 }[this.textAlign] * width;
        if (this.canvas === gantt) window.texts.push([y, left, left + width, text]);
        return original.call(this, text, x, y);
    };
})()"""
"""From now on keep where each text of the Gantt chart stands: y, left and right edge, the text itself."""


def hex_of(pixel: tuple[int, ...]) -> str:
    return "#" + "".join(f"{one:02x}" for one in pixel)


def test_it_opens_without_a_network_and_without_an_error(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    labels = browser.ask("[...document.querySelectorAll('.runs button')].map((one) => one.innerText)")
    assert labels == ["dualpipe 66", "zb-h1 67", "chimera 96", "1f1b 81"]
    assert browser.ask("gantt.dataset.run") == "1f1b"
    assert browser.ask("document.querySelector('tr.chosen td').innerText") == "1f1b"
    assert browser.span() == (0, 81)


def test_cells_are_where_and_as_coloured_as_on_paper(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    # 1F1B on 8 ranks: rank 0's forwards fill 0-8, its first backward comes at 22; rank 7 starts at 7 with F, then B.
    assert hex_of(browser.colour(0.5, 0.2)) == KIND_STYLES[0].light
    assert hex_of(browser.colour(15, 0.2)) == tint(CAUSE_STYLES["waiting"].fill, THEMES["light"])
    assert hex_of(browser.colour(23, 0.2)) == KIND_STYLES[1].light
    assert hex_of(browser.colour(9, 7.2)) == KIND_STYLES[1].light


def test_hovering_says_op_time_and_the_cause_of_the_gap_before_it(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    assert browser.hover(22.5, 0.5).split("\n") == [
        "0B0 backward of micro-batch 0, stage 0, rank 0",
        "time", "22 to 24",
        "lasts", "2",
        "gap before", "14: 14 waiting for 1B0 of rank 1",
        "needs", "1B0 of rank 1",
    ]  # fmt: skip
    assert browser.hover(15, 0.5).split("\n") == [
        "idle before 0B0",
        "gap before", "14: 14 waiting for 1B0 of rank 1",
    ]  # fmt: skip
    assert "7: warm-up, waits for 6F0 of rank 6" in browser.hover(3, 7.5)
    assert "after its last op: drain" in browser.hover(80, 7.5)
    browser.choose("dualpipe")
    pair = browser.hover(25, 0.5)
    assert re.search(r"^0B0 .*\npair\n\(15F\d+;0B0\)OVERLAP_F_B\n", pair)
    assert "of pipe" in pair
    browser.move((5, 5))
    assert browser.ask("tip.hidden")


def test_an_exposed_transfer_is_named_as_such(browser: Browser) -> None:
    settings = {"costs.transfer": "0.5 s", "pipeline.ranks": 2, "pipeline.micro_batches": 4}
    browser.open(simulate("figure5", schedule="1f1b", **settings).report())
    # 0F0 0-1, 0F1 1-2; 1F0 1.5-2.5, 1B0 2.5-4.5; 0B0 from 5 on, its gradient under way from 4.5
    assert "\n3 s: 2.5 s waiting for 1B0 of rank 1, 500 ms exposed transfer of 1B0\n" in browser.hover(5.5, 0.5)


def test_copies_to_the_host_run_below_the_ops_that_they_run_beside(browser: Browser) -> None:
    costs = UniformCosts(1, 1, 1, offload=2, unitless=True)
    browser.open(simulate(schedule="0F0,0O0,0F1,0L0,0B0,0B1\n", costs=costs).report())
    # F of 0 until 1, of 1 until 2; copied out from 1 to 3 and back, once F of 1 is done, from 3 to 5, which B awaits
    assert hex_of(browser.colour(1.2, 0.2)) == KIND_STYLES[F].light
    assert hex_of(browser.colour(1.2, 0.87)) == hex_of(browser.colour(2.5, 0.87)) == BESIDE_STYLES[O].light
    assert hex_of(browser.colour(4, 0.87)) == BESIDE_STYLES[L].light
    assert hex_of(browser.colour(4, 0.3)) == tint(CAUSE_STYLES["waiting"].fill, THEMES["light"])
    assert hex_of(browser.colour(6, 0.87)) == THEMES["light"].ground
    assert browser.hover(2.5, 0.87).split("\n") == [
        "0O0 copied to the host: micro-batch 0, stage 0, rank 0",
        "time", "1 to 3",
        "lasts", "2",
    ]  # fmt: skip
    assert browser.hover(1.5, 0.3).startswith("0F1 forward of micro-batch 1")
    legend = browser.ask("[...document.querySelectorAll('.gantt-legend .swatch')].map((one) => one.innerText)")
    assert legend[:4] == ["forward", "backward", "copied to the host", "copied back"]
    assert legend[4:] == ["idle: waiting for an op upstream"]


def test_waiting_for_weights_and_pairs_of_any_kind_are_named_as_such(browser: Browser) -> None:
    order = parse_order("0UNSHARD,0F0,1UNSHARD,(1F0;0F1)OVERLAP_F_F,1I0,(1F1;1W0)OVERLAP_F_W,1B1,0B0,0B1")
    browser.open(simulate(schedule=order, forward="2 s", backward="4 s", unshard="4 s").report())
    # 0UNSHARD 0-2, 0F0 2-3, 1UNSHARD 3-5, then the pair 5-7; 1I0 7-8 and the next pair 8-10
    assert "2 s exposed gathering of weights" in browser.hover(5.5, 0.5)
    assert "(1F0;0F1)OVERLAP_F_F" in browser.hover(6.5, 0.5)
    assert "(1F1;1W0)OVERLAP_F_W" in browser.hover(9.5, 0.5)
    browser.tab.fill(".op", "1unshard")
    browser.tab.press(".op", "Enter")
    assert browser.ask("said.textContent").startswith("1UNSHARD weights gathered")


def test_zoom_keeps_what_the_pointer_is_on_in_place(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    x, y = browser.place(22.5, 0.5)
    at = (round(x), y)  # a wheel is on a whole pixel, which is this time:
    pointed_s = 22.5 + (round(x) - x) * 81 / (browser.ask("gantt.clientWidth") - 2 * browser.margin_px)
    for _ in range(4):
        browser.wheel(at, -240)
    begin, end = browser.span()
    assert 0 < begin < 22.5 < end < 81
    assert end - begin == pytest.approx(81 * np.exp(-0.6) ** 4)
    assert browser.place(pointed_s, 0.5) == pytest.approx(at, abs=0.01)
    assert "0B0" in browser.hover(22.5, 0.5)
    browser.tab.mouse.dblclick(*at)
    browser.settle()
    assert browser.span() == (0, 81)


def test_drag_buttons_keys_and_overview_move_the_window(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    browser.click(".zoom-in")
    assert browser.span() == (20.25, 60.75)
    browser.drag(browser.place(40, 1), browser.place(30, 1))
    assert browser.span() == pytest.approx((30.25, 70.75), abs=0.1)
    browser.ask("gantt.focus()")
    browser.tab.keyboard.press("Shift+ArrowLeft")
    browser.tab.keyboard.press("+")
    browser.settle()
    assert browser.span() == pytest.approx((32.275, 52.525), abs=0.1)
    browser.click(".fit-all")
    assert browser.span() == (0, 96)  # Chimera's
    browser.click(".fit-run")
    assert browser.span() == (0, 81)
    left, top, width = browser.box("overview")
    span = width - 2 * browser.margin_px
    browser.drag((left + browser.margin_px + span / 4, top + 20), (left + browser.margin_px + span / 2, top + 20))
    assert browser.span() == pytest.approx((81 / 4, 81 / 2), abs=0.2)


def test_scrolling_down_over_the_whole_run_scrolls_the_page(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page, size=(1400, 500))
    browser.wheel(browser.place(40, 1), 200)
    browser.wait("window.scrollY > 0")
    assert browser.span() == (0, 81)


def test_the_switch_changes_every_chart_and_keeps_a_zoom(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    assert browser.ask("document.querySelector('.bar .share').innerText") == "21, 25.9 %"
    browser.choose("dualpipe")
    assert browser.span() == (0, 66)
    assert browser.ask("document.querySelector('.bar .share').innerText") == "6, 9.1 %"
    assert browser.ask("document.querySelector('tr.chosen td').innerText") == "dualpipe"
    browser.click(".zoom-in")
    browser.choose("zb-h1")
    assert browser.span() == (16.5, 49.5)
    browser.choose("chimera")
    browser.click(".zoom-out")
    browser.click(".zoom-out")
    assert browser.span() == (0, 96)  # its own end, not that of the run zoomed into


def test_of_two_quick_clicks_the_last_one_is_shown(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    browser.ask(HOLD_INFLATED)
    browser.click(".runs button:nth-child(1)")  # dualpipe
    browser.click(".runs button:nth-child(2)")  # zb-h1
    for asked in (1, 0):
        browser.ask(f"held[{asked}]()")
        browser.settle()
        assert browser.ask("gantt.dataset.run") == "zb-h1"
    assert browser.ask("document.querySelector('.runs [aria-pressed=true]').innerText") == "zb-h1 67"
    assert browser.span() == (0, 67)


def test_a_switch_forgets_what_the_pointer_was_on_while_it_inflated(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page)
    browser.click(".zoom-in")  # which the switch keeps
    browser.ask(HOLD_INFLATED)
    browser.click(".runs button:nth-child(1)")
    assert "0B7" in browser.hover(44, 0.5)
    browser.ask("held[0]()")
    browser.settle()
    assert browser.ask("gantt.dataset.run") == "dualpipe"
    assert browser.ask("tip.hidden")
    shown = browser.ask("gantt.toDataURL()")
    browser.move((5, 5))
    browser.settle()
    assert browser.ask("gantt.toDataURL()") == shown  # nothing was marked


def test_memory_says_what_is_held_under_the_pointer(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page, size=(1400, 1400))
    left, top, width = browser.box("memory")
    browser.move((left + browser.margin_px + 5.5 / 81 * (width - 2 * browser.margin_px), top + 12))
    said = browser.ask("tip.innerText")
    assert said.startswith("6 on rank 0 at 5.5")  # six forwards have begun
    assert said.endswith("peak\n8")  # 1F1B's first rank holds P


def test_lanes_show_phases_and_what_of_the_all_to_all_is_exposed(browser: Browser, layered: Timeline) -> None:
    browser.open(page([Run("pair", layered)], title="pair", table="<table><tbody></tbody></table>"))
    graph = layered.graph
    node = next(  # a dispatch of a forward that runs alone, which hides nothing
        node
        for node in range(graph.first_transfer)
        if graph.phases[graph.phase[node]].name == "dispatch" and graph.schedule.partner[graph.op_of_node[node]] < 0
    )
    start_s, end_s = layered.start_s[node], layered.end_s[node]
    rank = int(layered.rank[graph.task[node]])
    said = browser.hover((start_s + end_s) / 2, rank + 0.84)
    assert said.startswith(
        f"dispatch F of layer {graph.phases[graph.phase[node]].layer}, all-to-all lane of rank {rank}"
    )
    lasts, exposed = (said.split("\n")[said.split("\n").index(word) + 1] for word in ("lasts", "exposed"))
    assert lasts == exposed == f"{1e3 * (end_s - start_s):.4g} ms"
    for _ in range(5):
        browser.wheel(browser.place(float(start_s + end_s) / 2, rank + 0.84), -240)
    assert hex_of(browser.colour(end_s - (end_s - start_s) / 10, rank + 0.84)) == THEMES["light"].exposed
    after = browser.hover(end_s + 1e-4, rank + 0.5)
    assert after.startswith("mlp F")
    assert f"gap before\n{lasts}: exposed all-to-all" in after
    browser.click(".lanes")
    assert "dispatch" not in browser.hover((start_s + end_s) / 2, rank + 0.84)


def test_the_page_is_dark_for_who_prefers_that(browser: Browser, figure5_page: Page) -> None:
    browser.open(figure5_page, dark=True)
    assert hex_of(browser.colour(15, 0.1)) == tint(CAUSE_STYLES["waiting"].fill, THEMES["dark"])
    ground = tuple(round(255 * one) for one in rgb(THEMES["dark"].ground))
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == f"rgb{ground}"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_keeps_anybody_from_the_page(browser: Browser, figure5_page: Page, width: int, dark: bool) -> None:
    browser.open(figure5_page, size=(width, 800), dark=dark)
    assert browser.barriers() == []


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_a_phone(browser: Browser, figure5_page: Page, width: int) -> None:
    browser.open(figure5_page, size=(width, 800))
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("gantt.clientWidth") >= width - 40


@pytest.mark.parametrize("width", [390, 1280])
def test_no_two_of_its_texts_touch(browser: Browser, figure5_page: Page, width: int) -> None:
    browser.open(figure5_page, size=(width, 800))
    browser.ask(RECORD_TEXTS)
    for zooms in (0, 1, 5, 10):
        browser.ask(f"Array.from({{length: {zooms}}}, () => document.querySelector('.zoom-in').click())")
        browser.ask("[window.texts = [], dispatchEvent(new Event('resize'))]")
        browser.settle()
        texts = browser.ask("window.texts")
        axis = sorted(text[1:] for text in texts if text[0] == max(texts)[0])
        assert all(re.fullmatch(r"[\d.]+|idle", text) for _, _, text in axis), axis
        assert min(after[0] - before[1] for before, after in pairwise(axis)) > 4, axis


def test_fingers_tap_and_pinch(phone: Browser, figure5_page: Page) -> None:
    pinching = phone.tab.context.new_cdp_session(phone.tab)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": round(x), "y": round(y), "id": finger} for finger, (x, y) in enumerate(places)]
        pinching.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        phone.settle()

    phone.open(figure5_page, size=(390, 844))
    phone.ask("gantt.scrollIntoView()")
    left, top, _ = phone.box("gantt")
    phone.tab.touchscreen.tap(left + 150, top + 20)
    assert "gap before" in phone.ask("tip.innerText")
    touch("touchStart", (left + 150, top + 40), (left + 200, top + 40))
    touch("touchMove", (left + 100, top + 40), (left + 250, top + 40))
    touch("touchEnd")
    begin, end = phone.span()
    assert end - begin == pytest.approx(81 / 3, rel=0.02)  # three times as far apart


def test_a_window_that_changes_while_the_page_is_loading_does_no_harm(browser: Browser, figure5_page: Page) -> None:
    browser.tab.add_init_script("addEventListener('DOMContentLoaded', () => dispatchEvent(new Event('resize')))")
    browser.open(figure5_page)
    assert browser.span() == (0, 81)


def test_it_works_in_the_frame_that_a_notebook_shows(browser: Browser, figure5_page: Page) -> None:
    file = browser.folder / "notebook.html"
    file.write_text(f"<!DOCTYPE html><title>notebook</title>{figure5_page._repr_html_()}", encoding="utf-8")
    browser.tab.goto(file.as_uri())
    browser.shown = browser.tab.frames[1]
    browser.opened()
    browser.choose("dualpipe")
    assert browser.span() == (0, 66)


def test_16_ranks_and_120_micro_batches_layer_by_layer_stay_usable(browser: Browser, deepseek_v3_page: Page) -> None:
    """Of 74400 phases a draw strokes those that are wide enough to be seen, and mixes the others, at every zoom."""
    browser.open(deepseek_v3_page)
    browser.ask(COUNT_STROKES)
    at = browser.place(9.0, 3.5)
    strokes = []
    for _ in range(12):
        browser.ask("window.strokes = 0")
        browser.wheel(at, -240)
        strokes.append(int(browser.ask("window.strokes")))
    assert browser.span()[1] - browser.span()[0] < 0.05
    assert min(strokes) > 0
    assert max(strokes) < 50_000
