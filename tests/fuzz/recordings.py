"""Timelines and memory of a run as CSV, damaged: rows of any order, clocks of none, and numbers that are none."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from random import Random

from dualpipe_sim import simulate
from tests.fuzz.damage import NUMBERS, STRANGE, damaged
from tests.fuzz.kind import Kind
from tests.fuzz.recorded import RAN, used

_HEADER = ("rank", "lane", "task", "start_s", "end_s")
_HOST = ("host_start_s", "host_end_s")
_MEMORY = ("rank", "task", "before_bytes", "peak_bytes", "after_bytes")
_TASKS = (
    "0F0", "1F2", "1B2", "(0F1;0B0)OVERLAP_F_B", "0I1", "0W1", "0R1", "0S0", "0T0", "0O0", "0L0", "99F0", "1048575F0",
    "0SEND_F1", "1RECV_F1", "0RECV_B0", "0UNSHARD", "0REDUCE_GRAD", "0F0 attention", "0F0.1", "0F", "F0", "0X0", "",
)  # fmt: skip
_LANES = ("compute", "alltoall", "send", "recv", "copy", "data", "gpu", "")


@cache
def _timeline() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(map(str, row)) for row in simulate(RAN).played.rows())


def _make(chance: Random) -> bytes:
    kind = chance.random()
    if kind < 0.2:
        rows = [
            list(_MEMORY),
            *([rank, task, "100", "300", "200"] for rank, lane, task, *_ in _timeline() if "comp" in lane),
        ]
    else:
        rows = [list(_HEADER), *map(list, _timeline())]
        if kind < 0.4:
            rows = [[*row, *(_HOST if row is rows[0] else (row[3], row[3]))] for row in rows]
        if kind > 0.7:  # two steps
            rows += [[*row[:3], *(str(float(one) + 20) for one in row[3:])] for row in rows[1:]]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        chance.choice(_DAMAGES)(rows, chance)
    content = "".join(",".join(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        content = damaged(content, chance)
    return gzip.compress(content, 1) if chance.random() < 0.1 else content


# --- damage ----------------------------------------------------------------------------------------------------------


def _a_cell(rows: list[list[str]], chance: Random) -> None:
    row = chance.choice(rows)
    if row:
        row[chance.randrange(len(row))] = chance.choice((*NUMBERS, *STRANGE, "", " 1 ", '"', "x" * 200_000))


def _a_task(rows: list[list[str]], chance: Random) -> None:
    row = chance.choice(rows)
    if len(row) > 2:
        row[1 if rows[0][1:2] == ["task"] else 2] = chance.choice(_TASKS)


def _a_lane(rows: list[list[str]], chance: Random) -> None:
    row = chance.choice(rows)
    if len(row) > 2:
        row[1] = chance.choice(_LANES)


def _a_row(rows: list[list[str]], chance: Random) -> None:
    place, kind = chance.randrange(len(rows)), chance.randrange(4)
    if kind == 0:
        rows.insert(place, list(chance.choice(rows)))
    elif kind == 1 and len(rows) > 1:
        del rows[place]
    elif kind == 2:
        rows[1:] = chance.sample(rows[1:], len(rows) - 1)
    else:
        rows[place] = rows[place][: chance.randint(0, 6)]


def _clocks(rows: list[list[str]], chance: Random) -> None:
    """Let some rows be at another time: later, backwards, stretched, or all at once."""
    kind, by = chance.randrange(4), chance.choice((1.0, 30.0, -5.0, 1e-12, 1e9, 1e300, 1e308))
    for row in rows[chance.randint(1, len(rows)) :]:
        for place in range(3, min(5, len(row))):
            try:
                at = float(row[place])
            except ValueError:
                continue
            row[place] = str((at + by, -at, at * by, by)[kind])


_DAMAGES = (_a_cell, _a_cell, _a_task, _a_task, _a_lane, _a_row, _a_row, _clocks, _clocks)


def _attempt(path: Path) -> float:
    content = path.read_bytes()
    files = {"case.csv": content}
    if content.startswith(b"rank,task,before"):
        files["timeline.csv"] = "\n".join(",".join(row) for row in (_HEADER, *_timeline())).encode()
    return used(files)


KIND = Kind("recordings", ".csv", _make, _attempt, in_tests=50, in_long=10_000)
