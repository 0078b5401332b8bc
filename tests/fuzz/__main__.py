"""The long run: ``python -m tests.fuzz``, as ``make fuzz`` does; interrupted, it goes on where it was.

What the same code was tried with already is not tried again.

Each case is made of a seed and its number. What is a fault is kept as a file, to be mended, made small and put into
``found/``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dualpipe_sim.base.plain_data import digest
from dualpipe_sim.batch.points import Point
from dualpipe_sim.batch.study import Study, collect
from tests.fuzz.kinds import KINDS
from tests.fuzz.long_run import BUILD, tried

_TOGETHER = 50
"""Cases of a row."""


def main() -> int:
    """Try all kinds, print what came of them, and return 1 where something is to be mended."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Try inputs made by chance.")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all where none is named")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases of each kind")
    parser.add_argument("-j", "--workers", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    kinds = [KINDS[name] for name in wanted.kinds or KINDS]
    points: list[Point] = [
        {"kind": kind.name, "seed": wanted.seed, "first": first, "cases": min(_TOGETHER, cases - first)}
        for kind in kinds
        for cases in [round(kind.in_long * wanted.share)]
        for first in range(0, cases, _TOGETHER)
    ]
    BUILD.mkdir(parents=True, exist_ok=True)
    rows = collect(
        Study(points, tried, ("results", "refused", "faults", "error"), "fuzz"),
        workers=wanted.workers,
        output=BUILD / f"cases-{_code()}-{digest(points)[:8]}.jsonl",
        resume=True,
        progress=lambda done, all_: print(f"\r{done} of {all_}", end="", file=sys.stderr),
    )
    print(file=sys.stderr)
    bad = 0
    for kind in kinds:
        own = [row for row in rows if row["kind"] == kind.name]
        sums = {key: sum(int(str(row[key] or 0)) for row in own) for key in ("results", "refused", "faults")}
        lost = [row for row in own if row["error"]]
        bad += sums["faults"] + len(lost)
        print(
            f"{kind.name:16} {sums['results']:7} results {sums['refused']:7} refused {sums['faults']:5} faults", end=""
        )
        print(f"  {len(lost)} rows lost: {lost[0]}" if lost else "")
    print(f"{bad} to mend" + (f": {BUILD}" if bad else ""))
    return 1 if bad else 0


def _code() -> str:
    """Return a short name of the code that is tried and tries."""
    root = Path(__file__).parents[2]
    files = sorted([*root.glob("dualpipe_sim/**/*.py"), *Path(__file__).parent.glob("*.py")])
    return digest([file.read_text(encoding="utf-8") for file in files])[:8]


if __name__ == "__main__":
    sys.exit(main())
