"""Pages to look at, and a browser to look at them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
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

    def open_still(self, report: Page, motion: Literal["no-preference", "reduce"]) -> None:
        """Open a page whose clock stands still until it is moved on."""
        self.tab.emulate_media(reduced_motion=motion)
        self.tab.clock.install(time=0)
        report.save(self.folder / "report.html")
        self.tab.goto((self.folder / "report.html").as_uri())
        self.tab.locator("body[data-ready]").wait_for(state="attached")
        self.tab.clock.pause_at(datetime(2030, 1, 1, tzinfo=timezone.utc))
        self.tab.clock.run_for(100)
        self.name()

    def opened(self) -> None:
        """Wait for the viewer, and name its elements as what tests ask does."""
        self.wait("document.body.dataset.ready")
        self.name()
        self.settle()

    def name(self) -> None:
        for name in ("gantt", "over", "overview", "memory", "strips", "tip", "said"):
            self.ask(f"window.{name} = document.querySelector('.{name}')")

    def look_at(self, label: str) -> None:
        """Mean by Gantt and strips those of a run among others side by side."""
        for name in ("gantt", "strips"):
            self.ask(f"window.{name} = document.querySelector('.panel:has([data-run=\"{label}\"]) .{name}')")

    def ask(self, expression: str) -> Any:  # noqa: ANN401
        return self.shown.evaluate(f"() => {{ const got = {expression}; return got instanceof Node ? null : got; }}")

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
        begin, end = self.span()
        x = left + self.margin_px + (at_s - begin) / (end - begin) * (width - 2 * self.margin_px)
        return x, top + row * float(self.ask("gantt.dataset.row"))

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

    def picture(self) -> Image.Image:
        return Image.open(BytesIO(self.tab.screenshot(full_page=True))).convert("RGB")

    def colour(self, at_s: float, row: float) -> tuple[int, ...]:
        x, y = self.place(at_s, row)
        return self.picture().getpixel((round(x), round(y)))  # type: ignore[return-value]

    def barriers(self) -> list[str]:
        return barriers(self.tab)


def colours_of(image: Image.Image) -> set[str]:
    """All colours of a picture, as ``#rrggbb``."""
    pixels = np.asarray(image.convert("RGB")).astype(np.int64) @ (1 << 16, 1 << 8, 1)
    return {f"#{colour:06x}" for colour in np.flatnonzero(np.bincount(pixels.ravel(), minlength=1 << 24)).tolist()}


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
