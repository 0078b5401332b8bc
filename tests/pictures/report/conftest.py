"""Pages to look at, and a browser to look at them."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from PIL import Image

from dualpipe_sim import compare, simulate
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.report import Page
from dualpipe_sim.result import Result
from tests.browser import barriers, chromium, visit, wait

if TYPE_CHECKING:
    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import Frame
    from playwright.sync_api import Page as Tab


@pytest.fixture(scope="session")
def figure5_page() -> Page:
    return compare("figure5").report("figure5", "pipeline: {ranks: 8}", first="1f1b")


@pytest.fixture(scope="session")
def layered() -> Timeline:
    """DualPipe layer by layer, with all-to-all."""
    return simulate("deepseek_v3_pair").played


@pytest.fixture(scope="session")
def deepseek_v3_page(v3: Result) -> Page:
    return v3.report()


class Browser:
    """A page in Chromium: what tests do with it and ask of it.

    Attributes:
        margin_px: what a chart leaves on the left of its time axis, and as much on the right.

    """

    margin_px = 64

    def __init__(self, tab: Tab, folder: Path) -> None:
        self.tab = tab
        self.shown: Tab | Frame = tab
        self.folder = folder

    def open(self, report: Page, *, dark: bool = False, size: tuple[int, int] = (1400, 1000)) -> None:
        self.tab.emulate_media(color_scheme="dark" if dark else "light")
        self.tab.set_viewport_size({"width": size[0], "height": size[1]})
        report.save(self.folder / "report.html")
        self.tab.goto((self.folder / "report.html").as_uri())
        self.opened()

    def opened(self) -> None:
        """Wait for the viewer, and name its elements as what tests ask does."""
        self.wait("document.body.dataset.ready")
        for name in ("gantt", "overview", "memory", "tip"):
            self.ask(f"window.{name} = document.querySelector('.{name}')")
        self.settle()

    def ask(self, expression: str) -> Any:  # noqa: ANN401
        return self.shown.evaluate(f"() => {{ const said = {expression}; return said instanceof Node ? null : said; }}")

    def wait(self, expression: str) -> None:
        wait(self.shown, expression)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.shown.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def span(self) -> tuple[float, float]:
        """The time that the Gantt shows."""
        begin, end = self.ask("[gantt.dataset.from, gantt.dataset.to]")
        return float(begin), float(end)

    def box(self, name: str) -> Box:
        """Where an element is on the screen."""
        return Box(*self.ask(f"(({{left, top, width}}) => [left, top, width])({name}.getBoundingClientRect())"))

    def place(self, at_s: float, row: float) -> tuple[float, float]:
        """Where a time and a rank are on the screen; a row's middle is half a rank below its number."""
        left, top, width = self.box("gantt")
        ranks = self.ask("gantt.clientHeight - 26")
        begin, end = self.span()
        x = left + self.margin_px + (at_s - begin) / (end - begin) * (width - 2 * self.margin_px)
        return x, top + row * ranks / self.ask("document.querySelectorAll('.bar').length")

    def move(self, at: tuple[float, float]) -> None:
        self.tab.mouse.move(*at)
        self.settle()

    def wheel(self, at: tuple[float, float], delta: float) -> None:
        self.tab.mouse.move(*at)
        self.tab.mouse.wheel(0, delta)
        self.settle()

    def hover(self, at_s: float, row: float) -> str:
        self.move(self.place(at_s, row))
        return "" if self.ask("tip.hidden") else str(self.ask("tip.innerText"))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.tab.mouse.move(*start)
        self.tab.mouse.down()
        self.tab.mouse.move(*end)
        self.tab.mouse.up()
        self.settle()

    def click(self, selector: str) -> None:
        self.ask(f"document.querySelector('{selector}').click()")
        self.settle()
        self.settle()

    def choose(self, label: str) -> None:
        self.ask(
            f"[...document.querySelectorAll('.runs button')].find((one) => one.firstChild.data === '{label}').click()"
        )
        self.wait(f"gantt.dataset.run === '{label}'")

    def colour(self, at_s: float, row: float) -> tuple[int, ...]:
        image = Image.open(BytesIO(self.tab.screenshot(full_page=True)))
        x, y = self.place(at_s, row)
        return image.convert("RGB").getpixel((round(x), round(y)))  # type: ignore[return-value]

    def barriers(self) -> list[str]:
        return barriers(self.tab)


class Box(NamedTuple):
    """Where an element is, in pixels."""

    left: float
    top: float
    width: float


@pytest.fixture(scope="module")
def opened() -> Iterator[Chromium]:
    with chromium() as one:
        yield one


@pytest.fixture
def browser(opened: Chromium, tmp_path: Path) -> Iterator[Browser]:
    with visit(opened) as (page, _):
        yield Browser(page, tmp_path)


@pytest.fixture
def phone(opened: Chromium, tmp_path: Path) -> Iterator[Browser]:
    """A browser with fingers for a mouse."""
    with visit(opened, has_touch=True, is_mobile=True) as (page, _):
        yield Browser(page, tmp_path)
