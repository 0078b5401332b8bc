"""Train with pipeline schedules on the GPUs of one host, and write down when everything ran.

    torchrun --nproc-per-node 2 validation/run_gpu.py validation/runs_2_gpus.json -o out

A process a GPU runs each schedule's program, its ``compute_comms`` form, row by row. Work goes to the GPU as torch's
own pipeline runtime sends it: a send or receive is issued in order on one communication stream and waits for all
compute issued before it, an op waits for what it receives. Needs torch and dualpipe_sim (of it what needs numpy only).

The file of runs is a list of ``{"schedule": "zb-v", "micro_batches": 12, "layers": [3, 3, 3, 3]}``: a name (with
``"options"``) or the ``"file"`` of an exported order (with its ``"placement"``), and the layers of each stage of a
pipe.
Per run ``out`` holds ``<name>.csv`` (``rank,lane,task,start_s,end_s`` of every measured step, all ranks on one clock: a
transfer starts when both sides have reached it), ``<name>.memory.csv`` (bytes before, at most in and after each op of
the first measured step) and ``<name>.json`` (step times, memory by rank, sizes, versions).
Without GPUs it runs on gloo, for trying; times then are the host's.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.distributed as dist
from gpus import CpuClock, GpuClock, connect, free
from stages import Layer, Sizes, Stage, make_input

from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.runtimes.torch import format_program
from dualpipe_sim.schedules.registry import build

_OP = re.compile(r"(\d+)([FBIW])(\d+)", re.ASCII)
_MESSAGE = re.compile(r"(\d+)(SEND|RECV)_([FB])(\d+)", re.ASCII)


class Ran(NamedTuple):
    """An op, pair or message that was issued: its name and what marks its start and end."""

    name: str
    lane: str
    start: Any
    end: Any


# --- where work goes -----------------------------------------------------------------------------------------------


class OnGpu(GpuClock):
    """A compute and a communication stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.messages = torch.cuda.Stream(self.device)

    def issue(self, operation: Callable[..., Any], tensor: torch.Tensor, peer: int) -> tuple[Any, Any]:
        """Send or receive in order on the communication stream, after all compute issued so far."""
        before = self.mark()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self.messages):
            self.messages.wait_event(before)
            start.record()
            for work in dist.batch_isend_irecv([dist.P2POp(operation, tensor, peer)]):
                work.wait()
            end.record()
        return start, end

    def wait(self, end: torch.cuda.Event) -> None:
        """Let later compute wait for a message."""
        torch.cuda.current_stream().wait_event(end)

    @property
    def name(self) -> str:
        """What the device is."""
        return str(torch.cuda.get_device_name(self.device))


class OnCpu(CpuClock):
    """This thread computes, another one sends and receives in order."""

    name = "CPU"
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.messages = ThreadPoolExecutor(1)

    def issue(self, operation: Callable[..., Any], tensor: torch.Tensor, peer: int) -> tuple[Any, Any]:
        """Send or receive after all messages issued before."""

        def passes() -> tuple[float, float]:
            start_s = time.monotonic()
            operation(tensor, peer).wait()
            return start_s, time.monotonic()

        passing = self.messages.submit(passes)
        return (passing, 0), (passing, 1)

    def wait(self, end: tuple[Future[Any], int]) -> None:
        """Wait for a message."""
        end[0].result()

    def finish(self) -> None:
        """Wait until all messages are through."""
        self.messages.submit(int).result()

    def seconds(self, mark: float | tuple[Future[Any], int]) -> float:
        """Return when a mark was passed."""
        return float(mark[0].result()[mark[1]] if isinstance(mark, tuple) else mark)


# --- a schedule's program on one rank --------------------------------------------------------------------------------


@dataclass
class Program:
    """A rank's row and the stages that it runs; ``step`` issues all of it."""

    schedule: Schedule
    row: list[str]
    stages: dict[int, Stage]
    place: OnGpu | OnCpu
    sizes: Sizes
    inputs: dict[tuple[int, int], torch.Tensor]
    there: dict[tuple[str, int, int], torch.Tensor] = field(default_factory=dict)
    arriving: dict[tuple[str, int, int], tuple[int, Any, torch.Tensor]] = field(default_factory=dict)
    leaving: list[tuple[int, torch.Tensor]] = field(default_factory=list)
    ran: list[Ran] = field(default_factory=list)
    memory: list[tuple[str, int, int, int]] = field(default_factory=list)
    issued: int = 0

    def step(self) -> None:
        """Issue a whole training step, without waiting for it."""
        self.ran, self.memory, self.issued = [], [], 0
        for action in self.row:
            message = _MESSAGE.fullmatch(action)
            if message:
                self._message(action, message)
            elif _OP.search(action):
                self._compute(action)
        self.place.finish()
        self.leaving.clear()

    def _message(self, action: str, message: re.Match[str]) -> None:
        stage, direction, micro_batch = int(message[1]), message[3], int(message[4])
        step = 1 if direction == "F" else -1
        other = stage + (step if message[2] == "SEND" else -step)
        peer = int(self.schedule.placement.rank_of_stage[other])
        self.issued += 1
        if message[2] == "SEND":
            tensor = self.there.pop((direction, other, micro_batch))
            start, end = self.place.issue(dist.isend, tensor, peer)
            self.leaving.append((self.issued, tensor))
        else:
            tensor = torch.empty(self.sizes.shape, dtype=self.sizes.dtype, device=self.place.device)
            start, end = self.place.issue(dist.irecv, tensor, peer)
            self.arriving[direction, stage, micro_batch] = self.issued, end, tensor
        self.ran.append(Ran(action, message[2].lower(), start, end))

    def _compute(self, action: str) -> None:
        ops = [(int(stage), kind, int(micro_batch)) for stage, kind, micro_batch in _OP.findall(action)]
        for stage, kind, micro_batch in ops:
            self._receive("F" if kind == "F" else "B", stage, micro_batch)
        before, _ = self.place.memory()
        start = self.place.mark()
        for op in ops:
            self._run(*op)
        self.ran.append(Ran(action, "compute", start, self.place.mark()))
        after, most = self.place.memory()
        self.memory.append((action, before, most, after))

    def _receive(self, direction: str, stage: int, micro_batch: int) -> None:
        """Wait for a tensor if it comes from another rank. What was issued before it is through then, too."""
        key = direction, stage, micro_batch
        if key in self.arriving:
            number, end, tensor = self.arriving.pop(key)
            self.place.wait(end)
            self.there[key] = tensor
            self.leaving = [one for one in self.leaving if one[0] > number]

    def _run(self, stage: int, kind: str, micro_batch: int) -> None:
        placement = self.schedule.placement
        if kind == "W":
            self.stages[stage].backward_weight(micro_batch)
        elif kind == "F":
            x = (
                self.inputs[stage, micro_batch]
                if placement.is_first[stage]
                else self.there.pop(("F", stage, micro_batch))
            )
            output = self.stages[stage].forward(micro_batch, x)
            if not placement.is_last[stage]:
                self.there["F", stage + 1, micro_batch] = output
        else:
            gradient = self.there.pop(("B", stage, micro_batch), None)
            gradient = self.stages[stage].backward(micro_batch, gradient, put_off=kind == "I")
            if not placement.is_first[stage]:
                self.there["B", stage - 1, micro_batch] = gradient


# --- a run -----------------------------------------------------------------------------------------------------------


def read_schedule(run: dict[str, Any], ranks: int, folder: Path) -> tuple[Schedule, list[str]]:
    """Return a run's order and its program, a row a rank."""
    if "file" in run:
        text = (folder / run["file"]).read_text(encoding="utf-8")
        schedule = parse_order(text, run.get("placement", "explicit"), run["file"])
    else:
        schedule = build(run["schedule"], ranks, run["micro_batches"], **run.get("options", {}))
    return schedule, format_program(schedule).splitlines()


def name_of(run: dict[str, Any]) -> str:
    """Return what a run's files are called."""
    what = [run.get("schedule") or Path(run["file"]).stem]
    what += [f"{key[0]}{value}" for key, value in run.get("options", {}).items()]
    even = len(set(run["layers"])) == 1
    return "-".join([*what, f"m{run['micro_batches']}", "even" if even else "uneven"])


def perform(run: dict[str, Any], settings: argparse.Namespace, place: OnGpu | OnCpu) -> None:
    """Run a schedule several steps; rank 0 writes down what all ranks did."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    schedule, rows = read_schedule(run, ranks, settings.runs.parent)
    sizes = Sizes(settings.block, settings.tokens, settings.width, settings.dtype)
    stages = {
        stage: Stage(run["layers"], int(schedule.placement.depth_of_stage[stage]), sizes, place.device)
        for stage in schedule.placement.stages_of_rank(rank)
    }
    own = [cell.strip() for cell in rows[rank].split(",")]
    inputs = {
        (stage, micro_batch): make_input(sizes, pipe, micro_batch, place.device)
        for stage, pipe in zip(stages, schedule.placement.pipe_of_stage[list(stages)].tolist(), strict=True)
        if schedule.placement.is_first[stage]
        for micro_batch in range(schedule.micro_batches_of_pipe[pipe])
    }
    program = Program(schedule, own, stages, place, sizes, inputs)
    forget_gradients(stages)
    at_rest, _ = place.memory()
    mine: dict[str, Any] = {"steps": [], "at_rest_bytes": at_rest}
    for number in range(settings.warm_up + settings.steps):
        forget_gradients(stages)
        place.finish()
        place.start_clock()
        dist.barrier()
        program.step()
        if number >= settings.warm_up:
            at = place.seconds
            mine["steps"].append([(one.lane, one.name, at(one.start), at(one.end)) for one in program.ran])
            mine.setdefault("memory", program.memory)
    if settings.check:
        check_gradients(schedule, stages, run["layers"], sizes)
    everyone: list[Any] = [None] * ranks
    dist.all_gather_object(everyone, mine)
    if rank == 0:
        write(run, everyone, settings, place)


def forget_gradients(stages: dict[int, Stage]) -> None:
    """Begin a step with gradients of zero, which are there from the first on."""
    for stage in stages.values():
        for weight in stage.weights():
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad.zero_()


def check_gradients(schedule: Schedule, stages: dict[int, Stage], layers: list[int], sizes: Sizes) -> None:
    """Compare gradients with those of the same layers without a pipeline.

    Raises:
        SystemExit: they differ by more than rounding.

    """
    for stage, own in stages.items():
        pipe = int(schedule.placement.pipe_of_stage[stage])
        first = sum(layers[: int(schedule.placement.depth_of_stage[stage])])
        whole = [Layer(number, sizes, torch.device("cpu")) for number in range(sum(layers))]
        for micro_batch in range(schedule.micro_batches_of_pipe[pipe]):
            x = make_input(sizes, pipe, micro_batch, torch.device("cpu"))
            for layer in whole:
                x = layer.forward_plain(x)
            x.square().mean().backward()
        expected = [weight.grad for layer in whole[first : first + len(own.layers)] for weight in layer.weights]
        for weight, right in zip(own.weights(), expected, strict=True):
            error = float((weight.grad.detach() - right).abs().max() / right.abs().max())
            if error > 1e-9:
                raise SystemExit(f"{schedule.name}: stage {stage}: gradients are off by {error:.1e} of the largest")


def write(run: dict[str, Any], everyone: list[Any], settings: argparse.Namespace, place: OnGpu | OnCpu) -> None:
    """Write a run's timeline, memory and summary."""
    name = name_of(run)
    steps = [list(step_rows([one["steps"][number] for one in everyone])) for number in range(settings.steps)]
    origin_s = min(row[3] for row in steps[0])
    with (settings.output / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("rank", "lane", "task", "start_s", "end_s"))
        for rank, lane, task, start_s, end_s in (row for step in steps for row in sorted(step)):
            lines.writerow((rank, lane, task, f"{start_s - origin_s:.7f}", f"{end_s - origin_s:.7f}"))
    with (settings.output / f"{name}.memory.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(("rank", "task", "before_bytes", "peak_bytes", "after_bytes"))
        lines.writerows((rank, *row) for rank, one in enumerate(everyone) for row in one["memory"])
    computed = [[row for row in step if row[1] == "compute"] for step in steps]
    step_s = [max(row[4] for row in step) - min(row[3] for row in step) for step in computed]
    summary = {
        "name": name,
        **run,
        "ranks": len(everyone),
        "step_s": step_s,
        "at_rest_bytes": [one["at_rest_bytes"] for one in everyone],
        "peak_bytes": [max(row[2] for row in one["memory"]) for one in everyone],
        "block": settings.block,
        "tokens": settings.tokens,
        "width": settings.width,
        "device": f"{len(everyone)} x {place.name}",
        "torch": torch.__version__,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if isinstance(place, OnGpu) else None,
    }
    (settings.output / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(name, " ".join(f"{seconds:.4f}" for seconds in step_s), flush=True)


def step_rows(ranks: list[list[tuple[str, str, float, float]]]) -> Iterator[tuple[int, str, str, float, float]]:
    """Yield what all ranks did in a step; a message begins when its sender and its receiver have both reached it."""
    began_s: dict[tuple[str, int, str], float] = {}
    for ran in ranks:
        for lane, name, start_s, _ in ran:
            if lane != "compute":
                began_s[tensor_of(name)] = max(start_s, began_s.get(tensor_of(name), start_s))
    for rank, ran in enumerate(ranks):
        for lane, name, start_s, end_s in ran:
            # clocks of two GPUs agree to some microseconds only
            begin_s = start_s if lane == "compute" else min(began_s[tensor_of(name)], end_s)
            yield rank, lane, name, begin_s, end_s


def tensor_of(message: str) -> tuple[str, int, str]:
    """Return what is the same in a tensor's send and its receive: the direction, its consumer, the micro-batch."""
    ((stage, way, direction, micro_batch),) = _MESSAGE.findall(message)
    return direction, int(stage) + {"RECV": 0, "SEND": 1 if direction == "F" else -1}[way], micro_batch


def main() -> None:
    """Run all that the file lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="JSON: the list of runs")
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    parser.add_argument("--block", choices=("mlp", "transformer"), default="mlp")
    parser.add_argument("--tokens", type=int, default=7168, help="of a micro-batch")
    parser.add_argument("--width", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=3, help="to measure")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before")
    parser.add_argument("--check", action="store_true", help="compare gradients with those without a pipeline")
    settings = parser.parse_args()
    settings.output.mkdir(parents=True, exist_ok=True)
    device = connect(eager=True)
    gpu = device.type == "cuda"
    settings.dtype = torch.bfloat16 if gpu else torch.float64
    place = OnGpu(device) if gpu else OnCpu()
    if not gpu:
        torch.set_num_threads(1)
    for run in json.loads(settings.runs.read_text(encoding="utf-8")):
        perform(run, settings, place)
        free()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
