"""The live page in a browser: what is set is what is shown, and its link is all of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from tests.browser import Visit, barriers, chromium, visit, wait

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.conftest import CommandLine

MINE = """\
# times of my own
pipeline: {ranks: 4, micro_batches: 12}
schedule: zb-h1
compare: [1f1b, zb-h1]
costs: {forward: 10.3 ms, backward_input: 11.1 ms, backward_weight: 9.7 ms, transfer: 0.31 ms}
"""
SIZES = [(1280, 900), (390, 844)]


@pytest.fixture(scope="module")
def serve(program: list[str]) -> Iterator[Callable[[str], str]]:
    """Return a function that serves a page in a process of its own, and says where."""
    servers: list[subprocess.Popen[str]] = []

    def started(config: str) -> str:
        command = [*program, "explore", config, "--port", "0", "--no-open"]
        servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        assert servers[-1].stdout is not None
        return servers[-1].stdout.readline().strip()

    yield started
    for server in servers:
        server.terminate()
        assert server.communicate(timeout=60)[1] == "dualpipe-sim: ended by SIGTERM\n"


@pytest.fixture(scope="module")
def figure5(serve: Callable[[str], str]) -> str:
    return serve("figure5")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def tab(browser: Browser) -> Iterator[Visit]:
    with visit(browser, viewport={"width": 1280, "height": 900}) as opened:
        yield opened


def settled(page: Page) -> None:
    """Wait until what was asked for last is shown."""
    wait(page, "document.body.dataset.ready && document.querySelector('#results').ariaBusy === 'false'")


def table(page: Page) -> list[list[str]]:
    return [row.locator("th, td").all_inner_texts() for row in page.locator("#table tbody tr").all()]


def sets(page: Page) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(page.url).query))


def test_it_opens_with_what_it_was_started_with(tab: Visit, figure5: str) -> None:
    tab.page.goto(figure5)
    settled(tab.page)
    assert sets(tab.page) == {"config": "figure5"}
    assert [row[:3] for row in table(tab.page)] == [
        ["dualpipe", "8 × 20", "66"], ["zb-h1", "8 × 20", "67"], ["chimera", "8 × 24", "96"], ["1f1b", "8 × 20", "81"],
    ]  # fmt: skip
    assert tab.page.get_by_label("ranks", exact=True).input_value() == "8"
    assert tab.page.locator("#viewer canvas").count() >= 2
    assert not tab.page.locator("#error").is_visible()


def test_a_slider_a_text_and_a_word_set_keys_of_the_link(tab: Visit, figure5: str) -> None:
    page = tab.page
    page.goto(figure5)
    settled(page)
    page.get_by_label("micro-batches slider").fill("40")
    settled(page)
    assert table(page)[0][:3] == ["dualpipe", "8 × 40", "126"]
    page.get_by_label("backward weight", exact=True).fill("0.5")
    page.keyboard.press("Enter")
    settled(page)
    page.get_by_label("contention").select_option("fair")
    settled(page)
    assert sets(page) == {
        "config": "figure5", "pipeline.micro_batches": "40", "costs.backward_weight": "0.5", "contention": "fair",
    }  # fmt: skip
    page.get_by_role("button", name="take back costs.backward_weight").click()
    settled(page)
    assert "costs.backward_weight" not in sets(page)
    assert table(page)[0][2] == "126"


def test_keys_move_a_slider(tab: Visit, figure5: str) -> None:
    page = tab.page
    page.goto(f"{figure5}?config=figure5&compare=[]")
    settled(page)
    page.get_by_label("ranks slider").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    settled(page)
    assert sets(page)["pipeline.ranks"] == "12"
    assert page.evaluate("document.activeElement.ariaLabel") == "ranks slider"
    page.get_by_label("forward slider").focus()
    page.keyboard.press("ArrowRight")
    settled(page)
    assert sets(page)["costs.forward"] == "1.05"


def test_schedules_are_added_removed_and_one_of_them_is_the_main_one(tab: Visit, figure5: str) -> None:
    page = tab.page
    page.goto(figure5)
    settled(page)
    page.get_by_label("add").select_option("dualpipev")
    settled(page)
    page.get_by_role("button", name="remove 1f1b", exact=True).click()
    settled(page)
    page.get_by_role("radio", name="zb-h1").check()
    settled(page)
    assert {row[0] for row in table(page)} == {"dualpipe", "dualpipev", "zb-h1", "chimera"}
    asked = sets(page)
    assert asked["compare"] == "[dualpipe, zb-h1, {name: chimera, micro_batches: 24}, dualpipev]"
    assert asked["schedule"] == "zb-h1"
    assert page.locator("tr.chosen th").inner_text() == "zb-h1"


def test_a_setting_that_is_refused_says_so_and_leaves_what_was_shown(tab: Visit, figure5: str) -> None:
    page = tab.page
    page.goto(f"{figure5}?config=figure5&schedule=1f1b&compare=[]")
    settled(page)
    page.get_by_label("key", exact=True).fill("pipeline.rank")
    page.get_by_label("its value, in YAML").fill("4")
    page.get_by_role("button", name="set", exact=True).click()
    page.get_by_role("alert").wait_for()
    settled(page)
    said = page.get_by_role("alert").inner_text()
    assert said == "pipeline.rank: unknown key; did you mean 'ranks'? — shown is what was asked before"
    assert table(page)[0][:3] == ["1f1b", "8 × 20", "81"]
    assert page.locator("#results.stale").count() == 1
    page.get_by_role("button", name="take back pipeline.rank").click()
    settled(page)
    assert not page.get_by_role("alert").is_visible()
    assert page.locator("#results.stale").count() == 0


def test_a_size_that_one_schedule_refuses_leaves_the_others(tab: Visit, figure5: str) -> None:
    tab.page.goto(f"{figure5}?config=figure5&pipeline.ranks=7")
    settled(tab.page)
    rows = {row[0]: row for row in table(tab.page)}
    assert rows["1f1b"][1] == "7 × 20"
    assert "needs an even number of ranks" in rows["dualpipe"][2]


def test_of_many_quick_moves_the_last_one_is_shown(tab: Visit, figure5: str) -> None:
    page = tab.page
    page.goto(f"{figure5}?config=figure5&schedule=1f1b&compare=[]")
    settled(page)
    page.evaluate(
        """() => {
            const slider = document.querySelector('[aria-label="micro-batches slider"]');
            for (let value = 21; value <= 90; value++) {
                slider.value = value;
                slider.dispatchEvent(new Event("input"));
            }
        }"""
    )
    settled(page)
    assert table(page)[0][:3] == ["1f1b", "8 × 90", "291"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["set", "own"])
def test_a_link_shows_the_same_in_a_fresh_browser_as_its_yaml_in_the_command_line(
    browser: Browser, serve: Callable[[str], str], command_line: CommandLine, tmp_path: Path, figure5: str, how: str
) -> None:
    (tmp_path / "mine.yaml").write_text(MINE, encoding="utf-8")
    where = figure5 if how == "set" else serve(str(tmp_path / "mine.yaml"))
    with visit(browser) as first:
        first.page.goto(where)
        settled(first.page)
        first.page.get_by_label("micro-batches slider").fill("28")
        first.page.get_by_label("forward slider").fill("-30")
        settled(first.page)
        link, shown = first.page.url, table(first.page)
        with first.page.expect_download() as yaml:
            first.page.get_by_role("link", name="YAML").click()
        yaml.value.save_as(tmp_path / "experiment.yaml")
    ran = json.loads(command_line("run", tmp_path / "experiment.yaml", "--json").stdout)
    elsewhere = link.replace(where, figure5)  # another server, which was started with something else
    with visit(browser) as second:
        second.page.goto(elsewhere)
        settled(second.page)
        assert table(second.page) == shown
        exact = second.page.locator("tr.chosen").get_attribute("title") or ""
    assert f"makespan_s = {ran['makespan_s']}" in exact.split("\n")
    assert f"bubble_ratio = {ran['bubble_ratio']}" in exact.split("\n")
    assert set(parse_qs(urlsplit(link).query)) >= {"config" if how == "set" else "yaml", "costs.forward"}


def test_the_window_shown_is_in_the_link(browser: Browser, figure5: str) -> None:
    def window(page: Page) -> Any:  # noqa: ANN401
        page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
        return page.evaluate("Object.entries(document.querySelector('canvas.gantt').dataset).join()")

    with visit(browser) as first:
        first.page.goto(figure5)
        settled(first.page)
        first.page.locator(".zoom-in").click()
        wait(first.page, "location.search.includes('view.window=')")
        link, shown = first.page.url, window(first.page)
    with visit(browser) as second:
        second.page.goto(link)
        settled(second.page)
        assert window(second.page) == shown


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["Python", "PNG", "SVG", "JSON", "torch CSV", "Perfetto"])
def test_every_button_gives_its_file(tab: Visit, figure5: str, name: str) -> None:
    tab.page.goto(f"{figure5}?config=figure5&compare=[]")
    settled(tab.page)
    with tab.page.expect_download() as download:
        tab.page.get_by_role("link", name=name, exact=True).click()
    assert download.value.path().stat().st_size > 300


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_keeps_people_from_it(
    browser: Browser, figure5: str, size: tuple[int, int], theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"viewport": {"width": size[0], "height": size[1]}, "color_scheme": theme, "bypass_csp": True}
    with visit(browser, **options) as opened:  # (axe is a script of ours, which the page itself would not run)
        opened.page.goto(f"{figure5}?config=figure5&pipeline.micro_batches=24")
        settled(opened.page)
        opened.page.locator("#settings").evaluate("(settings) => { settings.open = true; }")
        assert barriers(opened.page) == []
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_shown_is_said(tab: Visit, figure5: str) -> None:
    tab.page.goto(f"{figure5}?config=figure5&compare=[dualpipe, 1f1b]")
    settled(tab.page)
    wait(tab.page, "document.querySelector('#said').textContent === 'dualpipe: makespan 66; 1f1b: makespan 81'")


@pytest.mark.slow
def test_a_server_that_is_gone_is_said(browser: Browser, program: list[str]) -> None:
    command = [*program, "explore", "figure5", "--port", "0", "--no-open"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server,
        visit(browser) as opened,
    ):
        try:
            assert server.stdout is not None
            opened.page.goto(server.stdout.readline().strip())
            settled(opened.page)
        finally:
            server.terminate()
            server.communicate(timeout=60)
        opened.page.get_by_label("ranks slider").fill("10")
        opened.page.get_by_role("alert").wait_for()
        assert "The server does not answer" in opened.page.get_by_role("alert").inner_text()
        opened.wrong.clear()


def test_the_link_can_be_copied(browser: Browser, figure5: str) -> None:
    with visit(browser, permissions=["clipboard-read", "clipboard-write"]) as opened:
        opened.page.goto(f"{figure5}?config=figure5&pipeline.micro_batches=24")
        settled(opened.page)
        opened.page.get_by_role("button", name="copy link").click()
        wait(opened.page, "document.querySelector('#copied').textContent === 'copied'")
        assert opened.page.evaluate("navigator.clipboard.readText()") == opened.page.url


def test_a_slow_answer_is_ended_by_the_next_setting(tab: Visit, figure5: str) -> None:
    page = tab.page
    page.goto(f"{figure5}?config=figure5&compare=[]")
    settled(page)
    page.get_by_label("key", exact=True).fill("schedule")
    page.get_by_label("its value, in YAML").fill("{name: searched, moves: 1000000000}")
    page.get_by_role("button", name="set", exact=True).click()
    wait(page, "location.search.includes('moves') && document.querySelector('#results').ariaBusy === 'true'")
    page.get_by_role("button", name="take back schedule").click()
    settled(page)
    assert table(page)[0][:3] == ["dualpipe", "8 × 20", "66"]
    assert not page.get_by_role("alert").is_visible()
