"""Mario: forwards in bubbles while memory lasts, against a player of its own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import ScheduleError, build, format_order, simulate

SIZES, SECONDS = st.integers(1, 6), st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0])


def played(rows: list[list[str]], forward: float, backward: float, again: float, hop: float) -> tuple[float, list[int]]:
    """Play rows of cells like 0F3 from what each op needs: makespan, and most F without their B on each rank."""
    ended: dict[tuple[str, int, int], float] = {}
    lasts = {"F": forward, "B": backward, "R": again}
    free, at = [0.0] * len(rows), [0] * len(rows)
    while any(place < len(row) for place, row in zip(at, rows, strict=True)):
        moved = False
        for rank, row in enumerate(rows):
            while at[rank] < len(row):
                kind, batch = row[at[rank]][1], int(row[at[rank]][2:])
                needs = {
                    "F": [("F", rank - 1, batch)] if rank else [],
                    "R": [("F", rank, batch)],
                    "B": [("F", rank, batch), *([("B", rank + 1, batch)] if rank + 1 < len(rows) else [])],
                }[kind]
                if any(need not in ended for need in needs):
                    break
                there = [ended[need] + hop * (need[1] != rank) for need in needs]
                free[rank] = max(free[rank], *there, 0.0) + lasts[kind]
                ended[kind, rank, batch] = free[rank]
                at[rank] += 1
                moved = True
        assert moved, "ranks wait for each other"
    running = [
        [sum({"F": 1, "B": -1}.get(cell[1], 0) for cell in row[: end + 1]) for end in range(len(row))] for row in rows
    ]
    return max(free), [max(row) for row in running]


@given(SIZES, st.integers(1, 12), st.integers(0, 8), SECONDS, SECONDS, SECONDS, st.sampled_from([0.0, 0.25, 1.0]))
def test_forwards_in_bubbles_never_cost_time_nor_more_than_the_limit(
    ranks: int, batches: int, more: int, forward: float, backward: float, again: float, hop: float
) -> None:
    limit = ranks + more
    costs: dict[str, Any] = {"forward": forward, "backward": backward, "recompute": again, "transfer": hop}
    pulled = build("mario", ranks, batches, limit=limit)
    result = simulate(schedule=pulled, **costs)
    plain = simulate(schedule=build("1f1b-recompute", ranks, batches, last=False), **costs)
    rows = [line.split(",") for line in format_order(pulled).splitlines()]
    makespan, in_flight = played(rows, forward, backward, again, hop)
    assert result.makespan_s == pytest.approx(makespan)
    assert plain.makespan_s is not None
    assert makespan <= plain.makespan_s + 1e-9
    assert result.peak_in_flight_by_rank == in_flight
    assert max(in_flight) <= limit
    busiest = max(
        rank * (forward + backward) + batches * (forward + backward + (again if rank < ranks - 1 else 0))
        for rank in range(ranks)
    )
    assert makespan >= busiest - 1e-9


@pytest.mark.parametrize(
    ("forward", "backward", "again", "without", "reached"), [(1, 2, 1, 71, 70), (1, 3, 0.5, 82.5, 80)]
)
def test_bubbles_are_filled_up_to_what_the_busiest_rank_takes(
    forward: float, backward: float, again: float, without: float, reached: float
) -> None:
    """Rank 2 of 4, the last that runs forwards again, takes 2(F+B) + M(F+B+R), or rank 3 more."""
    costs: dict[str, Any] = {"forward": forward, "backward": backward, "recompute": again}
    least = max(2 * (forward + backward) + 16 * (forward + backward + again), 19 * (forward + backward))
    assert least == reached
    assert simulate(schedule=build("mario", 4, 16, limit=4), **costs).makespan_s == pytest.approx(without)
    assert simulate(schedule=build("mario", 4, 16), **costs).makespan_s == pytest.approx(reached)


def test_a_limit_below_1f1bs_is_refused() -> None:
    with pytest.raises(
        ScheduleError, match="mario: limit must be at least 4, what 1F1B has in flight, got 3; the nearest"
    ):
        build("mario", 4, 8, limit=3)
