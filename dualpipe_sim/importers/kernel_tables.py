"""Tables of kernels that others measured, as tables of rates by shape that a GPU's ``kernels`` takes.

NVIDIA's aiconfigurator (https://github.com/ai-dynamo/aiconfigurator) keeps CSV files of latencies in milliseconds:
``gemm_perf.txt`` with ``gemm_dtype,m,n,k,latency``, ``nccl_perf.txt`` with ``op_name,num_gpus,message_size,latency``.
They are bursts, which a GPU at its power limit does not sustain, so a pace goes with them.
"""

from __future__ import annotations

import csv
from io import StringIO
from pathlib import Path

from dualpipe_sim.base.files import KERNELS, read_text
from dualpipe_sim.base.show import on_one_line
from dualpipe_sim.errors import UserError, quoted

TERA = 1e12
_GEMM, _NCCL = {"gemm_dtype", "m", "n", "k", "latency"}, {"op_name", "num_gpus", "message_size", "latency"}
_NUMBERS = {"bfloat16": "bf16", "float16": "bf16", "fp8": "fp8", "fp8_block": "fp8-block", "nvfp4": "fp4"}
"""Formats that training uses, by aiconfigurator's names; its others are of inference alone."""


def is_kernel_table(text: str) -> bool:
    """Return whether a file begins with the columns of such a table."""
    columns = _columns(text)
    return columns >= _GEMM or columns >= _NCCL


def _columns(text: str) -> set[str]:
    return set(text.partition("\n")[0].strip().split(","))


def read_kernel_table(path: Path) -> str:
    """Return a table of rates, or of collectives' times, as CSV text.

    Raises:
        UserError: it is no such file, or a row of it has no numbers.

    """
    text = read_text(path, KERNELS)
    columns = _columns(text)
    try:
        rows = list(csv.DictReader(StringIO(text)))
        if columns >= _GEMM:
            return _gemms(rows, path)
        if columns >= _NCCL:
            return _collectives(rows, path)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError, csv.Error) as error:
        raise UserError(f"{path}: a row has no numbers: {quoted(str(error))}") from error
    raise UserError(f"{path}: must have the columns {', '.join(sorted(_GEMM))} (or of NCCL), got {quoted(text[:60])}")


def _gemms(rows: list[dict[str, str]], path: Path) -> str:
    lines = [f"# Rates of {on_one_line(path.name)}. TFLOP/s.", "kernel,numbers,tokens,outputs,inputs,forward"]
    for row in rows:
        numbers = _NUMBERS.get(row["gemm_dtype"])
        tokens, outputs, inputs = (int(row[size]) for size in "mnk")
        if numbers is not None:
            rate = 2.0 * tokens * outputs * inputs / (float(row["latency"]) * 1e-3) / TERA
            lines.append(f"gemm,{numbers},{tokens},{outputs},{inputs},{rate:.3g}")
    return "\n".join(lines) + "\n"


def _collectives(rows: list[dict[str, str]], path: Path) -> str:
    lines = [f"# Times of {on_one_line(path.name)}. Microseconds.", "kernel,gpus,bytes,microseconds"]
    for row in rows:
        if row.get("nccl_dtype", "half") == "half":
            if not row["op_name"].isidentifier():
                raise UserError(f"{path}: op_name: must be a word such as all_reduce, got {quoted(row['op_name'])}")
            size = int(row["message_size"]) * 2  # (in elements)
            lines.append(f"{row['op_name']},{int(row['num_gpus'])},{size},{float(row['latency']) * 1e3:.4g}")
    return "\n".join(lines) + "\n"
