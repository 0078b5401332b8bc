"""A run as a film, for teaching: ops appear as they run, and beside them what ranks have idled and hold by now."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import AbstractMovieWriter, FFMpegWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.files import written_whole
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.pictures.palette import PaletteName, ThemeName
from dualpipe_sim.pictures.plot.content import Look
from dualpipe_sim.pictures.plot.film import DOTS_PER_INCH, Film
from dualpipe_sim.pictures.plot.gif import GifWriter
from dualpipe_sim.pictures.plot.style import theme_named

MOST_FRAMES = 300
_FASTEST = 30  # frames a second
_HELD_S = 2.0  # the last frame stays


def animate(
    timeline: Timeline,
    path: str | Path,
    *,
    seconds: float = 12.0,
    frames_per_second: float = 12.0,
    title: str | None = None,
    palette: PaletteName = "deepseek",
    theme: ThemeName = "light",
) -> None:
    """Write a film in which a timeline runs once, evenly, and then stands still for two seconds.

    >>> from pathlib import Path
    >>> from dualpipe_sim import simulate
    >>> animate(simulate("figure5").played, "figure5.gif", seconds=1, frames_per_second=2)
    >>> Path("figure5.gif").stat().st_size > 1000
    True

    Args:
        timeline: what runs.
        path: a ``.gif``, or where ffmpeg is there an ``.mp4``.
        seconds: how long the run takes in the film.
        frames_per_second: how many pictures it shows a second.
        title: the title; None for the schedule and its sizes.
        palette: colours of kinds, as for :func:`~dualpipe_sim.pictures.plot.gantt`.
        theme: "light" or "dark".

    Raises:
        UserError: another suffix, no ffmpeg for an mp4, more pictures than 300, or a path that cannot be written to.

    """
    frames = check_animation(path, seconds, frames_per_second)
    look = Look(theme_named(theme, palette), transfers=False, numbers="auto", lanes=False)
    name = timeline.graph.schedule.name or "schedule"
    film = Film(timeline, look, f"{name}: {timeline.graph.schedule.size}" if title is None else title)
    moments_s = np.append(
        np.linspace(0, timeline.makespan_s, frames),
        np.full(math.ceil(_HELD_S * frames_per_second), timeline.makespan_s),
    )
    with written_whole(path) as part:
        try:
            samples = np.stack([film.picture(share * timeline.makespan_s) for share in (0.5, 1.0)])
            _write(film, moments_s, _writer(Path(path), frames_per_second, samples), part)
        except (subprocess.CalledProcessError, BrokenPipeError) as error:
            raise UserError(f"{path}: ffmpeg could not write it; use .gif") from error


def check_animation(path: str | Path, seconds: float, frames_per_second: float) -> int:
    """Return how many pictures a film has, before anything is run.

    >>> check_animation("film.gif", seconds=10, frames_per_second=12)
    120

    Raises:
        UserError: as for :func:`animate`.

    """
    suffix = Path(path).suffix.lower()
    if suffix == ".html":
        raise UserError(f"{path}: a page to step through op by op is what report writes; a film is a .gif or .mp4")
    if suffix not in (".gif", ".mp4"):
        wrong = f"'{suffix}' is no format of a film" if suffix else "the name does not say its format"
        raise UserError(f"{path}: {wrong}; use .gif or .mp4")
    if suffix == ".mp4" and not FFMpegWriter.isAvailable():
        raise UserError(f"{path}: an mp4 is made by ffmpeg, which is not on this machine; use .gif")
    if not 1 <= frames_per_second <= _FASTEST:
        raise UserError(f"fps: must be from 1 to {_FASTEST} pictures a second, got {frames_per_second:g}")
    if not 0 < seconds < math.inf:
        raise UserError(f"seconds: must be more than 0, got {seconds:g}")
    frames = math.ceil(seconds * frames_per_second)
    if frames > MOST_FRAMES:
        raise UserError(
            f"seconds: {seconds:g} s at {frames_per_second:g} pictures a second are {frames:,} pictures; a film has "
            f"{MOST_FRAMES} at most, so take fewer of either"
        )
    return max(frames, 2)


def _writer(path: Path, frames_per_second: float, samples: Any) -> AbstractMovieWriter:  # noqa: ANN401 - pixels
    if path.suffix.lower() == ".gif":
        return GifWriter(frames_per_second, samples)
    told = ["-pix_fmt", "yuv420p", "-f", "mp4"]  # the format, which the name of a file in the making does not say
    return FFMpegWriter(fps=frames_per_second, codec="h264", extra_args=told)  # type: ignore[arg-type]


def _write(film: Film, moments_s: FloatArray, writer: AbstractMovieWriter, path: Path) -> None:
    """Write pictures one by one; they are shown by a figure that holds nothing but the picture."""
    size_in = film.figure.get_size_inches()
    screen = Figure(figsize=tuple(size_in), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(screen)
    shown = screen.figimage(film.picture(0.0))
    with writer.saving(screen, str(path), DOTS_PER_INCH):
        for now_s in moments_s.tolist():
            shown.set_data(film.picture(now_s))
            writer.grab_frame()
