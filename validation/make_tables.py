"""Make the packaged tables of kernels from what was timed.

    python validation/make_tables.py out -o dualpipe_sim/presets/kernels/h100.csv

``out`` is what ``validation/kernels.py`` wrote. Rates are in TFLOP/s, rounded to three digits.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

COLUMNS = (
    "kernel", "numbers", "experts", "tokens", "outputs", "inputs", "head", "heads", "length",
    "forward", "input_gradient", "weight_gradient",
)  # fmt: skip
WORKS = {"F": "forward", "I": "input_gradient", "W": "weight_gradient"}

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """Return the rows of a CSV file, none where there is no such file."""
    return list(csv.DictReader(path.open())) if path.exists() else []


def rate(flops: float, us: str) -> str:
    """Return TFLOP/s in three digits."""
    return f"{flops / float(us) / 1e6:.3g}"


def linears(folder: Path) -> Iterator[Row]:
    """Yield the rates of linear maps, and of experts'."""
    for kernel, numbers, name in (("gemm", "bf16", "gemm"), ("gemm", "fp8", "fp8"), ("grouped", "bf16", "grouped")):
        for row in read(folder / f"{name}.csv"):
            flops = 2.0 * int(row.get("experts", 1)) * int(row["tokens"]) * int(row["outputs"]) * int(row["inputs"])
            shape = {key: value for key, value in row.items() if key in COLUMNS}
            precise = row.get("precise", row["F"])
            times = {"F": row["F"], "I": precise, "W": precise} if name == "fp8" else row
            yield {"kernel": kernel, "numbers": numbers, **shape} | {
                column: rate(flops, times[work]) for work, column in WORKS.items()
            }


def attentions(folder: Path) -> Iterator[Row]:
    """Yield the rates of attention, over FLOPs of the causal half; those with shared keys and values averaged in."""
    found: dict[tuple[str, int, int, int], list[tuple[float, float]]] = {}
    for row in read(folder / "attention.csv"):
        qk, v, heads, length = (int(row[name]) for name in ("qk", "v", "heads", "length"))
        forward = heads * length**2 * (qk + v)
        backward = heads * length**2 * (3 * qk + 2 * v)
        key = row["kernel"], (qk + v) // 2, heads, length
        found.setdefault(key, []).append((forward / float(row["F"]) / 1e6, backward / float(row["I"]) / 1e6))
    for (kernel, head, heads, length), rates in found.items():
        forward, backward = (f"{fmean(one):.3g}" for one in zip(*rates, strict=True))
        shape = {"head": f"{head}", "heads": f"{heads}", "length": f"{length}"}
        yield {"kernel": kernel, "numbers": "bf16", **shape, "forward": forward, "input_gradient": backward}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what validation/kernels.py wrote")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the table to write")
    given = parser.parse_args()
    machine = json.loads((given.folder / "machine.json").read_text())
    with given.out.open("w", newline="") as file:
        file.write(f"# Timed on one {machine['gpu']} (700 W), busy all the time, with PyTorch {machine['torch']} and\n")
        file.write("# cuBLAS, cuDNN and FlashAttention-2 as it brings them: validation/kernels.py. TFLOP/s.\n")
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(linears(given.folder))
        writer.writerows(attentions(given.folder))


if __name__ == "__main__":
    main()
