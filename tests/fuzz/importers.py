"""Files of other programs, and this program's own tables that are read back: damaged as data, and as text.

A file's first line says what it is called, which tells importers apart, the second one what is done with it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from math import isfinite
from pathlib import Path
from random import Random
from typing import Any

from dualpipe_sim.base.plain_data import plain_data
from dualpipe_sim.batch.rows import RowFile
from dualpipe_sim.cli.imports import model_of, parameters_of
from dualpipe_sim.config.measured import read_measured
from dualpipe_sim.config.yaml_text import as_block, parse_yaml
from dualpipe_sim.hardware.kernels import Kernels, read_collectives, read_table
from dualpipe_sim.importers.kernel_tables import is_kernel_table, read_kernel_table
from dualpipe_sim.importers.published import of_row
from dualpipe_sim.importers.reading import read
from dualpipe_sim.order.placement import linear
from dualpipe_sim.scoring.rows import class_of, gpu_of, measured_bytes, measured_step_s, read_rows
from dualpipe_sim.sweeps.table import read_table as read_sweep
from tests.fuzz.damage import STRANGE, damaged
from tests.fuzz.kind import Kind
from tests.importers.test_kernel_tables import GEMM, NCCL
from tests.importers.test_reading import HUGGING_FACE, MEGATRON, RECIPE, ROW, SCRIPT, SIMUMAX, TITAN, toml
from tests.importers.test_simumax import DEEPSEEK as SIMUMAX_DEEPSEEK

_HUGGING_FACE = Path(__file__).parents[1] / "model" / "models.json"
_LAYERS: dict[str, dict[str, Any]] = {
    "training": {"seq_len": 2048, "local_batch_size": 1, "global_batch_size": 16},
    "parallelism": {"pipeline_parallel_degree": 2, "pipeline_parallel_schedule": "Interleaved1F1B"},
    "activation_checkpoint": {"mode": "full"},
}
_KERNELS = "# Mine. TFLOP/s.\nkernel,numbers,tokens,outputs,inputs,forward,input_gradient,weight_gradient\n" + "".join(
    f"gemm,bf16,{tokens},{outputs},4096,{tokens // 8},{outputs // 8},100\n"
    for tokens in (1024, 4096)
    for outputs in (512, 2048)
)
_TIMES = "# Mine. Microseconds.\nkernel,gpus,bytes,microseconds\nall_gather,8,1024,5\nall_gather,8,1048576,50\n"
_COSTS = {
    "pipes": 1, "transfer": {"time": "1 ms"}, "load": {"beta": 0.1, "tau": "5 ms", "gamma": 0.2}, "split": 1.1,
    "stages": {
        stage: {kind: {"time": "3 ms", "cold": "2 ms", "host": "10 us", "samples": 5} for kind in "FB"}
        | {"memory": {"activation": 100, "workspace": "1 MB"}}
        for stage in range(2)
    }, "pairs": {"0F;1B": {"time": "5 ms"}},
}  # fmt: skip
_ROWS: list[dict[str, object]] = [
    {"pipeline.micro_batches": many, "note": "=1+1", "schedule": "hanayo", "ranks": 4, "micro_batches": many,
     "options": {"waves": 2}, "makespan_s": many + 0.5, "bubble_ratio": 0.25, "peak_in_flight_by_rank": [2, 1],
     "theory": {"bubble_s": 1.0, "over": "makespan"}, "error": None, "point": f'{{"pipeline.micro_batches": {many}}}'}
    for many in (8, 16, 32)
]  # fmt: skip

_IN_SHELL = f"TP=2\nMORE=$((TP * 4))\nARGS=(\n--vpp ${{TP}}\n--moe-layer-freq ([0]*2+[1]*2)\n)\n{SCRIPT}"

_Texts = Callable[[Random], str]


@cache
def _models() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [one["config"] for one in json.loads(_HUGGING_FACE.read_text("utf-8")).values()]
    return [*found, HUGGING_FACE]


def _data(chance: Random, data: object) -> Any:  # noqa: ANN401 - whatever comes of it
    """Return a copy of data with none to three damages."""
    data = json.loads(json.dumps(data))
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        places = list(_places(data))
        if not places:
            break
        holder, key = chance.choice(places)
        kind = chance.random()
        if kind < 0.6:
            holder[key] = _odd(chance, holder[key])
        elif kind < 0.75:
            del holder[key]
        elif kind < 0.85 and isinstance(holder, dict):
            holder[chance.choice((*STRANGE, str(key).upper(), f"{key}_", ""))] = holder.pop(key)
        elif kind < 0.95:
            other, of_other = chance.choice(places)
            holder[key] = json.loads(json.dumps(other[of_other]))
        else:
            for _ in range(chance.choice((3, 70))):
                holder[key] = [holder[key]] if chance.random() < 0.5 else {"a": holder[key]}
    return data


def _places(data: Any) -> Any:  # noqa: ANN401 - whatever there is
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield data, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _odd(chance: Random, value: object) -> object:
    near = [value + 1, -value, value * 10**9, value // 7, value * 3] if type(value) is int else []
    return chance.choice((
        *near, None, True, False, 0, -1, 1, 2, 3, 7, 0.5, 1e308, -1e-308, float("nan"), float("inf"), 10**6, 10**9,
        10**13, 10**18, 10**20, 10**400, [], {}, [1], {"a": 1}, "", "1", "x", "x" * 3_000, "moe", *STRANGE,
    ))  # fmt: skip


def _json(data: object) -> _Texts:
    return lambda chance: json.dumps(_data(chance, data))


def _yaml(data: object) -> _Texts:
    return lambda chance: as_block(_data(chance, data))


def _toml(data: dict[str, dict[str, Any]]) -> _Texts:
    def write(chance: Random) -> str:
        found = _data(chance, data)
        sections = {str(key): one if isinstance(one, dict) else {"a": one} for key, one in found.items()}
        return toml(sections) + (
            "\n" + "a." * chance.choice((3, 100, 5_000)) + "b = 1" if chance.random() < 0.03 else ""
        )

    return write


def _plain(text: str) -> _Texts:
    return lambda _: text


def _table(chance: Random, text: str) -> str:
    """Return a table with cells that are others."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        row = chance.choice(rows)
        row[chance.randrange(len(row))] = chance.choice(
            ("", "0", "-1", "1e400", "nan", "9" * 5_000, "10", "1e3", "x", '"', "int", "fp8", *STRANGE)
        )
    if chance.random() < 0.02:
        rows += [[*rows[-1][:-4], *(str(chance.randrange(1, 10**6)) for _ in range(4))] for _ in range(500)]
    return "\n".join(map(",".join, rows)) + "\n"


_FILES: tuple[tuple[str, str, _Texts], ...] = (
    *(("config.json", "import", lambda chance: json.dumps(_data(chance, chance.choice(_models()))))
      for _ in range(4)),
    ("model.json", "import", _json(SIMUMAX)),
    ("model.json", "import", _json(SIMUMAX_DEEPSEEK)),
    ("job.toml", "import", _toml(TITAN | _LAYERS)),
    ("job.json", "import", _json(TITAN | _LAYERS)),
    ("train.sh", "import", _plain(SCRIPT)),
    ("train.sh", "import", _plain(_IN_SHELL)),
    ("zoo.yaml", "import", _yaml({"MODEL_ARGS": MEGATRON})),
    ("recipe.yaml", "import", _yaml(RECIPE)),
    ("run.yaml", "import", _yaml({"runs": [ROW]})),
    ("runs.yaml", "score", _yaml({"runs": [ROW | {"measured": {"step_time_s": 1.0, "memory_alloc_gib": 3}}, ROW]})),
    ("gemm_perf.txt", "kernels", lambda chance: _table(chance, GEMM)),
    ("nccl_perf.txt", "kernels", lambda chance: _table(chance, NCCL)),
    ("own.csv", "rates", lambda chance: _table(chance, _KERNELS)),
    ("own.csv", "times", lambda chance: _table(chance, _TIMES)),
    ("costs.yaml", "costs", _yaml(_COSTS)),
    ("table.csv", "table", _plain("")),
    ("table.jsonl", "table", _plain("")),
    ("table.parquet", "table", _plain("")),
)  # fmt: skip


def _make(chance: Random) -> bytes:
    name, use, text = chance.choice(_FILES)
    content = _rows_as(name, chance) if use == "table" else text(chance).encode("utf-8", "surrogatepass")
    if chance.random() < (0.8 if use == "table" or name == "train.sh" else 0.2):
        content = damaged(content, chance)
    return f"{name}\n{use}\n".encode() + content


def _rows_as(name: str, chance: Random) -> bytes:
    rows = [dict(zip(_ROWS[0], row.values(), strict=False)) for row in _data(chance, _ROWS) if isinstance(row, dict)]
    if name.endswith(".csv"):
        lines = [",".join(_ROWS[0])] + [",".join(map(_cell, row.values())) for row in rows]
        return "\n".join([*lines, ""]).encode("utf-8", "surrogatepass")
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    return _parquet()


def _cell(value: object) -> str:
    """Return a cell of a table as its writer quotes it."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    return '"{}"'.format(text.replace('"', '""')) if set(text) & set('",\n\r') else text


@cache
def _parquet() -> bytes:
    import pyarrow as pa

    from dualpipe_sim.batch.parquet import write

    sink = pa.BufferOutputStream()
    write(sink, _ROWS, list(_ROWS[0]))
    return bytes(sink.getvalue())


# --- what is done with it --------------------------------------------------------------------------------------------


def _import(path: Path) -> object:
    imported = read(path, gpus=16)
    _finite(imported.config)
    assert parse_yaml(as_block(imported.config), "again") == json.loads(json.dumps(imported.config))
    counts = parameters_of(model_of(imported.config, str(path)))
    assert min(counts["total"], counts["active"], *counts["parts"].values()) >= 0, counts
    return counts


def _score(path: Path) -> object:
    found: list[object] = []
    for place, row in enumerate(read_rows(path)):
        found += [class_of(row), gpu_of(row), measured_step_s(row), measured_bytes(row)]
        config = of_row(row, f"{path}: {place}").config
        _finite(config)
        model_of(config, str(path))
    return found


def _kernels(path: Path) -> object:
    if not is_kernel_table(path.read_text("utf-8", errors="replace")):
        read_kernel_table(path)
    own = path.with_name("made.csv")
    own.write_text(read_kernel_table(path), encoding="utf-8")
    return _times(own) if "gpus" in own.read_text("utf-8").splitlines()[1] else _rates(own)


def _rates(path: Path) -> object:
    read_table.cache_clear()
    kernels = Kernels(gemm=str(path))
    found = [kernels.gemm_flops_per_s(numbers, work, 4096, 3000, 5000) for numbers in ("bf16", "fp8") for work in "FIW"]  # type: ignore[arg-type]
    assert all(one is None or (isfinite(one) and one > 0) for one in found), found
    return found


def _times(path: Path) -> object:
    grid = read_collectives(str(path))
    found = [grid.at((gpus, size)) for gpus in (2, 8, 64) for size in (1, 10**6, 10**9)]
    assert all(isfinite(one) and one > 0 for one in found), found
    return found


def _costs(path: Path) -> object:
    costs = read_measured(path).on(linear(2))
    return [costs.phases(((0, stage),)) for stage in range(2)]


def _table_of(path: Path) -> object:
    table = read_sweep(path)
    repr(table), str(table.to_table())
    json.dumps(table.rows, default=plain_data)
    if path.suffix != ".parquet":
        file = RowFile(path, list(_ROWS[0]))
        try:
            there = file.open([str(row["point"]) for row in _ROWS], resume=True)
            file.finish([there.get(str(row["point"]), row) for row in _ROWS])
        finally:
            file.close()
        return read_sweep(path).rows
    return table.rows


_USES = {
    "import": _import, "score": _score, "kernels": _kernels, "rates": _rates, "times": _times, "costs": _costs,
    "table": _table_of,
}  # fmt: skip


def _finite(data: object) -> None:
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, (list, tuple)):
        for one in data:
            _finite(one)
    assert not isinstance(data, float) or isfinite(data), data


def _attempt(path: Path) -> object:
    name, use, content = path.read_bytes().split(b"\n", 2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name.decode()
        file.write_bytes(content)
        return _USES[use.decode()](file)


KIND = Kind("importers", ".txt", _make, _attempt, in_tests=60, in_long=15_000)
