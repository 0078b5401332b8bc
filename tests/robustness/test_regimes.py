"""Maps of regimes: boundaries where formulas have them, what fits, and rows that outlive a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from dualpipe_sim import ConfigError, RegimeMap, UserError, compare, regimes, simulate
from dualpipe_sim.batch.rows import read_rows
from dualpipe_sim.robustness.axis import AxisGiven, axis_of
from dualpipe_sim.robustness.points import At, JudgeLines, Line, settle

UNIT: dict[str, Any] = {"pipeline": {"ranks": 8, "micro_batches": 32}, "costs": {"forward": 1, "backward": 2}}


def test_dualpipe_gives_way_to_zb_h1_where_their_formulas_meet() -> None:
    """Both in units of F = I = W.

    ZB-H1: 3 M + P - 1 (https://arxiv.org/abs/2401.10241). DualPipe: a rank in the middle runs M - P - 1 pairs of
    length d by DeepSeek's released order, and the bubble is (P/2 - 1)(d + 2 - 3) (https://arxiv.org/abs/2412.19437,
    table 2); in all 3 M + P - 2 + (M - P/2 - 2)(d - 3).
    """
    micro_batches = [20, 24, 32, 40]
    found = regimes(
        UNIT, "costs.overlapped=2.5..3.5:21", {"micro_batches": micro_batches}, compare=["zb-h1", "dualpipe"]
    )
    for row, count in enumerate(micro_batches):
        (first, until), (second, end) = found.boundaries(row)
        assert (first, second, end) == ("dualpipe", "zb-h1", None)
        assert until == pytest.approx(3 + 1 / (count - 8 / 2 - 2), rel=1e-12)


def test_limits_of_activations_are_those_of_the_papers() -> None:
    """1F1B and ZB-H1 hold P at most, DualPipe P + 1, ZB-H2 2 P - 1; DualPipe's bubble with F = I = W is P - 2 units,
    ZB-H1's P - 1, and ZB-H2's none only in a span that the optimizer's step may follow rank by rank
    (https://arxiv.org/abs/2401.10241, https://arxiv.org/abs/2412.19437)."""
    schedules = ["1f1b", "zb-h1", "dualpipe", "zb-h2"]
    config = {**UNIT, "costs": {"forward": 1, "backward": 2, "overlapped": 3}}
    found = regimes(config, "activations=6..16:11", "micro_batches=32,40", compare=schedules)
    for row in range(2):
        by_limit = {found.x.values[place]: found.winner(place, row) for place in range(11)}
        assert {limit for limit, best in by_limit.items() if best is None} == {6.0, 7.0}
        assert by_limit[8.0] == "zb-h1"
        assert {by_limit[float(limit)] for limit in range(9, 17)} == {"dualpipe"}
    why = str(found.unfit[0, 0, schedules.index("zb-h2")])
    assert why == "a rank holds 15 activations, more than 6"


def test_interleaved_divides_the_bubble_of_1f1b() -> None:
    """(P - 1)(F + B) by its stages a rank (https://arxiv.org/abs/2104.04473, section 2.2); DualPipe needs pairs."""
    compared = ["1f1b", "interleaved-1f1b", "dualpipe"]
    found = regimes(UNIT, "micro_batches=8,15,16,24", "costs.overlapped=9,10", compare=compared)
    assert found.x.values == (8, 15, 16, 24)
    for place, count in ((0, 8), (2, 16), (3, 24)):
        assert found.winner(place, 0) == "interleaved-1f1b"
        assert found.margin[0, place] == pytest.approx((count + 7) / (count + 7 / 2) - 1)
    assert np.isnan(found.seconds[0, 1, 2])
    assert "dualpipe needs" in str(found.unfit[0, 1, 2])


def test_every_point_is_what_a_comparison_says() -> None:
    found = regimes("small", "costs.transfer=0 ms..8 ms:3", "micro_batches=8,16", settings=["costs.overlapped=25 ms"])
    for row, count in enumerate((8, 16)):
        for column, transfer in enumerate(("0 ms", "4 ms", "8 ms")):
            runs = compare("small", micro_batches=count, transfer=transfer, overlapped="25 ms")
            assert found.winner(column, row) == runs[0].label
            times = {run.label: (run.makespan_s or 0.0) / run.micro_batches for run in runs if run.error is None}
            ours = dict(zip(found.schedules, found.seconds[row, column].tolist(), strict=True))
            assert {name: seconds for name, seconds in ours.items() if np.isfinite(seconds)} == times


def test_by_layer_a_point_is_what_a_comparison_says_but_for_the_layout() -> None:
    config: dict[str, Any] = {"pipeline.micro_batches": 32, "compare": ["zb-h1", "dualpipe"]}
    found = regimes("deepseek_v3", "training.routing_skew=1..1.2:5", "cluster.infiniband.bandwidth=50 GB/s", **config)
    for column, skew in ((1, 1.05), (3, 1.15)):
        runs = compare("deepseek_v3", **config, **{"training.routing_skew": skew})
        for run in runs:
            which = found.schedules.index(run.label)
            gpu_seconds = 1 / (run.tokens_per_second_per_gpu or 0.0)
            assert found.seconds[0, column, which] == pytest.approx(gpu_seconds, rel=0.005)
            assert (found.unfit[0, column, which] == "") is run.fits
        assert found.winner(column, 0) == runs[0].label == "dualpipe"


def test_a_layout_is_sought_once_for_all_points_that_it_suits() -> None:
    config: dict[str, Any] = {
        "pipeline": {"ranks": 16, "micro_batches": 32, "layout": "balanced"},
        "model": "deepseek-v3",
        "gpu": "h800",
        "compare": ["1f1b"],
        "parallel": {"expert": 64, "data": 128},
        "training": {"sequence_length": 4096},
    }
    at = At(config, "config", "training.routing_skew", "pipeline.ranks")
    (layout,) = settle(at, 1.0, 16)
    assert sum(layout or ()) == 61
    given = (4,) * 15 + (1,)

    def judged(layout: tuple[int, ...] | None, ranks: int) -> Any:  # noqa: ANN401 - seconds of the only schedule
        points: Any = JudgeLines(at, (layout,))({"lines": [Line([1.0], [1.0], ranks)]})["points"]
        return points[0][0].seconds

    sought, as_given = (
        simulate(config, **{"pipeline.layout": one}).tokens_per_second_per_gpu for one in ("balanced", list(given))
    )
    assert 1 / judged(layout, 16) == pytest.approx(sought, rel=1e-12)
    assert 1 / judged(given, 16) == pytest.approx(as_given, rel=1e-12)
    assert judged(given, 8) == judged(None, 8) is not None  # for so many ranks it is no layout


def test_leads_below_the_threshold_are_too_close_to_call() -> None:
    found = regimes(UNIT, "costs.transfer=0..0.01:2", "micro_batches=32,64", compare=["1f1b", "gpipe"])
    assert found.too_close[:, 0].all()
    assert found.margin[:, 0] == pytest.approx(0)
    far = regimes(UNIT, "costs.transfer=0..0.01:2", "micro_batches=32,64", compare=["1f1b", "zb-h1"], close=0.01)
    assert far.margin[0, 0] == pytest.approx(2 * 7 / (3 * 32 + 7))  # (P - 1) 2 W of ZB-H1's 3 M + P - 1
    assert not far.too_close[0, 0]
    assert regimes(
        UNIT, "costs.transfer=0..0.01:2", "micro_batches=32", compare=["1f1b", "zb-h1"], close=0.2
    ).too_close.all()


def test_words_and_logarithms_along_an_axis() -> None:
    found = regimes("small", "costs.transfer=1 us..10 ms:5:log", "cluster.gpus_per_node=2,4")
    assert found.x.at(0) == "0.001 ms"
    assert found.x.at(2) == "0.1 ms"
    assert found.x.at(2.5) == f"{10**-0.5:.4g} ms"
    assert found.to_dict()["y"] == {"key": "cluster.gpus_per_node", "values": [2, 4]}
    words = regimes(UNIT, "engine=simpy,longest-path", "micro_batches=8,16", compare=["1f1b", "gpipe"])
    assert words.x.words
    np.testing.assert_allclose(words.seconds[:, 0], words.seconds[:, 1])


def test_workers_and_a_stop_leave_the_same_rows(tmp_path: Path) -> None:
    axes = "costs.transfer=0..1:5", "micro_batches=8,16,24"
    whole, part = tmp_path / "whole.csv", tmp_path / "part.csv"
    alone = regimes(UNIT, *axes, compare=["1f1b", "zb-h1"], output=whole)
    shared = regimes(UNIT, *axes, compare=["1f1b", "zb-h1"], workers=2)
    assert alone.to_dict() == shared.to_dict()
    lines = whole.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:7]) + lines[7][:9])  # torn in the middle of a row
    told: list[tuple[int, int]] = []
    again = regimes(
        UNIT, *axes, compare=["1f1b", "zb-h1"], output=part, resume=True, progress=lambda *done: told.append(done)
    )
    assert told[0] == (6, 15)
    assert told[-1] == (15, 15)
    assert again.to_dict() == alone.to_dict()
    assert part.read_bytes() == whole.read_bytes()
    assert [row["costs.transfer"] for row in read_rows(part)][:5] == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(UserError, match="cannot be resumed"):
        regimes(UNIT, "costs.transfer=0..1:4", axes[1], compare=["1f1b", "zb-h1"], output=part, resume=True)


def test_a_point_that_is_no_configuration_is_said_and_the_others_go_on() -> None:
    found = regimes(UNIT, "costs.transfer=0..1:2", {"ranks": [1, 4]}, compare=["1f1b", "dualpipe"])
    assert found.winner(0, 0) == "1f1b"
    of_lines = regimes(UNIT, "costs.transfer=0..1:5", {"micro_batches": [0, 8]}, compare=["1f1b", "zb-h1"])
    assert of_lines.winners == [[None] * 5, ["zb-h1"] * 5]
    odd = regimes("small", "costs.transfer=0 ms,fast", "micro_batches=8,16", compare=["1f1b"])
    assert odd.winner(0, 0) == "1f1b"
    assert odd.winner(1, 0) is None
    assert str(odd.unfit[0, 1, 0]).startswith("costs.transfer: must be a time like 1.2 ms")


def test_what_is_wrong_at_one_point_is_not_at_another() -> None:
    slow = {**UNIT, "noise": {"slow_ranks": {6: 1.5}}}
    found = regimes(slow, "ranks=4,8", "micro_batches=8", compare=["1f1b", "zb-h1"])
    assert found.winners == [[None, "zb-h1"]]
    assert str(found.unfit[0, 0, 0]) == "noise.slow_ranks: there is no rank 6; the pipeline has ranks 0 to 3"


def test_a_map_shows_what_it_says() -> None:
    found = regimes(UNIT, "costs.overlapped=2.5..3.5:21", "micro_batches=20,24", compare=["zb-h1", "dualpipe"])
    assert found.crossings[0] == "micro_batches 20: dualpipe until overlapped 3.071, then zb-h1"
    assert found.crossings[2] == "overlapped 2.5: dualpipe all along micro_batches"
    table = found.to_table()
    assert [row[0] for row in table.rows] == ["dualpipe", "zb-h1"]
    assert sum(float(row[1].rstrip("%")) for row in table.rows) == pytest.approx(100, abs=0.1)
    row = found.to_rows()[0]
    assert (row["best"], row["second"], row["too_close"]) == ("dualpipe", "zb-h1", False)
    assert row["margin"] == pytest.approx(cast("float", row["zb-h1"]) / cast("float", row["dualpipe"]) - 1)
    assert len(found.to_pandas()) == 42


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ("costs.transfer", "ranks=4,8", "--x costs.transfer: must be a key and values, like costs.transfer=0 ms..5 ms"),
        ("ranks=8..4", "micro_batches=8,16", "--x ranks=8..4: must go up, and have two points at least"),
        ("ranks=4..", "micro_batches=8,16", "--x ranks=4..: must be a range like 0 ms..5 ms, 4..16 or 1..2:33, or"),
        ("costs.transfer=0 ms..5 mz", "ranks=4,8", "--x costs.transfer=0 ms..5 mz: there is no unit 'mz'"),
        (
            "costs.transfer=0 ms..5 ms:9:log",
            "ranks=4",
            "--x costs.transfer=0 ms..5 ms:9:log: must go up, from more than 0",
        ),
        ("ranks=4,8", "ranks=4,8", "--y pipeline.ranks: is varied by --x already; take another key"),
        ("schedule=1f1b,gpipe", "ranks=4", "--x schedule: schedules are what a map compares; vary another key"),
        ("pipeline.rank=4,8", "micro_batches=8", "config: pipeline.rank: unknown key; did you mean 'ranks'?"),
        ("costs.forward=fast,slow", "micro_batches=8", "config: costs.forward: must be a time like 5 us"),
        ({"ranks": 4}, "micro_batches=8", "over: pipeline.ranks: must be a list of values, got 4"),
        ({}, "micro_batches=8", "--x: must be one key with its values, like costs.transfer=0 ms..5 ms"),
    ],
)
def test_a_mistake_in_an_axis_is_one_line(x: AxisGiven, y: AxisGiven, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        regimes({**UNIT, "compare": ["1f1b", "gpipe"]}, x, y)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_value_counts_once() -> None:
    found = regimes(UNIT, {"costs.transfer": [0, 0, 1, 1, 0]}, {"micro_batches": [8, 8]}, compare=["1f1b", "zb-h1"])
    assert (found.x.values, found.y.values) == ((0, 1), (8,))
    same = regimes(UNIT, {"costs.transfer": ["1 s", "1000 ms", "1.0 s", "1s", "1 s "]}, "ranks=2,4", compare=["1f1b"])
    assert np.ptp(same.seconds[0]) == 0


def test_whole_numbers_keep_their_multiples() -> None:
    assert axis_of("micro_batches=8..256", "--x").values == tuple(range(8, 257, 8))
    assert axis_of("ranks=4..8", "--x").values == (4, 5, 6, 7, 8)
    assert axis_of("training.routing_skew=1..2:3", "--x").values == (1.0, 1.5, 2.0)


def test_the_fastest_of_a_grid_for_programs() -> None:
    """What a page of documentation asks: the winner's name at each point."""
    found = regimes(None, "activations=4..8:3", "micro_batches=4,8", schedule=["1f1b", "zb-h2"], ranks=4)
    assert isinstance(found, RegimeMap)
    assert found.winners == [["zb-h2"] * 3, ["1f1b", "1f1b", "zb-h2"]]  # which holds min(M, 2 P - 1)
