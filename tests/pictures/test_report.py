"""Reports: what is in the page, and that it works in a real browser without a network.

The browser tests need Chromium and its driver (Debian: ``apt-get install chromium chromium-driver``); without them
they are skipped.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import statistics
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dualpipe_sim import compare, simulate
from dualpipe_sim.analysis import metrics
from dualpipe_sim.analysis.alltoall import alltoall_time
from dualpipe_sim.arrays import FloatArray
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import KIND_STYLES, THEMES, rgb
from dualpipe_sim.pictures.report import Page, Run, page
from dualpipe_sim.pictures.report.data import run_data
from dualpipe_sim.pictures.report.gaps import NO_OP, waits_of
from dualpipe_sim.result import Comparison, refused

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
GUTTER_PX = RIGHT_PX = 64


# What is in the page


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the text inside scripts of type JSON."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == ("script", {"type": "application/json", "id": "data"}) and not self.json:
            self.json = data


def columns_of(run: dict[str, Any]) -> dict[str, NDArray[Any]]:
    raw = zlib.decompress(base64.b64decode(run["bytes"]))
    return {
        name: np.frombuffer(raw, np.dtype(kind).newbyteorder("<"), length, offset)
        for name, (kind, offset, length) in run["columns"].items()
    }


def times_s(run: dict[str, Any], name: str) -> tuple[FloatArray, FloatArray]:
    """Starts and ends of what a page draws, as it adds them up."""
    columns, tick_s = columns_of(run), run["makespan_s"] / 2**30
    start = np.cumsum(columns[f"{name}_start"], dtype=np.int64)
    return start * tick_s, (start + columns[f"{name}_length"]) * tick_s


def test_a_page_asks_for_nothing_from_outside() -> None:
    tags = Tags(compare("figure5").report().html).tags
    assert not {"link", "img", "iframe", "object", "embed", "audio", "video"} & {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if {"src", "href", "srcset"} & set(attributes)]
    (policy,) = (one["content"] for _, one in tags if one.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


def test_a_page_holds_what_happened_to_a_tick(layered: Timeline) -> None:
    run = run_data(Run("pair", layered))
    graph, columns = layered.graph, columns_of(run)
    schedule, phases = graph.schedule, graph.first_transfer
    tick_s = layered.makespan_s / 2**30
    assert columns["kind"].tolist() == schedule.kind.tolist()
    assert np.cumsum(columns["stage"]).tolist() == schedule.stage.tolist()
    assert np.cumsum(columns["micro_batch"]).tolist() == schedule.micro_batch.tolist()
    for name, start_s, end_s in (
        ("phase", layered.start_s[:phases], layered.end_s[:phases]),
        ("transfer", layered.start_s[phases:], layered.end_s[phases:]),
    ):
        start, end = times_s(run, name)
        assert start == pytest.approx(start_s, abs=tick_s)
        assert end == pytest.approx(end_s, abs=tick_s)
    start, end = times_s(run, "op")
    first, last = schedule.first_op, np.append(schedule.first_op[1:], len(schedule.rank)) - 1
    assert start[first] == pytest.approx(layered.task_start_s, abs=tick_s)
    assert end[last] == pytest.approx(layered.task_end_s, abs=tick_s)
    start, end = times_s(run, "exposed")
    exposed_s = np.bincount(columns["exposed_rank"], weights=end - start)
    assert exposed_s == pytest.approx(alltoall_time(layered).exposed_s, abs=1000 * tick_s)
    looks = [run["looks"][look] for look in columns["look"]]
    assert looks == [
        [one.name, one.kind, one.layer, one.lane, one.half] for one in map(graph.phases.__getitem__, graph.phase)
    ]


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe", "zb-h1", "interleaved-1f1b"])
def test_gaps_before_tasks_are_blamed_as_metrics_blame_them(schedule: str) -> None:
    played = simulate("small", schedule=schedule, micro_batches=16).timeline
    assert played is not None
    waits, begin = waits_of(played), played.first_task_of_rank[:-1]
    gap = np.append(0.0, played.task_start_s[1:] - played.task_end_s[:-1])
    gap[begin] = 0.0
    exposed = np.bincount(played.rank, weights=np.minimum(gap, waits.under_way_s))
    assert exposed == pytest.approx(metrics.idle_s_by_cause(played)["exposed_transfer"])
    # Nothing waits for what is not done: the op's task and the way are over when the gap is.
    there = waits.op != NO_OP
    done_s = played.task_end_s[played.graph.schedule.task_of_op[waits.op[there]]] + waits.under_way_s[there]
    assert (done_s <= played.task_start_s[there] + 1e-12).all()


def test_what_users_write_is_text_and_never_markup() -> None:
    evil = "</script><script>alert(1)</script><b>&"
    played = simulate("figure5").timeline
    assert played is not None
    html = page([Run(evil, played)], title=evil, table="<table></table>", config=evil).html
    assert "<script>alert" not in html
    found = Tags(html)
    assert sum(tag == "script" for tag, _ in found.tags) == 2
    assert json.loads(found.json)["runs"][0]["label"] == evil
    assert "<pre>&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;b&gt;&amp;</pre>" in html


def test_refused_schedules_are_in_the_table_and_not_in_the_switch() -> None:
    runs = compare("figure5", compare=["dualpipe", "chimera"])  # Chimera takes multiples of 8
    html = runs.report(first="chimera").html
    data = json.loads(Tags(html).json)
    assert ([run["label"] for run in data["runs"]], data["first"]) == (["dualpipe"], 0)
    assert "multiple" in html.split("<tbody>")[1].split("</tbody>")[0]
    with pytest.raises(UserError, match=r"^there is no run to report; give at least one that was not refused$"):
        Comparison((refused(_choice(), "why not"),)).report()


def _choice() -> Any:  # noqa: ANN401
    from dualpipe_sim.experiment import Choice

    return Choice("chimera", 8, 20)


def test_a_notebook_shows_the_page_in_a_frame_of_its_own() -> None:
    report = simulate("figure5").report()
    (frame,) = Tags(report._repr_html_()).tags
    assert frame[0] == "iframe"
    assert frame[1]["srcdoc"] == report.html  # the parser has unescaped it
    assert frame[1]["sandbox"] == "allow-scripts"


def test_a_page_of_16_ranks_and_120_micro_batches_layer_by_layer_is_small(deepseek_v3: Page) -> None:
    # 74400 phases; a page with plotly.js inside would be 4.8 MB without any.
    assert len(deepseek_v3.html) < 250_000


def test_the_command_writes_the_page_with_its_configuration(command_line: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    done = command_line("report", "figure5", "-o", file, "--set", "pipeline.micro_batches=40")
    assert done.returncode == 0, done.stderr
    html = file.read_text(encoding="utf-8")
    assert "<h1>figure5</h1>" in html
    assert "# --set pipeline.micro_batches=40</pre>" in html
    assert json.loads(Tags(html).json)["runs"][0]["micro_batches"] == 40


@pytest.mark.parametrize(
    ("config", "file", "said"),
    [
        ("no_such", "report.pdf", "report.pdf: a report is a page; end its name in .html"),
        ("no_such", "report.html", "no such file, and no packaged config of this name"),
        ("figure5", "no/such/folder.html", "no/such/folder.html: cannot be written: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_the_file_s_name_is_looked_at_first(
    command_line: CommandLine, config: str, file: str, said: str
) -> None:
    done = command_line("report", config, "-o", file)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert said in done.stderr


# In a browser


@pytest.fixture(scope="module")
def layered() -> Timeline:
    played = simulate("deepseek_v3_pair").timeline
    assert played is not None
    return played


@pytest.fixture(scope="module")
def deepseek_v3() -> Page:
    return simulate("deepseek_v3").report()


class Browser:
    """A page in Chromium, with its network cut off."""

    def __init__(self, driver: Any, folder: Path) -> None:  # noqa: ANN401
        self.driver = driver
        self.folder = folder

    def open(self, report: Page, *, dark: bool = False, size: tuple[int, int] = (1400, 1000)) -> None:
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=size[0] < 600,
        )
        report.save(self.folder / "report.html")
        self.driver.get((self.folder / "report.html").as_uri())
        self.wait("document.body.dataset.ready")
        self.settle()

    def send(self, command: str, **arguments: object) -> Any:  # noqa: ANN401
        return self.driver.execute_cdp_cmd(command, arguments)

    def ask(self, expression: str) -> Any:  # noqa: ANN401
        return self.driver.execute_script(f"return {expression}")

    def wait(self, expression: str) -> None:
        until = time.monotonic() + 20
        while not self.ask(expression):
            assert time.monotonic() < until, (expression, self.errors())
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def errors(self) -> list[str]:
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def span(self) -> tuple[float, float]:
        """The time that the Gantt shows."""
        begin, end = self.ask("[gantt.dataset.from, gantt.dataset.to]")
        return float(begin), float(end)

    def place(self, at_s: float, row: float) -> tuple[float, float]:
        """Where a time and a rank are on the screen; a row's middle is half a rank below its number."""
        left, top, width = self.ask("(({left, top, width}) => [left, top, width])(gantt.getBoundingClientRect())")
        ranks = self.ask("gantt.clientHeight - 26")
        begin, end = self.span()
        x = left + GUTTER_PX + (at_s - begin) / (end - begin) * (width - GUTTER_PX - RIGHT_PX)
        return x, top + row * ranks / self.ask("document.querySelectorAll('.bar').length")

    def mouse(self, kind: str, at: tuple[float, float], **more: object) -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], **more)
        self.settle()

    def hover(self, at_s: float, row: float) -> str:
        self.mouse("mouseMoved", self.place(at_s, row))
        return "" if self.ask("tip.hidden") else str(self.ask("tip.innerText"))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("mousePressed", start, button="left", clickCount=1)
        self.mouse("mouseMoved", end, button="left", buttons=1)
        self.mouse("mouseReleased", end, button="left", clickCount=1)

    def click(self, selector: str) -> None:
        self.ask(f"document.querySelector('{selector}').click()")
        self.settle()
        self.settle()

    def choose(self, label: str) -> None:
        self.ask(
            f"[...document.querySelectorAll('#runs button')].find((one) => one.firstChild.data === '{label}').click()"
        )
        self.wait(f"gantt.dataset.run === '{label}'")

    def colour(self, at_s: float, row: float) -> tuple[int, ...]:
        image = Image.open(BytesIO(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])))
        x, y = self.place(at_s, row)
        return image.convert("RGB").getpixel((round(x), round(y)))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not CHROMIUM or not DRIVER:
        pytest.skip("NOT TESTED IN A BROWSER: apt-get install chromium chromium-driver, and run again")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_script_timeout(60)
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield Browser(driver, tmp_path_factory.mktemp("pages"))
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def figure5() -> Page:
    return compare("figure5").report("figure5", "pipeline: {ranks: 8}", first="1f1b")


def hex_of(pixel: tuple[int, ...]) -> str:
    return "#" + "".join(f"{one:02x}" for one in pixel)


def test_it_opens_without_a_network_and_without_an_error(browser: Browser, figure5: Page) -> None:
    browser.open(figure5)
    labels = browser.ask("[...document.querySelectorAll('#runs button')].map((one) => one.innerText)")
    assert labels == ["dualpipe 66 s", "zb-h1 67 s", "chimera 96 s", "1f1b 81 s"]
    assert browser.ask("gantt.dataset.run") == "1f1b"
    assert browser.ask("document.querySelector('tr.chosen td').innerText") == "1f1b"
    assert browser.span() == (0, 81)
    assert browser.errors() == []


def test_cells_are_where_and_as_coloured_as_on_paper(browser: Browser, figure5: Page) -> None:
    browser.open(figure5)
    # 1F1B on 8 ranks: rank 0's forwards fill 0-8, its first backward comes at 22; rank 7 starts at 7 with F, then B.
    assert hex_of(browser.colour(0.5, 0.2)) == KIND_STYLES[0].light
    assert hex_of(browser.colour(15, 0.2)) == THEMES["light"].ground
    assert hex_of(browser.colour(23, 0.2)) == KIND_STYLES[1].light
    assert hex_of(browser.colour(9, 7.2)) == KIND_STYLES[1].light


def test_hovering_says_op_time_and_the_cause_of_the_gap_before_it(browser: Browser, figure5: Page) -> None:
    browser.open(figure5)
    assert browser.hover(22.5, 0.5).split("\n") == [
        "0B0 backward of micro-batch 0, stage 0, rank 0",
        "time", "22 s to 24 s",
        "lasts", "2 s",
        "gap before", "14 s: 14 s waiting for 1B0 of rank 1",
    ]  # fmt: skip
    assert browser.hover(15, 0.5).split("\n") == [
        "idle before 0B0",
        "gap before", "14 s: 14 s waiting for 1B0 of rank 1",
    ]  # fmt: skip
    assert "7 s: warm-up, waits for 6F0 of rank 6" in browser.hover(3, 7.5)
    assert "after its last op: drain" in browser.hover(80, 7.5)
    browser.choose("dualpipe")
    pair = browser.hover(25, 0.5)
    assert re.search(r"^0B0 .*\npair\n\(15F\d+;0B0\)OVERLAP_F_B\n", pair)
    assert "of pipe" in pair
    browser.mouse("mouseMoved", (5, 5))
    assert browser.ask("tip.hidden")


def test_an_exposed_transfer_is_named_as_such(browser: Browser) -> None:
    settings = {"costs.transfer": "0.5 s", "pipeline.ranks": 2, "pipeline.micro_batches": 4}
    browser.open(simulate("figure5", schedule="1f1b", **settings).report())
    # 0F0 0-1, 0F1 1-2; 1F0 1.5-2.5, 1B0 2.5-4.5; 0B0 from 5 on, its gradient under way from 4.5
    assert browser.hover(5.5, 0.5).endswith("3 s: 2.5 s waiting for 1B0 of rank 1, 500 ms exposed transfer of 1B0")


def test_zoom_keeps_what_the_pointer_is_on_in_place(browser: Browser, figure5: Page) -> None:
    browser.open(figure5)
    x, y = browser.place(22.5, 0.5)
    at = (round(x), y)  # a wheel is on a whole pixel, which is this time:
    pointed_s = 22.5 + (round(x) - x) * 81 / (browser.ask("gantt.clientWidth") - GUTTER_PX - RIGHT_PX)
    for _ in range(4):
        browser.mouse("mouseWheel", at, deltaX=0, deltaY=-240)
    begin, end = browser.span()
    assert 0 < begin < 22.5 < end < 81
    assert end - begin == pytest.approx(81 * np.exp(-0.6) ** 4)
    assert browser.place(pointed_s, 0.5) == pytest.approx(at, abs=0.01)
    assert "0B0" in browser.hover(22.5, 0.5)
    for count in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            browser.mouse(kind, at, button="left", clickCount=count)
    assert browser.span() == (0, 81)


def test_drag_buttons_keys_and_overview_move_the_window(browser: Browser, figure5: Page) -> None:
    browser.open(figure5)
    browser.click("#zoom-in")
    assert browser.span() == (20.25, 60.75)
    browser.drag(browser.place(40, 1), browser.place(30, 1))
    assert browser.span() == pytest.approx((30.25, 70.75), abs=0.1)
    browser.ask("gantt.focus()")
    browser.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    browser.send("Input.dispatchKeyEvent", type="keyDown", key="+")
    browser.settle()
    assert browser.span() == pytest.approx((32.275, 52.525), abs=0.1)
    browser.click("#fit-all")
    assert browser.span() == (0, 96)  # Chimera's
    browser.click("#fit-run")
    assert browser.span() == (0, 81)
    left, top, width = browser.ask("(({left, top, width}) => [left, top, width])(overview.getBoundingClientRect())")
    span = width - GUTTER_PX - RIGHT_PX
    browser.drag((left + GUTTER_PX + span / 4, top + 20), (left + GUTTER_PX + span / 2, top + 20))
    assert browser.span() == pytest.approx((81 / 4, 81 / 2), abs=0.2)


def test_scrolling_down_over_the_whole_run_scrolls_the_page(browser: Browser, figure5: Page) -> None:
    browser.open(figure5, size=(1400, 500))
    browser.mouse("mouseWheel", browser.place(40, 1), deltaX=0, deltaY=200)
    browser.wait("window.scrollY > 0")
    assert browser.span() == (0, 81)


def test_the_switch_changes_every_chart_and_keeps_a_zoom(browser: Browser, figure5: Page) -> None:
    browser.open(figure5)
    assert browser.ask("document.querySelector('.bar .share').innerText") == "21 s, 25.9 %"
    browser.choose("dualpipe")
    assert browser.span() == (0, 66)
    assert browser.ask("document.querySelector('.bar .share').innerText") == "6 s, 9.1 %"
    assert browser.ask("document.querySelector('tr.chosen td').innerText") == "dualpipe"
    browser.click("#zoom-in")
    browser.choose("zb-h1")
    assert browser.span() == (16.5, 49.5)
    assert browser.errors() == []


def test_memory_says_what_is_held_under_the_pointer(browser: Browser, figure5: Page) -> None:
    browser.open(figure5)
    left, top, width = browser.ask("(({left, top, width}) => [left, top, width])(memory.getBoundingClientRect())")
    browser.mouse("mouseMoved", (left + GUTTER_PX + 5.5 / 81 * (width - GUTTER_PX - RIGHT_PX), top + 12))
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
        browser.mouse("mouseWheel", browser.place(float(start_s + end_s) / 2, rank + 0.84), deltaX=0, deltaY=-240)
    assert hex_of(browser.colour(end_s - (end_s - start_s) / 10, rank + 0.84)) == THEMES["light"].exposed
    after = browser.hover(end_s + 1e-4, rank + 0.5)
    assert after.startswith("mlp F")
    assert f"gap before\n{lasts}: exposed all-to-all" in after
    browser.click("#lanes")
    assert "dispatch" not in browser.hover((start_s + end_s) / 2, rank + 0.84)
    assert browser.errors() == []


def test_the_page_is_dark_for_who_prefers_that(browser: Browser, figure5: Page) -> None:
    browser.open(figure5, dark=True)
    assert hex_of(browser.colour(15, 0.5)) == THEMES["dark"].ground
    ground = tuple(round(255 * one) for one in rgb(THEMES["dark"].ground))
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == f"rgb{ground}"


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_a_phone(browser: Browser, figure5: Page, width: int) -> None:
    browser.open(figure5, size=(width, 800))
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("gantt.clientWidth") >= width - 40
    assert browser.errors() == []


def test_fingers_tap_and_pinch(browser: Browser, figure5: Page) -> None:
    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": round(x), "y": round(y), "id": finger} for finger, (x, y) in enumerate(places)]
        browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        browser.settle()

    browser.send("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    try:
        browser.open(figure5, size=(390, 844))
        left, top = browser.ask("(({left, top}) => [left, top])(gantt.getBoundingClientRect())")
        touch("touchStart", (left + 150, top + 20))
        touch("touchEnd")
        assert "gap before" in browser.ask("tip.innerText")
        touch("touchStart", (left + 150, top + 40), (left + 200, top + 40))
        touch("touchMove", (left + 100, top + 40), (left + 250, top + 40))
        touch("touchEnd")
        begin, end = browser.span()
        assert end - begin == pytest.approx(81 / 3, rel=0.02)  # three times as far apart
    finally:
        browser.send("Emulation.setTouchEmulationEnabled", enabled=False)


def test_a_window_that_changes_while_the_page_is_loading_does_no_harm(browser: Browser, figure5: Page) -> None:
    source = "addEventListener('DOMContentLoaded', () => dispatchEvent(new Event('resize')))"
    script = browser.send("Page.addScriptToEvaluateOnNewDocument", source=source)
    try:
        browser.open(figure5)
        assert browser.span() == (0, 81)
        assert browser.errors() == []
    finally:
        browser.send("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


def test_it_works_in_the_frame_that_a_notebook_shows(browser: Browser, figure5: Page) -> None:
    file = browser.folder / "notebook.html"
    file.write_text(f"<!DOCTYPE html><title>notebook</title>{figure5._repr_html_()}", encoding="utf-8")
    browser.driver.get(file.as_uri())
    browser.driver.switch_to.frame(0)
    try:
        browser.wait("document.body.dataset.ready")
        browser.choose("dualpipe")
        assert browser.span() == (0, 66)
        assert browser.errors() == []
    finally:
        browser.driver.switch_to.default_content()


def test_16_ranks_and_120_micro_batches_layer_by_layer_stay_usable(browser: Browser, deepseek_v3: Page) -> None:
    begun = time.monotonic()
    browser.open(deepseek_v3)
    assert time.monotonic() - begun < 10
    at = browser.place(9.0, 3.5)
    draws_ms = []
    for _ in range(12):
        browser.mouse("mouseWheel", at, deltaX=0, deltaY=-240)
        draws_ms.append(float(browser.ask("gantt.dataset.drawMs")))
    assert browser.span()[1] - browser.span()[0] < 0.05
    # 10 to 20 ms without a GPU on two quiet cores; a busy machine may take some times that.
    assert statistics.median(draws_ms) < 150
    assert browser.errors() == []
