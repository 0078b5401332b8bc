"""Names in charts: words, and neither formulas nor anything that no picture can hold."""

from __future__ import annotations

import warnings
from pathlib import Path
from xml.dom import minidom
from xml.sax.saxutils import escape

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure

from dualpipe_sim import compare, simulate, sweep
from dualpipe_sim.errors import visible
from dualpipe_sim.pictures.plot import bubble_heatmap, save
from dualpipe_sim.pictures.plot.animation import animate

NAMES = ("$x^$", r"$\frac{ 模型 🜁", "\x1b[2J\x00\u202e<b>&", "x" * 10_000)


@pytest.mark.parametrize("name", NAMES)
def test_a_title_is_words(name: str, tmp_path: Path) -> None:
    save(simulate("small").gantt(title=name).figure, tmp_path / "a.svg")
    minidom.parse(str(tmp_path / "a.svg"))  # noqa: S318 - our own
    shown = escape(visible(name))[:50]
    assert f">{shown}" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    save(simulate("small").gantt(title=name).figure, tmp_path / "a.png")


def test_so_is_the_name_of_an_orders_file_in_every_chart(tmp_path: Path) -> None:
    file = tmp_path / "$x^$.csv"
    file.write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    config = {"schedule": {"file": str(file)}, "costs": {"forward": 1, "backward": 2}}
    save(simulate(config).gantt().figure, tmp_path / "a.svg")
    save(compare(config).gantt(), tmp_path / "b.svg")
    assert all("$x^$" in (tmp_path / name).read_text(encoding="utf-8") for name in ("a.svg", "b.svg"))
    animate(simulate(config).played, tmp_path / "a.gif", seconds=1, frames_per_second=2, title="$x^$ 模")


def test_so_are_the_values_of_an_axis(tmp_path: Path) -> None:
    table = sweep("small", {"cluster.name": ["$x^$", "\x1b"], "micro_batches": [8, 16]})
    save(bubble_heatmap(table, y="cluster.name").figure, tmp_path / "a.svg")
    words = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "$x^$" in words
    assert r"\x1b" in words


def test_somebody_elses_axes_keep_their_texts_and_take_words() -> None:
    figure = Figure()
    ax, other = figure.subplots(1, 2)
    other.set_title("$x^2$")
    with rc_context({"text.parse_math": True}), warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate("small").gantt(ax, title="$x^$\x1b")
        figure.canvas.draw()
    assert other.title.get_parse_math()
    assert r"$x^$\x1b" in [text.get_text() for text in (ax.title, *ax._left_title.axes.texts, ax._left_title)]
