"""The gallery of schedules: all of them at every size, from a folder, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from dualpipe_sim.schedules.registry import schedules
from tests.browser import barriers, chromium, visit, wait
from tests.pages import script

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    return script(DOCS / "make_gallery.py")


@pytest.fixture(scope="module")
def gallery(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "gallery"
    generator.write(folder)
    return folder


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture
def tab(opened: Browser) -> Iterator[Page]:
    with visit(opened, viewport={"width": 1280, "height": 900}) as (page, _):
        yield page


def at(tab: Page, gallery: Path, state: str = "") -> None:
    tab.goto("about:blank")
    tab.goto(f"{(gallery / 'index.html').as_uri()}#{state}")
    wait(tab, "document.body.dataset.ready")


def shown(tab: Page) -> list[str]:
    return [one.get_attribute("data-run") or "" for one in tab.locator(".gantt").all()]


def test_every_schedule_is_there_at_every_size_and_all_of_it_is_light(generator: ModuleType, gallery: Path) -> None:
    assert {path.stem for path in gallery.glob("*.js")} - {"viewer", "gallery"} == set(schedules())
    for name in schedules():
        text = (gallery / f"{name}.js").read_text(encoding="utf-8")
        assert [text.count(f'"{ranks} \\u00d7 {batches}":') for ranks, batches in generator.SIZES] == [1] * 3, name
    assert sum(path.stat().st_size for path in gallery.iterdir()) < 3_000_000


def test_schedules_are_picked_and_stand_side_by_side(tab: Page, gallery: Path) -> None:
    at(tab, gallery)
    assert shown(tab) == ["dualpipe", "1f1b"]
    tab.select_option("#schedule", "zb-v")
    wait(tab, "document.querySelector('.gantt').dataset.run === 'zb-v'")
    assert shown(tab) == ["zb-v", "1f1b"]
    tab.select_option("#size", "4 × 8")
    wait(tab, "document.querySelector('.runs').innerText.includes('1f1b 33')")  # (P - 1 + M) (F + I + W)
    tab.select_option("#beside", "")
    wait(tab, "document.querySelectorAll('.gantt').length === 1")
    assert shown(tab) == ["zb-v"]
    wait(tab, "location.hash.includes('beside=&') && location.hash.includes('schedule=zb-v')")


def test_an_address_brings_back_what_was_shown(tab: Page, gallery: Path) -> None:
    at(tab, gallery, "schedule=gpipe&beside=zb-h1&size=16+×+64&run=zb-h1&window=10.0000..30.0000&op=3F7")
    assert shown(tab) == ["zb-h1"]
    assert tab.locator(".said").inner_text().startswith("3F7 ")
    wait(tab, "location.hash.includes('window=10.0000..30.0000')")


def test_every_schedule_opens(tab: Page, gallery: Path) -> None:
    at(tab, gallery, "beside=&size=4+×+8")
    for name in schedules():
        tab.select_option("#schedule", name)
        wait(tab, f"document.querySelector('.gantt').dataset.run === '{name}'")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_keeps_anybody_from_it(tab: Page, gallery: Path, width: int, scheme: str) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    at(tab, gallery)
    assert barriers(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_the_site_links_to_it() -> None:
    hooks = script(DOCS / "hooks.py")
    for path, link in {
        "schedules/index.md": "(../gallery/index.html)",
        "schedules/zb-v.md": "(../gallery/index.html#schedule=zb-v)",
        "schedules/situations.md": None,
    }.items():
        page = SimpleNamespace(file=SimpleNamespace(src_path=path), meta={})
        text = hooks.on_page_markdown("# Title\n\nText.\n", page=page)
        assert link in text if link else text == "# Title\n\nText.\n"
