"""Train with torch's own pipeline runtime on the GPUs of one host, and write down when everything ran.

    torchrun --nproc-per-node 2 validation/run_torch.py validation/runs_torch.json -o out

The schedules are the classes of ``torch.distributed.pipelining`` as they are; only their stages' forwards and backwards
are watched. The file of runs holds ``models`` by name (sizes of a transformer) and ``runs``, each
``{"model": "small", "schedule": "zb-v", "micro_batches": 8}``, with ``"trace": true`` where torch.profiler records two
more steps.

Per run ``out`` holds ``<name>.csv`` (``rank,lane,task,start_s,end_s,host_start_s,host_end_s`` of every measured step,
all ranks on one clock: CUDA events around an op, and when the host entered and left it), ``<name>.memory.csv`` (bytes
before, at most in and after each op of the first measured step), ``<name>.json`` (step times, clocks and power,
memory, sizes, versions) and, where asked for, ``<name>-rank0.json.gz``. Without GPUs it runs on gloo, for trying, where
torch 2.13 cannot start V schedules.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist
from gpus import Clocks, CpuClock, GpuClock, clock_of, connect, free, keep_to
from torch import Tensor, nn
from torch.distributed import pipelining
from torch.nn import functional

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import build

CLASSES = {
    "1f1b": "Schedule1F1B",
    "gpipe": "ScheduleGPipe",
    "interleaved-1f1b": "ScheduleInterleaved1F1B",
    "looped-bfs": "ScheduleLoopedBFS",
    "interleaved-zb": "ScheduleInterleavedZeroBubble",
    "zb-v": "ScheduleZBVZeroBubble",
    "dualpipev": "ScheduleDualPipeV",
}
"""Torch's class of each schedule."""


class Model(NamedTuple):
    """Sizes of a transformer; with ``experts`` its feed-forward layers are as many, of which a token passes two."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    tokens: int
    vocabulary: int = 2048
    experts: int = 0


class Watched(NamedTuple):
    """An op that ran: marks on its stream, seconds of the host, and bytes before, at most in and after it."""

    name: str
    start: Any
    end: Any
    host_start_s: float
    host_end_s: float
    before_bytes: int
    peak_bytes: int
    after_bytes: int


# --- the model -------------------------------------------------------------------------------------------------------


class SwiGlu(nn.Module):
    """A feed-forward layer with a gate."""

    def __init__(self, hidden: int, ffn: int) -> None:
        super().__init__()
        self.up, self.gate = nn.Linear(hidden, ffn, bias=False), nn.Linear(hidden, ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """Feed-forward layers of which each token passes two, equally many tokens each; all are on this GPU."""

    def __init__(self, hidden: int, ffn: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(hidden, experts, bias=False)
        self.experts = nn.ModuleList(SwiGlu(hidden, ffn) for _ in range(experts))

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        batch, tokens, hidden = x.shape
        weight = self.router(x).softmax(-1).view(-1, len(self.experts))
        rows = x.reshape(-1, hidden)
        places = torch.arange(batch * tokens, device=x.device)
        result = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            own = places[number :: len(self.experts)].repeat(2)
            result = result.index_add(0, own, expert(rows[own]) * weight[own, number, None])
        return result.view(batch, tokens, hidden)


class Block(nn.Module):
    """A layer of the transformer."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head = model.heads, model.kv_heads, model.hidden // model.heads
        self.norms = nn.ModuleList(nn.RMSNorm(model.hidden) for _ in range(2))
        self.qkv = nn.Linear(model.hidden, (model.heads + 2 * model.kv_heads) * self.head, bias=False)
        self.out = nn.Linear(model.hidden, model.hidden, bias=False)
        self.mlp = Experts(model.hidden, model.ffn, model.experts) if model.experts else SwiGlu(model.hidden, model.ffn)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        batch, tokens, _ = x.shape
        joined = self.qkv(self.norms[0](x)).view(batch, tokens, -1, self.head).transpose(1, 2)
        query, key, value = joined.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.mlp(self.norms[1](x))


class StageModel(nn.Module):
    """The layers of one stage, with embedding and head at the ends."""

    def __init__(self, model: Model, stage: int, stages: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(model.vocabulary, model.hidden) if stage == 0 else nn.Identity()
        self.blocks = nn.Sequential(*(Block(model) for _ in range(model.layers // stages)))
        last = stage == stages - 1
        self.head = nn.Linear(model.hidden, model.vocabulary, bias=False) if last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the stage's output."""
        return self.head(self.blocks(self.embedding(x)))


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss of a micro-batch."""
    return functional.cross_entropy(logits.flatten(0, 1).float(), target.flatten())


# --- watching --------------------------------------------------------------------------------------------------------


class Watch:
    """What ran in a step, in the order in which the host issued it."""

    def __init__(self, clock: GpuClock | CpuClock) -> None:
        self.clock = clock
        self.ran: list[Watched] = []
        self.most_bytes = 0

    def memory(self) -> tuple[int, int]:
        """Return bytes allocated now, and the most since the last call."""
        now, most = self.clock.memory()
        self.most_bytes = max(self.most_bytes, most)
        return now, most

    def over(self, stage: Any) -> None:
        """Watch a stage's forwards and backwards."""

        def watched(method: Callable[..., Any], letter: Callable[[dict[str, Any]], str]) -> Callable[..., Any]:
            def call(micro_batch: int, *args: Any, **kwargs: Any) -> Any:
                before, _ = self.memory()
                host_s, start = time.monotonic(), self.clock.mark()
                result = method(micro_batch, *args, **kwargs)
                end, left_s = self.clock.mark(), time.monotonic()
                after, most = self.memory()
                name = f"{stage.stage_index}{letter(kwargs)}{micro_batch}"
                self.ran.append(Watched(name, start, end, host_s, left_s, before, most, after))
                return result

            return call

        stage.forward_one_chunk = watched(stage.forward_one_chunk, lambda _: "F")
        full = lambda kwargs: "B" if kwargs.get("full_backward", True) else "I"  # noqa: E731
        stage.backward_one_chunk = watched(stage.backward_one_chunk, full)
        stage.backward_weight_one_chunk = watched(stage.backward_weight_one_chunk, lambda _: "W")


# --- a run -----------------------------------------------------------------------------------------------------------


def perform(run: dict[str, Any], model: Model, settings: argparse.Namespace, device: torch.device) -> None:
    """Run a schedule several steps; rank 0 writes down what all ranks did."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    order = build(run["schedule"], ranks, run["micro_batches"], **run.get("options", {}))
    gpu = device.type == "cuda"
    clock = clock_of(device)
    stages, watch = order.placement.stages, Watch(clock)
    parts = []
    for number in order.placement.stages_of_rank(rank):
        torch.manual_seed(number)
        module = StageModel(model, number, stages).to(device, torch.bfloat16 if gpu else torch.float32)
        parts.append(pipelining.PipelineStage(module, number, stages, device))
    for part in parts:
        watch.over(part)
    single = run["schedule"] in ("1f1b", "gpipe")
    make = getattr(pipelining.schedules, CLASSES[run["schedule"]])
    schedule = make(parts[0] if single else parts, run["micro_batches"], loss_fn=loss_of)
    shape = run["micro_batches"], model.tokens
    tokens = torch.randint(model.vocabulary, shape, device=device)
    first = any(part.is_first for part in parts)
    given = {"target": tokens} if any(part.is_last for part in parts) else {}

    def step() -> None:
        for part in parts:
            part.submod.zero_grad(set_to_none=True)
        clock.finish()
        watch.at_rest, _ = watch.memory()
        watch.ran, watch.most_bytes = [], 0
        clock.start_clock()
        dist.barrier()
        schedule.step(*([tokens] if first else []), **given)
        watch.memory()
        clock.finish()

    mine: dict[str, Any] = {"steps": []}
    clocks = None
    for number in range(settings.warm_up + settings.steps):
        if number == settings.warm_up:
            clocks = Clocks(gpu and rank == 0 and not settings.no_clocks)
        step()
        if number >= settings.warm_up:
            mine["steps"].append(
                [
                    (one.name, clock.seconds(one.start), clock.seconds(one.end), one.host_start_s, one.host_end_s)
                    for one in watch.ran
                ]
            )
            mine.setdefault("memory", [(one.name, *one[-3:]) for one in watch.ran])
            mine.setdefault("at_rest_bytes", watch.at_rest)
            mine.setdefault("peak_bytes", watch.most_bytes)
    read = clocks.stop() if clocks else {}
    name = f"{run['model']}-{run['schedule']}-m{run['micro_batches']}{settings.suffix}"
    if run.get("trace"):
        activities = [torch.profiler.ProfilerActivity.CPU, *[torch.profiler.ProfilerActivity.CUDA] * gpu]
        with torch.profiler.profile(activities=activities) as profile:
            step()
            step()
        profile.export_chrome_trace(str(settings.output / f"{name}-rank{rank}.json.gz"))
    everyone: list[Any] = [None] * ranks
    dist.all_gather_object(everyone, mine)
    if rank == 0:
        write(name, run | {"sizes": model._asdict(), "clocks": read}, order, everyone, settings)


def write(name: str, run: dict[str, Any], order: Schedule, everyone: list[Any], settings: argparse.Namespace) -> None:
    """Write a run's timeline, memory and summary."""
    steps = [
        [list(rows_of(order, rank, one["steps"][number])) for rank, one in enumerate(everyone)]
        for number in range(settings.steps)
    ]
    origin_s = min(row[1] for rank in steps[0] for row in rank)
    with (settings.output / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("rank", "lane", "task", "start_s", "end_s", "host_start_s", "host_end_s"))
        for step in steps:
            for rank, rows in enumerate(step):
                for task, *seconds in rows:
                    lines.writerow((rank, "compute", task, *(f"{one - origin_s:.7f}" for one in seconds)))
    with (settings.output / f"{name}.memory.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("rank", "task", "before_bytes", "peak_bytes", "after_bytes"))
        lines.writerows((rank, *row) for rank, one in enumerate(everyone) for row in one["memory"])
    step_s = [max(r[2] for rank in step for r in rank) - min(r[1] for rank in step for r in rank) for step in steps]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    summary = {
        "name": name,
        **run,
        "ranks": len(everyone),
        "step_s": step_s,
        "at_rest_bytes": [one["at_rest_bytes"] for one in everyone],
        "peak_bytes": [one["peak_bytes"] for one in everyone],
        "eager_initialization": settings.eager,
        "device": f"{len(everyone)} x {device}",
        "torch": torch.__version__,
    }
    (settings.output / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(name, " ".join(f"{seconds:.4f}" for seconds in step_s), run["clocks"], flush=True)


def rows_of(order: Schedule, rank: int, ran: list[tuple[str, float, float, float, float]]) -> list[tuple[Any, ...]]:
    """Return what a rank did; an overlapped pair is one row, with its halves behind it."""
    rows: list[tuple[Any, ...]] = []
    waiting = list(ran)
    for task in order.order[rank]:
        halves = [waiting.pop(0) for _ in task.ops]
        if [half[0] for half in halves] != [str(op) for op in task.ops]:
            raise SystemExit(f"{order.name}: rank {rank} ran {[half[0] for half in halves]} where {task} is next")
        if len(halves) > 1:
            rows.append((str(task), halves[0][1], halves[-1][2], halves[0][3], halves[-1][4]))
        rows.extend(halves)
    return rows


def main() -> None:
    """Run all that the file lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="JSON: models and the list of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=5, help="to measure")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before")
    parser.add_argument("--eager", action="store_true", help="make the process group with a device id")
    parser.add_argument("--suffix", default="", help="at the end of every name")
    parser.add_argument("--only", default="", help="models to run, with commas between them; default: all")
    parser.add_argument("--no-clocks", action="store_true", help="do not read the GPUs' clocks and power meanwhile")
    parser.add_argument("--cores", type=int, default=0, help="keep each rank to so many cores of its own")
    settings = parser.parse_args()
    settings.output.mkdir(parents=True, exist_ok=True)
    keep_to(settings.cores)
    device = connect(eager=settings.eager)
    plan = json.loads(settings.runs.read_text(encoding="utf-8"))
    for run in plan["runs"]:
        if not settings.only or run["model"] in settings.only.split(","):
            perform(run, Model(**plan["models"][run["model"]]), settings, device)
            free()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
