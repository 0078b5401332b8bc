"""A board as a page: it asks for nothing from outside, names are text, and a run lies where its times are."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dualpipe_sim.config.yaml_text import as_block
from dualpipe_sim.scoring import Board, Prediction
from dualpipe_sim.scoring.page import page
from dualpipe_sim.scoring.scatter import MARKS, scatter

if TYPE_CHECKING:
    from tests.conftest import CommandLine

EVIL = '</style><script>alert(1)</script><b>&"'


def run(name: str, predicted_s: float | None = 1.1, **changes: Any) -> Prediction:  # noqa: ANN401 - any field
    known: dict[str, Any] = {"measured_step_time_s": 1.0, "parts_s": {"compute": 0.8, "bubble": 0.3}}
    return Prediction(name, **({"kind": "dense", "step_time_s": predicted_s, "source": "mine"} | known | changes))


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and all its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_page_asks_for_nothing_from_outside_and_runs_no_script() -> None:
    html = page(Board((run("a"),)), "mine").html
    tags = Tags(html).tags
    assert not {"script", "link", "img", "iframe", "object", "embed", "image", "use"} & {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if {"src", "href", "xlink:href", "srcset"} & set(attributes)]
    assert not re.findall(r"https?:|@import", html)
    (policy,) = (one["content"] for _, one in tags if one.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-")
    assert "'unsafe-inline'" not in str(policy)


def test_what_users_write_is_text_and_never_markup() -> None:
    labels: dict[str, Any] = {"source": EVIL, "gpu": EVIL, "precision": EVIL}
    board = Board((run(EVIL, parts_s={EVIL: 1.1}, **labels), run("b"), run(EVIL, unsupported=EVIL)))
    html = page(board, EVIL).html
    assert "<script" not in html
    assert "<b>" not in html
    found = Tags(html)
    assert found.text.count(EVIL) >= 8  # title, heading, three labels, the worst, its part, why it is not stated


def test_a_run_lies_where_its_times_are() -> None:
    runs = [run("exact", 1.0), run("slow", 10.0), run("fast", 0.1)]
    chart = scatter(runs)
    (exact, slow, fast) = (
        tuple(map(float, found)) for found in re.findall(r'translate\(([\d.]+) ([\d.]+)\)" d=', chart)
    )
    assert exact[0] == slow[0] == fast[0]
    assert exact[1] - slow[1] == pytest.approx(fast[1] - exact[1], abs=0.2)  # a decade is a decade
    assert slow[1] < exact[1] < fast[1]
    diagonal = re.search(r'class="diagonal" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', chart)
    assert diagonal
    left, bottom, right, top = map(float, diagonal.groups())
    assert (exact[0] - left) / (right - left) == pytest.approx((bottom - exact[1]) / (bottom - top), abs=1e-3)
    assert "<title>slow: measured 1 s, predicted 10 s, +900.0%</title>" in chart


def test_classes_have_shapes_and_what_does_not_count_is_hollow() -> None:
    assert len({mark.path for mark in MARKS.values()}) == len({mark.colour for mark in MARKS.values()}) == len(MARKS)
    html = page(Board((run("a"), run("b", kind="moe"), run("c", counts=False), run("d", None))), "mine").html
    assert html.count('<path class="aside"') == 1
    assert html.count("does not count") == 2  # in the legend, and of the run
    assert f"{MARKS['dense'].words}, 2" in html
    assert f"{MARKS['megatron-dense'].words}" not in html
    assert page(Board((run("d", None),)), "mine").html.count("<svg") == 0


def test_the_worst_have_bars_of_their_parts_up_to_what_was_measured() -> None:
    html = page(Board((run("near"), run("far", 2.0, parts_s={"compute": 1.5, "bubble": 0.5}))), "mine", worst=1).html
    (bar,) = re.findall(r'<svg class="parts".*?</svg>', html)
    widths = [float(width) for width in re.findall(r'<rect x="[\d.]+" width="([\d.]+)"', bar)]
    (measured,) = re.findall(r'class="measured" x="([\d.]+)"', bar)
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.2)
    assert float(measured) == pytest.approx(sum(widths) / 2, abs=0.2)
    assert "compute: 1.5 s, 75.0%" in bar


ROW: dict[str, Any] = {
    "id": "small", "source": "mine", "model": {"layers": 2, "hidden": 256, "heads": 8, "kv_heads": 4, "head_dim": 32,
    "ffn": 1024, "activation": "swiglu", "vocab": 1024, "tied_embedding": False},
    "cluster": {"gpu": "h100-80g-sxm", "gpus": 4}, "parallel": {"tp": 1, "pp": 1, "dp": 4}, "schedule": "none",
    "seq_len": 128, "global_batch": 8, "micro_batch": 1, "precision": "bf16", "recompute": "none",
    "framework": "Megatron-Core 0.12", "measured": {"step_time_s": 0.01},
}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    path = tmp_path / "my runs.yaml"
    rows = [ROW, ROW | {"id": "other", "precision": "fp8", "cluster": {"gpu": "h200-141g-sxm", "gpus": 4}}]
    path.write_text(as_block({"runs": rows}), encoding="utf-8")
    return path


def test_the_command_writes_the_page_beside_what_it_prints(command_line: CommandLine, runs: Path) -> None:
    file = runs.parent / "board.html"
    done = command_line("score", runs, "--html", file, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found["gpus"]) == ["h100", "h200"]
    assert list(found["precisions"]) == ["bf16", "fp8"]
    assert f"{file}: " in done.stderr
    html = file.read_text(encoding="utf-8")
    assert "<h1>my runs</h1>" in html
    assert "2 of 2 runs can be stated" in html
    said = " ".join(command_line("score", runs).stdout.split())
    assert "GPU rows stated median p90 bias" in said
    assert "precision rows stated median p90 bias" in said


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("board.pdf", "board.pdf: a report is a page; end its name in .html"),
        ("no/such/board.html", "no/such/board.html: cannot be written: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_is_one_line(command_line: CommandLine, runs: Path, file: str, said: str) -> None:
    done = command_line("score", runs, "--html", file)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
