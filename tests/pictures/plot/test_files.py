"""Charts as files: their formats, and what cannot be saved."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dualpipe_sim import simulate
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.plot import save
from dualpipe_sim.pictures.plot.files import rendered


@pytest.mark.slow
def test_drawing_and_saving_leave_pyplot_alone(tmp_path: Path) -> None:
    code = f"""
import sys
from dualpipe_sim import build
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.discrete_event import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.pictures.plot import gantt, save
save(gantt(play(lower(build("1f1b", 2, 2), UniformCosts(1, 1, 1)))).figure, {str(tmp_path / "chart.png")!r})
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "magic"), [("chart.png", b"\x89PNG\r\n"), ("chart.SVG", b"<?xml"), ("chart.pdf", b"%PDF-")]
)
@pytest.mark.slow
def test_a_chart_is_saved_in_the_format_of_its_name_and_always_the_same(
    figure5: Axes, tmp_path: Path, name: str, magic: bytes
) -> None:
    figure = figure5.figure
    save(figure, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(magic)
    save(figure, str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_svg_has_its_corners_to_the_hundredth_of_a_point_and_its_text_as_text(figure5: Axes) -> None:
    svg = rendered(figure5.figure, ".svg").decode()
    outlines = re.findall(r'\bd="([^"]*)"', svg)
    corners = [float(number) for outline in outlines for number in re.findall(r"-?\d+(?:\.\d+)?", outline)]
    assert len(corners) > 4 * 2 * 8 * 40  # four corners of each op
    assert corners == [round(number, 2) for number in corners]
    assert set(re.findall(r"font-family: ([^;]*)", svg)) == {"'DejaVu Sans'"}
    assert ">overlapped forward &amp; backward</text>" in svg


def test_rectangles_are_as_short_as_can_be_and_turned_texts_stay_turned() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    ax.add_patch(Rectangle((0.2, 0.3), 0.25, 0.5))
    ax.text(0.5, 0.5, "upright")
    ax.text(0.5, 0.5, "turned", rotation=90)
    svg = rendered(figure, ".svg").decode()
    assert len(re.findall(r'd="M[\d.]+ [\d.]+H[\d.]+V[\d.]+H[\d.]+z"', svg)) >= 3  # with figure and axes
    upright, turned = (next(line for line in svg.splitlines() if f">{word}<" in line) for word in ("upright", "turned"))
    assert "rotate" not in upright
    assert "rotate(-90" in turned


@pytest.mark.slow
def test_a_large_chart_with_lanes_and_transfers_is_less_than_a_megabyte() -> None:
    chart = simulate("deepseek_v3_stage_level").gantt(lanes=True, transfers=True)
    assert len(rendered(chart.figure, ".svg")) < 1e6


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("chart.jpg", "'.jpg' is no format of a chart; use .png, .svg or .pdf"),
        ("chart", "the name does not say its format; use .png, .svg or .pdf"),
        ("no-such-folder/chart.png", "cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_sentence(figure5: Axes, tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UserError) as refusal:
        save(figure5.figure, tmp_path / name)
    assert str(refusal.value) == f"{tmp_path / name}: {reason}"
    assert list(tmp_path.iterdir()) == []
