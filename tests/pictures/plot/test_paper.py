"""Charts for a paper: of an exact size, in a font and colours, text that stays text, a legend of what is there."""

from __future__ import annotations

import json
import re
import warnings
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.image as mpimg
import matplotlib.pyplot as plt
import numpy as np
import pytest

from dualpipe_sim import Timeline, UserError, compare, simulate
from dualpipe_sim.pictures.palette import PALETTES, luminance
from dualpipe_sim.pictures.plot import compare_gantt, gantt, save
from dualpipe_sim.pictures.plot.paper import Paper, paper_of

if TYPE_CHECKING:
    from tests.conftest import CommandLine


@pytest.fixture(scope="module")
def figure5() -> Timeline:
    return simulate("figure5").played


def legend_of(axes: Any) -> list[str]:  # noqa: ANN401
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("size", "width_in", "height_in"),
    [
        ("single-column", 3.35, None),
        ("double-column", 7.0, None),
        ("6x4", 6.0, 4.0),
        ("16 x 9 cm", 16 / 2.54, 9 / 2.54),
        ("160x90mm", 160 / 25.4, 90 / 25.4),
        ((5, 2.5), 5.0, 2.5),
    ],
)
def test_a_file_is_exactly_as_large_as_asked_for(
    figure5: Timeline,
    tmp_path: Path,
    size: Any,  # noqa: ANN401
    width_in: float,
    height_in: float | None,
) -> None:
    axes = gantt(figure5, size=size)
    height = axes.figure.bbox.height / axes.figure.dpi
    path = tmp_path / "chart.png"
    save(axes.figure, path)
    rows, columns = mpimg.imread(path).shape[:2]
    assert columns == pytest.approx(300 * width_in, abs=1)
    assert rows == pytest.approx(300 * (height_in or height), abs=1)
    assert 1.5 < height < 9


@pytest.mark.parametrize(
    "size", ["6", "6x", "x4", "0x4", "6x-4", "6x4in2", "900x900", "triple-column", (1, 2, 3), (1, "2")]
)
def test_a_size_that_is_none_is_refused(figure5: Timeline, size: Any) -> None:  # noqa: ANN401
    with pytest.raises(UserError, match="size: must be single-column, double-column, or width x height"):
        gantt(figure5, size=size)


def test_text_has_the_size_and_font_that_are_asked_for(figure5: Timeline) -> None:
    axes = gantt(figure5, size="6x4", font_size=11, font="DejaVu Serif")
    assert axes.xaxis.label.get_fontsize() == 11
    assert axes.xaxis.label.get_fontname() == "DejaVu Serif"
    assert paper_of("single-column", None, None, legend=True) == Paper(3.35, None, 7.0)
    with pytest.raises(UserError, match=r"no font 'DejaVu Serrif' on this machine; did you mean 'DejaVu Serif'\?"):
        gantt(figure5, font="DejaVu Serrif")
    with pytest.raises(UserError, match="font_size: must be from 1 to 72 points, got 500"):
        gantt(figure5, font_size=500)


def test_a_title_goes_on_in_the_next_line_where_the_chart_is_narrow(figure5: Timeline) -> None:
    narrow = gantt(figure5, size="single-column")
    assert narrow.get_title(loc="left").count("\n") == 1
    narrow.figure.canvas.draw()
    box = narrow.title.get_window_extent() if narrow.get_title() else narrow._left_title.get_window_extent()  # type: ignore[attr-defined]
    assert box.x1 <= narrow.figure.bbox.x1
    assert gantt(figure5).get_title(loc="left").count("\n") == 0
    assert gantt(figure5, title="").get_title(loc="left") == ""


def test_numbers_and_legend_can_be_left_out(figure5: Timeline) -> None:
    assert legend_of(gantt(figure5, legend=False)) == []
    assert "forward" in legend_of(gantt(figure5))
    figure = compare_gantt({"a": figure5, "b": figure5}, legend=False)
    assert [legend_of(axes) for axes in figure.axes] == [[], []]


def test_a_legend_lists_what_is_drawn_and_nothing_else() -> None:
    two = compare("figure5", schedule=["dualpipe", {"name": "interleaved-1f1b", "stages_per_rank": 2}])
    words = legend_of(two.plot().axes[-1])
    assert words[-2:] == ["pipe 0 (numbered), pipe 1", "a rank's 2 stages, shallowest first"]
    assert legend_of(simulate("figure5", schedule="1f1b").gantt(causes=False)) == ["forward", "backward", "idle"]
    layered = simulate("deepseek_v3_pair", schedule="1f1b", micro_batches=4)
    exposed = legend_of(layered.gantt())
    assert "exposed all-to-all" in exposed
    assert "all-to-all behind compute" not in exposed


@pytest.mark.parametrize("palette", PALETTES)
def test_kinds_stay_apart_in_every_palette(palette: Any, figure5: Timeline) -> None:  # noqa: ANN401
    axes = gantt(figure5, palette=palette)
    shown = [np.asarray(one.get_facecolor()) for one in axes.collections]
    faces = {str(face[0].tolist()) for face in shown if len(face)}
    assert len(faces) >= 8
    lights = sorted(luminance(style.light) for style in PALETTES[palette].values())
    if palette == "grey":
        assert min(after - before for before, after in pairwise(lights)) > 0.1


def test_a_palette_that_there_is_not_is_refused(figure5: Timeline) -> None:
    with pytest.raises(UserError, match=r"'gray' is not one of deepseek, okabe-ito, grey; did you mean 'grey'\?"):
        gantt(figure5, palette="gray")  # type: ignore[arg-type]


def test_text_stays_text_in_svg_and_fonts_are_embedded_in_pdf(figure5: Timeline, tmp_path: Path) -> None:
    axes = gantt(figure5, size="6x3")
    save(axes.figure, tmp_path / "chart.svg")
    assert "rank 0</text>" in (tmp_path / "chart.svg").read_text()
    save(axes.figure, tmp_path / "chart.pdf")
    assert b"/FontType 3" not in (tmp_path / "chart.pdf").read_bytes()
    assert b"/CIDFontType2" in (tmp_path / "chart.pdf").read_bytes()


def test_a_chart_fits_into_a_layout_of_the_callers_own(figure5: Timeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5), layout="constrained")
        gantt(figure5, above)
        gantt(figure5, below, legend=False, title="again")
        figure.canvas.draw()
    legend = above.get_legend()
    assert legend is not None
    assert legend.get_window_extent().y0 > below.get_window_extent().y1
    plt.close(figure)


def test_the_commands_take_all_of_it(command_line: CommandLine, tmp_path: Path) -> None:
    options = ["--size", "double-column", "--font-size", "8", "--font", "DejaVu Serif", "--no-legend", "--no-numbers"]
    options += ["--title", "Four schedules", "--palette", "grey", "--dark"]
    for command, target in (("gantt", "-o"), ("compare", "--plot")):
        path = tmp_path / f"{command}.svg"
        done = command_line(command, "figure5", target, path, *options)
        assert done.returncode == 0, done.stderr
        text = path.read_text()
        assert "Four schedules" in text
        assert "DejaVu Serif" in text
        assert "backward for weights" not in text
        assert 'width="504pt"' in text
    done = command_line("gantt", "figure5", "-o", tmp_path / "chart.png", "--size", "wide")
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "chart.png").exists()


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("csv", "schedule,ranks,micro_batches,options,makespan_s,"),
        ("latex", "\\begin{tabular}{llrrrrrrr}"),
        ("markdown", "| schedule | size | makespan | makespan/M |"),
        ("json", "{"),
    ],
)
def test_a_comparison_is_printed_for_other_programs(command_line: CommandLine, form: str, first: str) -> None:
    printed = command_line("compare", "figure5", "--format", form).stdout
    assert printed.startswith(first)
    if form == "json":
        assert json.loads(printed)["runs"][0]["makespan_s"] == 66
    if form == "latex":
        assert r"dualpipe & 8 $\times$ 20 & 66 & 3.3 & 9.1\% &" in printed
        assert re.search(r"\\end\{tabular\}$", printed.strip())
    if form == "markdown":
        assert "| dualpipe | 8 × 20 | 66 | 3.3 | 9.1% |" in printed


def test_the_csv_of_a_comparison_reads_back() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(StringIO(compare("figure5").to_csv()))
    assert table["makespan_s"].tolist() == [66, 67, 96, 81]
    assert json.loads(table["bubble_ratio_by_rank"][0]) == pytest.approx([6 / 66] * 8)
