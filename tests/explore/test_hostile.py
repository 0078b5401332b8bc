"""Pages in a browser, given names that would run if they were markup: they are shown, and nothing else happens."""

from __future__ import annotations

import subprocess
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
import yaml

from dualpipe_sim import compare
from dualpipe_sim.errors import visible
from tests.browser import chromium, visit, wait

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from dualpipe_sim.result import Comparison

NAMES = (
    "</script><script>window.pwned=1</script>",
    "<img src=http://e.example/x onerror=window.pwned=1>",
    '"><svg onload="window.pwned=1">',
    "\u202e\x1b]0;t\x07{{7*7}}${window.pwned=1}",
)
NAME = " ".join(NAMES)
RUNS_NOTHING = "window.pwned === undefined && !document.querySelector('img, iframe, object, embed, svg[onload]')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """A run whose order's file, which names it, and whose model have such a name."""
    monkeypatch.chdir(tmp_path)
    file = Path(f"{NAME}.csv".replace("/", "\u2215"))
    file.write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", encoding="utf-8")
    one = {"file": str(file)}
    return compare({"schedule": one, "compare": [one], "costs": {"forward": 1, "backward": 2}})


def test_a_report_of_such_names_runs_nothing_but_itself(browser: Browser, runs: Comparison, tmp_path: Path) -> None:
    runs.report(title=NAME, config=NAME).save(tmp_path / "a.html")
    with visit(browser) as (page, _):
        page.goto((tmp_path / "a.html").as_uri())
        wait(page, "document.body.dataset.ready === 'yes'")
        assert page.evaluate(RUNS_NOTHING)
        assert page.locator("h1").inner_text() == visible(NAME)
        assert "<img src=" in page.locator("#table").inner_text()


def test_its_policy_stops_what_would_come_in_all_the_same(browser: Browser, runs: Comparison, tmp_path: Path) -> None:
    """As if some text of it had not been made safe: the page says so, and does nothing."""
    html = runs.report().html.replace("<main>", f"<main>{NAME}<style>h1 {{ color: red }}</style>")
    (tmp_path / "a.html").write_text(html, encoding="utf-8")
    with visit(browser) as (page, wrong):
        page.goto((tmp_path / "a.html").as_uri())
        wait(page, "document.body.dataset.ready === 'yes'")
        assert page.evaluate("window.pwned === undefined")
        assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") != "rgb(255, 0, 0)"
        assert all("Content Security Policy" in one or one.startswith("asked for") for one in wrong)
        assert sum("Content Security Policy" in one for one in wrong) >= 4
        wrong.clear()


@pytest.mark.thorough
def test_the_live_page_shows_a_hostile_link_as_text(browser: Browser, program: list[str]) -> None:
    data = {
        "pipeline": {"ranks": 2, "micro_batches": 4},
        "schedule": "1f1b",
        "costs": {"forward": 1, "backward": 2},
        "cluster": {"name": NAME},
    }
    packed = urlsafe_b64encode(zlib.compress(yaml.safe_dump(data).encode())).decode().rstrip("=")
    links = [
        urlencode({"yaml": packed, "cluster.name": NAME}),
        urlencode({"schedule": NAME}),
        urlencode({NAME: NAME, "config": NAME}),
        urlencode({"compare": f"[1f1b, {NAME!r}]", "view.side": NAME, "view.run": NAME}),
    ]
    command = [*program, "explore", "figure5", "--port", "0", "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for link in links:
            with visit(browser) as (page, _):
                page.goto(f"{url}?{link}")
                wait(page, "document.querySelector('#results').getAttribute('aria-busy') === 'false'")
                assert page.evaluate(RUNS_NOTHING)
                assert "pwned" in page.locator("body").inner_text()
    finally:
        server.terminate()
        server.communicate(timeout=60)
