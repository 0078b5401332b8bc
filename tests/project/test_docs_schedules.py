"""docs/schedules/ is what the registry says now, every claim in it has a source, and its tables sort in a browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

import pytest

from dualpipe_sim.pictures.palette import ThemeName
from dualpipe_sim.runtimes.registry import RUNTIMES
from dualpipe_sim.schedules.registry import schedules
from dualpipe_sim.schedules.theory import FORMULAS, closed_form
from tests.browser import chromium, visit
from tests.pages import script

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.conftest import CommandLine

DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "schedules"
NAMES = list(schedules())


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return script(DOCS / "make_schedules.py")


@pytest.fixture(scope="module")
def said(generator: ModuleType) -> dict[str, Any]:
    return generator.SAID  # type: ignore[no-any-return]


def text_of(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def test_the_pages_are_current(generator: ModuleType) -> None:
    written = {path: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    assert written == generator.pages(), "run: python docs/make_schedules.py"


def test_every_schedule_has_its_charts_and_every_chart_a_schedule() -> None:
    charts = {path.name for path in (DOCS / "images" / "schedules").iterdir()}
    assert charts == {
        f"{name}{end}.png" for name in NAMES for end in ("", *(f"_{theme}" for theme in get_args(ThemeName)[1:]))
    }
    assert [name for name in NAMES if f"(../images/schedules/{name}.png" not in text_of(name).replace('"', "(")] == []


def test_every_option_of_every_schedule_is_explained() -> None:
    for name, spec in schedules().items():
        lines = [line for line in text_of(name).splitlines() if line.startswith("- Option ")]
        assert len(lines) == len(spec.options), name
        assert not [line for line in lines if line.endswith(": ")], name


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_numbered_steps(name: str) -> None:
    recipe = text_of(name).partition("## Recipe\n")[2].partition("\n## ")[0]
    steps = [int(number) for number in re.findall(r"^(\d)\. \S", recipe, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1)) != []


# Sources.


def test_every_schedule_says_who_published_it_and_who_runs_it(said: dict[str, Any]) -> None:
    assert sorted(said["schedules"]) == sorted(NAMES)
    for name, one in said["schedules"].items():
        assert one["cites"], name
        assert set(one["cites"]) <= set(said["citations"]), name
        assert set(one["runs"]) <= set(said["frameworks"]), name
    assert {one["cites"] for one in said["not_drawn"]} <= set(said["citations"])


def test_every_citation_is_complete_and_cited(said: dict[str, Any]) -> None:
    for key, one in said["citations"].items():
        assert one["title"], key
        assert 1983 <= one["year"] <= 2026, key
        assert "arxiv" in one or one["link"].startswith("https://"), key
        assert re.fullmatch(r"\d{4}\.\d{5}", one.get("arxiv", "0000.00000")), key
        authors = one["authors"].split(" and ")
        assert all(re.fullmatch(r"[^,]+, [^,]+|\{[^}]+\}|others", author) for author in authors), key
    cited = [key for one in said["schedules"].values() for key in one["cites"]]
    assert set(cited) | {one["cites"] for one in said["not_drawn"]} == set(said["citations"])


def test_an_arxiv_number_is_no_younger_than_its_year(said: dict[str, Any]) -> None:
    for key, one in said["citations"].items():
        if "arxiv" in one:
            assert one["year"] == 2000 + int(one["arxiv"][:2]), key


def test_a_first_line_names_a_work_that_is_cited(said: dict[str, Any], generator: ModuleType) -> None:
    """Where a schedule's first line has an address, it is one of those that its page cites, or of what runs it."""
    for name, spec in schedules().items():
        one = said["schedules"][name]
        known = {generator.schedule_sources.address(said["citations"][key]) for key in one["cites"]}
        known |= {"https://github.com/NVIDIA/Megatron-LM"}  # the program whose pairs have no paper but its report
        for address in re.findall(r"https?://[^\s,]+[^\s,.]", spec.source):
            assert address in known, (name, address)


def test_runtimes_have_the_schedules_that_pages_say(said: dict[str, Any]) -> None:
    for key, framework in said["frameworks"].items():
        if "runtime" in framework:
            runs = {name for name, one in said["schedules"].items() if key in one["runs"]}
            written = set(RUNTIMES.get(framework["runtime"]).schedules)
            assert written <= runs, key
            assert runs - written <= {"zb-h1"}, key  # (torch's interleaved zero bubble with one stage a rank)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_of_a_page_run(command_line: CommandLine, name: str) -> None:
    commands = re.findall(r"`dualpipe-sim (schedule [^`…]+)`", text_of(name))
    assert commands
    for command in commands:
        done = command_line(*command.split())
        assert done.returncode == 0, f"{command}\n{done.stderr}"


# Numbers.


def test_a_formula_with_its_letters_filled_in_is_what_it_says(generator: ModuleType) -> None:
    """The numbers on a page, computed by Python as they stand there, are the formula's and the simulator's."""
    shown = 0
    for name in FORMULAS:
        here = closed_form(name, 4, 12 if name == "stp" else 8, offload=1.0)
        assert here is not None
        for value, row in zip((here.bubble_s, here.peak_activations), formula_rows(text_of(name)), strict=True):
            _, _, filled, simulated = row
            if value is None:
                assert filled == "–", name
                continue
            computed, _, result = filled.rpartition(" = ")
            assert value == pytest.approx(evaluated(computed or result)) == pytest.approx(float(result)), name
            assert value == pytest.approx(float(simulated)), name
            shown += 1
    assert shown > 40


def formula_rows(page: str) -> list[list[str]]:
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if re.match(r"\| (idle|activations)[ ,]", line)]
    return rows[:2]


def evaluated(formula: str) -> float:
    python = formula.replace("·", "*").replace("⌊", "math.floor(").replace("⌋", ")")
    python = re.sub(r"(?<=[\d)])(?=\(|math)", "*", python.replace("⌈", "math.ceil(").replace("⌉", ")"))
    return float(eval(python, {"math": math}))  # noqa: S307 - of a page's own numbers


def test_runs_behind_the_tables_are_what_plays_now(generator: ModuleType) -> None:
    rows = generator.situations.read()
    assert {row.schedule for row in rows} == set(NAMES)
    quick = [row for row in rows if row.micro_batches == 16]
    for row in quick[:: len(quick) // 40]:
        spec = schedules()[row.schedule]
        options, held = (
            {name: spec.parse_option(name, value) for name, value in (one.split("=") for one in said.split())}
            for said in (row.options, row.held)
        )
        again = generator.situations.played(
            row.contest, row.schedule, options, held, row.micro_batches, row.transfer, row.pair
        )
        assert again == row, "run: python docs/make_situations.py"


def test_a_schedule_stands_among_those_that_need_no_more(generator: ModuleType) -> None:
    """The slower of two wins where the faster one does not fit; a third needs two copies and is beside neither."""
    row = generator.situations.Row
    usual = {
        "contest": "plain",
        "micro_batches": 16,
        "transfer": 0.0,
        "pair": None,
        "cuts": False,
        "host": False,
        "held": "",
        "splits": False,
    }
    rows = [
        row(schedule="small", options="", makespan=110.0, peak=4.0, copies=1, **usual),
        row(schedule="fast", options="v=2", makespan=100.0, peak=8.0, copies=1, **usual),
        row(schedule="fast", options="v=4", makespan=104.0, peak=8.0, copies=1, **usual),
        row(schedule="twice", options="", makespan=90.0, peak=8.0, copies=2, **usual),
    ]
    its = {name: generator.standings(name, rows).found for name in ("small", "fast", "twice")}
    at = {limit: situation for limit in (4.0, 8.0) for situation in its["small"] if situation.limit == limit}
    assert its["small"][at[4.0]] == (0.0, ("small",), "")
    assert its["small"][at[8.0]] == (pytest.approx(0.1), ("fast",), "")
    assert its["fast"][at[4.0]].over is None
    assert its["fast"][at[8.0]] == (0.0, ("fast",), "v=2")
    assert its["twice"][at[8.0]] == (0.0, ("twice",), "")
    written = generator.when_to_use("small", generator.standings("small", rows))
    assert "| 4 | **fastest** |" in written
    assert "+10\N{NO-BREAK SPACE}% [fast](fast.md)" in written
    assert "twice" not in written


# Links.


def test_links_lead_somewhere() -> None:
    """Of every page, and of every page to these: the file is there, and so is the heading."""
    for page in (*PAGES.glob("*.md"), *DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), f"{page.name}: {target}"
            if anchor and file.suffix == ".md":
                assert anchor in headings(file), f"{page.name}: {target}#{anchor}"


def headings(file: Path) -> set[str]:
    text = file.read_text(encoding="utf-8")
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one) for one in found)
    made = {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", one.lower()).strip()) for one in plain}
    return made | set(re.findall(r'id="([^"]+)"', text))


def test_no_link_is_to_where_the_schedules_were() -> None:
    everywhere = (*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"))
    assert [
        page.name for page in everywhere if re.search(r"\bschedules\.md[)#]", page.read_text(encoding="utf-8"))
    ] == []


# In a browser.


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def table(opened: Browser, tmp_path: Path) -> Iterator[Page]:
    """The index's first table as HTML, with the site's script."""
    rows = [line.strip("| ").split(" | ") for line in text_of("index").partition("\n\n</div>")[0].splitlines()]
    head, _, *body = (row for row in rows if len(row) == 11)
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    file = tmp_path / "index.html"
    file.write_text(
        f'<meta charset="utf-8"><div class="sortable"><table><thead><tr>{heads}</tr></thead>'
        f'<tbody>{cells}</tbody></table></div><script src="{(DOCS / "assets" / "sort.js").as_uri()}"></script>',
        encoding="utf-8",
    )
    with visit(opened) as (page, _):
        page.goto(file.as_uri())
        yield page


def column(table: Page, number: int) -> list[str]:
    return table.locator(f"tbody td:nth-child({number + 1})").all_inner_texts()


def test_a_click_sorts_by_a_column_and_another_turns_it_round(table: Page) -> None:
    buttons = table.locator("th button")
    assert buttons.all_inner_texts()[:4] == ["schedule", "year", "bubble", "idle"]
    before = sorted(column(table, 0))
    buttons.nth(3).click()
    idle = [float(cell) for cell in column(table, 3)]
    assert idle == sorted(idle)
    assert idle != sorted(idle, key=str)  # as numbers, not as words
    buttons.nth(3).click()
    assert [float(cell) for cell in column(table, 3)] == idle[::-1]
    (head,) = table.locator("th[aria-sort]").all()
    assert (head.inner_text(), head.get_attribute("aria-sort")) == ("idle", "descending")
    assert sorted(column(table, 0)) == before


def test_the_keyboard_sorts_too_and_what_nobody_says_comes_last(table: Page) -> None:
    for _ in range(2):  # either way
        table.locator("th button").nth(2).press("Enter")
        bubbles = column(table, 2)
        said = bubbles.count("–")
        assert said
        assert set(bubbles[-said:]) == {"–"}
