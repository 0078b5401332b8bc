"""A part of a long run, on whatever process: some cases tried, and what are faults kept as files."""

from __future__ import annotations

import resource
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from dualpipe_sim.batch.points import Point, Row
from tests.fuzz.kind import TooLong, refused
from tests.fuzz.kinds import KINDS

BUILD = Path(__file__).parents[2] / "build" / "fuzz"
MEMORY_BYTES = 4 * 2**30
"""That a process may have."""


def tried(point: Point) -> Row:
    """Try some cases, and return how many were results, refused and faults."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    kind, seed, first, many = KINDS[str(point["kind"])], *(int(str(point[key])) for key in ("seed", "first", "cases"))
    counts: Counter[str] = Counter(results=0, refused=0, faults=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"case{kind.suffix}"
        for index in range(first, first + many):
            case = kind.case(seed, index)
            path.write_bytes(case)
            try:
                counts["refused" if refused(kind, path) else "results"] += 1
            except (Exception, TooLong):  # noqa: BLE001 - whatever it is, it is kept
                counts["faults"] += 1
                BUILD.mkdir(parents=True, exist_ok=True)
                kept = BUILD / f"{kind.name}-{seed}-{index}{kind.suffix}"
                kept.write_bytes(case)
                kept.with_name(f"{kept.name}.txt").write_text(
                    traceback.format_exc(), encoding="utf-8", errors="replace"
                )
    return dict(counts)
