"""Pages to look at, and a browser to look at them."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dualpipe_sim import compare, simulate
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.report import Page
from dualpipe_sim.result import Result
from tests.browser import PATIENCE_S, chromium


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
    """A page in Chromium, with its network cut off.

    Attributes:
        margin_px: what a chart leaves on the left of its time axis, and as much on the right.

    """

    margin_px = 64

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
        self.opened()

    def opened(self) -> None:
        """Wait for the viewer, and name its elements as what tests ask does."""
        self.wait("document.body.dataset.ready")
        for name in ("gantt", "overview", "memory", "tip"):
            self.ask(f"window.{name} = document.querySelector('.{name}')")
        self.settle()

    def send(self, command: str, **arguments: object) -> Any:  # noqa: ANN401
        return self.driver.execute_cdp_cmd(command, arguments)

    def ask(self, expression: str) -> Any:  # noqa: ANN401
        return self.driver.execute_script(f"return {expression}")

    def wait(self, expression: str) -> None:
        until = time.monotonic() + PATIENCE_S
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
        x = left + self.margin_px + (at_s - begin) / (end - begin) * (width - 2 * self.margin_px)
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
            f"[...document.querySelectorAll('.runs button')].find((one) => one.firstChild.data === '{label}').click()"
        )
        self.wait(f"gantt.dataset.run === '{label}'")

    def colour(self, at_s: float, row: float) -> tuple[int, ...]:
        image = Image.open(BytesIO(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])))
        x, y = self.place(at_s, row)
        return image.convert("RGB").getpixel((round(x), round(y)))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium() as driver:
        yield Browser(driver, tmp_path_factory.mktemp("pages"))
