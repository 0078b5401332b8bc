"""A browser for tests of pages: Chromium, driven by Playwright, that knows no host but this machine.

It needs Chromium (Debian: ``apt-get install chromium``); without it tests are skipped. While a browser is open, its
thread runs an event loop of Playwright's, so it is a fixture of a module and not of a session.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Frame, Page, Request

PATIENCE_S = 60.0
CHROMIUM = shutil.which("chromium")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
_INSIDE = {"", "127.0.0.1", "localhost"}


class Visit(NamedTuple):
    """A page, and what it did that no page may do.

    Attributes:
        page: Playwright's.
        wrong: errors and warnings that it wrote or threw, and addresses on other machines that it asked for. A test
            that provokes one takes it out.

    """

    page: Page
    wrong: list[str]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a new browser, or skip the test."""
    if not CHROMIUM:
        pytest.skip("NOT TESTED IN A BROWSER: apt-get install chromium, and run again")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, **options: Any) -> Iterator[Visit]:  # noqa: ANN401 - those of Playwright's new_context
    """Give an empty page of its own, and fail at the end if anything in it went wrong."""
    context = browser.new_context(**options)
    context.set_default_timeout(1e3 * PATIENCE_S)
    page = context.new_page()
    wrong: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    def asked(request: Request) -> None:
        if (urlsplit(request.url).hostname or "") not in _INSIDE:
            wrong.append(f"asked for {request.url}")

    context.on("console", said)
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("request", asked)
    try:
        yield Visit(page, wrong)
    finally:
        context.close()
    assert not wrong, wrong


def wait(page: Page | Frame, expression: str) -> None:
    """Wait until an expression is true in a page, also where the page forbids to evaluate text, as Playwright does."""
    page.evaluate(
        f"""() => new Promise((met, missed) => {{
            const until = performance.now() + {1e3 * PATIENCE_S};
            const look = () => {{
                if ({expression}) met();
                else if (performance.now() > until) missed(new Error({json.dumps(expression)}));
                else setTimeout(look, 10);
            }};
            look();
        }})"""
    )


def barriers(page: Page) -> list[str]:
    """Return what keeps people from a page, in axe's words: the rule, and the elements that break it."""
    from axe_playwright_python.sync_playwright import Axe

    asked = {"resultTypes": ["violations"], "preload": False}  # (it may load no file beside a page in a folder)
    found = Axe().run(page, options=asked).response["violations"]
    return [f"{one['id']}: {', '.join(node['html'][:120] for node in one['nodes'])}" for one in found]
