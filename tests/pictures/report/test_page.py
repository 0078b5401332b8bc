"""The page of a report: it asks for nothing from outside, and all that users write is text."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from typing import Any

import pytest

from dualpipe_sim import compare, simulate
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.report import Page, Run, page, page_style, viewer_script
from dualpipe_sim.result import Comparison, refused


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


def test_a_page_asks_for_nothing_from_outside(figure5_page: Page) -> None:
    tags = Tags(figure5_page.html).tags
    assert not {"link", "img", "iframe", "object", "embed", "audio", "video"} & {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if {"src", "href", "srcset"} & set(attributes)]
    (policy,) = (one["content"] for _, one in tags if one.get("http-equiv") == "Content-Security-Policy")
    style, script = (re.findall(rf"<{tag}>(.*?)</{tag}>", figure5_page.html, re.DOTALL) for tag in ("style", "script"))
    assert dict(rule.split(" ", 1) for rule in str(policy).split("; ")) == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "script-src": sha256(*script),
        "style-src": f"{sha256(*style)} 'unsafe-hashes' {sha256('text-align: left')}",
    }


def sha256(text: str) -> str:
    """What a policy calls a script or style of this text."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_what_users_write_is_text_and_never_markup() -> None:
    evil = "</script><script>alert(1)</script><b>&"
    played = simulate("figure5").timeline
    assert played is not None
    html = page([Run(evil, played)], title=evil, table="<table></table>", config=evil).html
    assert "<script>alert" not in html
    found = Tags(html)
    assert sum(tag == "script" for tag, _ in found.tags) == 2
    assert json.loads(found.json)["runs"][0]["label"] == evil
    assert '<pre tabindex="0">&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;b&gt;&amp;</pre>' in html


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
    assert frame[1]["sandbox"] == "allow-scripts allow-downloads"


def test_what_every_page_brings_along_is_light() -> None:
    # (a page with plotly.js inside would be 4.8 MB)
    assert len(viewer_script()) + len(page_style()) < 150_000


def test_a_page_of_16_ranks_and_120_micro_batches_layer_by_layer_is_small(deepseek_v3_page: Page) -> None:
    assert len(deepseek_v3_page.html) < 250_000  # 74400 phases
