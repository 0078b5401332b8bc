"""Films: what a picture shows by its time, how many there are, and what cannot be written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.animation import FFMpegWriter
from matplotlib.colors import to_hex
from PIL import Image, ImageSequence

from dualpipe_sim.analysis.metrics import idle_s_by_cause
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.pictures.palette import CAUSE_STYLES, THEMES, fill, tint
from dualpipe_sim.pictures.plot import animate, check_animation
from dualpipe_sim.pictures.plot.content import Look
from dualpipe_sim.pictures.plot.film import Film

if TYPE_CHECKING:
    from tests.pictures.plot.conftest import Play

LIGHT = THEMES["light"]


@pytest.fixture(scope="module")
def film(timeline: Play) -> Film:
    """1F1B on 2 ranks: 0F0 0-1, 0F1 1-2, 0B0 4-6, 0F2 6-7, …; 1F0 1-2, 1B0 2-4, 1F1 4-5, 1B1 5-7, …, the end at 15."""
    return Film(timeline("1f1b", 2, 4), Look(LIGHT, transfers=False, numbers="none", lanes=False), "film")


def colour(film: Film, picture: Any, time_s: float, rank: int) -> str:  # noqa: ANN401
    ax: Any = film.figure.axes[0]
    x, y = ax.transData.transform((time_s, rank))
    return to_hex(picture[len(picture) - round(y), round(x), :3] / 255)


def test_what_has_run_shows_and_what_has_not_does_not(film: Film) -> None:
    forward, backward = fill(0, 0, 1), fill(1, 0, 1)
    waiting, warm_up = (tint(CAUSE_STYLES[cause].fill, LIGHT) for cause in ("waiting", "warm_up"))
    moments = [(0.5, 0), (1.5, 0), (3.0, 0), (5.0, 0), (0.5, 1), (1.5, 1), (3.0, 1), (4.5, 1)]
    shown = [forward, forward, waiting, backward, warm_up, forward, backward, forward]
    for now_s in (0.0, 1.2, 3.6, 15.0):
        picture = film.picture(now_s)
        seen = [colour(film, picture, *moment) for moment in moments]
        assert seen == [one if at_s < now_s else LIGHT.ground for (at_s, _), one in zip(moments, shown, strict=True)]


def test_an_op_in_progress_is_cut_at_the_present(film: Film) -> None:
    picture = film.picture(5.0)  # 0B0 runs from 4 to 6
    assert colour(film, picture, 4.8, 0) == fill(1, 0, 1)
    assert colour(film, picture, 5.0, 0) == LIGHT.exposed
    assert colour(film, picture, 5.2, 0) == LIGHT.ground


def test_bars_grow_to_the_idle_time_and_fall_with_what_is_held(timeline: Play) -> None:
    played = timeline("1f1b", 4, 8, UniformCosts(1, 1, 1, transfer_s=0.5))
    film = Film(played, Look(LIGHT, transfers=False, numbers="none", lanes=False), "film")

    def widths(place: int) -> list[float]:
        found: Any = film.figure.axes[place].collections
        boxes = [np.asarray(path.vertices) for one in found for path in one.get_paths() if len(path.vertices) == 5]
        return [float(np.ptp(box[:, 0])) for box in boxes]

    seen = []
    for now_s in np.linspace(0, played.makespan_s, 9).tolist():
        film.picture(now_s)
        seen.append(sum(widths(1)))
        # a rank holds one activation for each F begun whose B has not ended
        schedule, task = played.graph.schedule, played.graph.schedule.task_of_op
        begun = (schedule.kind == 0) & (played.task_start_s[task] <= now_s)
        done = (schedule.kind == 1) & (played.task_end_s[task] <= now_s)
        assert widths(2) == (np.bincount(schedule.rank, begun, 4) - np.bincount(schedule.rank, done, 4)).tolist()
    assert (np.diff(seen) >= -1e-9).all()
    assert seen[0] == 0
    assert seen[-1] == pytest.approx(sum(float(one.sum()) for one in idle_s_by_cause(played).values()))


def test_a_gif_runs_once_evenly_and_stands_still_at_the_end(timeline: Play, tmp_path: Path) -> None:
    played = timeline("1f1b", 2, 4)
    animate(played, tmp_path / "film.gif", seconds=2, frames_per_second=5, theme="dark")
    with Image.open(tmp_path / "film.gif") as gif:
        lasts_ms = [picture.info["duration"] for picture in ImageSequence.Iterator(gif)]
        corner: Any = gif.convert("RGB").getpixel((1, 1))
        assert to_hex(tuple(one / 255 for one in corner)) == THEMES["dark"].ground
        assert set(lasts_ms[:-1]) == {200}
        assert sum(lasts_ms) == 2000 + 2000
        assert all(side % 2 == 0 for side in gif.size)
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize(
    ("path", "options", "reason"),
    [
        ("a.html", {}, "a.html: a page to step through op by op is what report writes; a film is a .gif or .mp4"),
        ("a.mp4", {}, "a.mp4: an mp4 is made by ffmpeg, which is not on this machine; use .gif"),
        ("a.avi", {}, "a.avi: '.avi' is no format of a film; use .gif or .mp4"),
        ("a", {}, "a: the name does not say its format; use .gif or .mp4"),
        (
            "a.gif",
            {"seconds": 100},
            "seconds: 100 s at 12 pictures a second are 1,200 pictures; "
            "a film has 300 at most, so take fewer of either",
        ),
        ("a.gif", {"frames_per_second": 31}, "fps: must be from 1 to 30 pictures a second, got 31"),
        ("a.gif", {"seconds": float("nan")}, "seconds: must be more than 0, got nan"),
    ],
)
def test_what_is_no_film_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, path: str, options: dict[str, float], reason: str
) -> None:
    monkeypatch.setattr(FFMpegWriter, "isAvailable", lambda: False)
    with pytest.raises(UserError) as refusal:
        check_animation(path, **{"seconds": 12.0, "frames_per_second": 12.0} | options)
    assert str(refusal.value) == reason
