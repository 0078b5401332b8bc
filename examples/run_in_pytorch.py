"""Run schedules of dualpipe-sim for real, in PyTorch, on processes of this machine's CPU.

    pip install 'dualpipe-sim[torch]'
    python examples/run_in_pytorch.py 1f1b dualpipev dualpipe --ranks 4 --micro-batches 8 --op-ms 20 -o runs

A schedule is exported with its sends and receives (torch's ``compute_comms`` CSV) and run by torch's own
``_PipelineScheduleRuntime``, a process a rank, over gloo. The model is a row of layers, one a stage, whose forward,
backward for the input and backward for the weights each take ``--op-ms``. Its gradients are compared with those of the
same model without any pipeline. Under ``-o`` are then, for each schedule:

- ``<schedule>.csv``: what was run;
- ``<schedule>.timeline.csv``: what ran when, as ``rank,lane,task,start_s,end_s`` on one clock;
- with ``--profile``, ``<schedule>.rank<r>.json``: torch.profiler's traces, with a range ``PP:0F7`` around each action.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing
from pytorch_stages import Log, Runtime, Stage
from torch import Tensor, nn

from dualpipe_sim import UserError, build
from dualpipe_sim.base.files import written_whole
from dualpipe_sim.order.placement import Placement
from dualpipe_sim.runtimes.torch import format_program

WIDTH, SAMPLES = 16, 2  # a micro-batch between two stages is SAMPLES x WIDTH numbers
DTYPE = torch.float64
WORST_ERROR = 1e-9  # of a gradient, relative to the largest: far above rounding, far below a wrong micro-batch
LEAST_WAIT_S = 1e-4  # a receive that waited longer saw its tensor arrive; a shorter one found it there


class Step(NamedTuple):
    """What to run: a schedule whose order is in ``<name>.csv``, and where its stages are."""

    name: str
    placement: Placement
    micro_batches_of_pipe: int


class Settings(NamedTuple):
    """What is the same for all steps."""

    op_s: float
    steps: int
    output: Path
    profile: bool


# --- the model -----------------------------------------------------------------------------------------------------


class DeferredLinear(torch.autograd.Function):
    """``x @ weight.T`` whose backward gives the gradient of x, and leaves that of the weight for later."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: Layer) -> Tensor:
        """Take as long as an op takes."""
        time.sleep(layer.op_s)
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Take as long as an op takes."""
        time.sleep(ctx.layer.op_s)
        x, weight = ctx.saved_tensors
        ctx.layer.put_off.append((x.detach(), gradient.detach()))
        return gradient @ weight, None, None


class Layer(nn.Module):
    """A linear map and a tanh. A share of the model begins with the same weights on whatever rank it is."""

    def __init__(self, share: int, op_s: float) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(share)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, dtype=DTYPE, generator=numbers) / WIDTH**0.5)
        self.op_s = op_s
        self.put_off: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        """Return what goes to the next stage."""
        return torch.tanh(DeferredLinear.apply(x, self.weight, self))

    def backward_weight(self) -> Callable[..., None]:
        """Return what the backward just done put off; torch runs it at once in a B, later in a W."""
        x, gradient = self.put_off.pop()

        def add_gradient() -> None:
            time.sleep(self.op_s)
            self.weight.grad = gradient.T @ x + (0.0 if self.weight.grad is None else self.weight.grad)

        return add_gradient


def batch(micro_batches: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of all micro-batches."""
    numbers = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(2, micro_batches * SAMPLES, WIDTH, dtype=DTYPE, generator=numbers)
    return inputs, targets


def gradients_without_pipeline(shares: int, micro_batches: int) -> list[Tensor]:
    """Return the gradient of each share's weight by plain autograd, all micro-batches at once."""
    x, targets = batch(micro_batches)
    weights = [Layer(share, 0.0).weight for share in range(shares)]
    for weight in weights:
        x = torch.tanh(x @ weight.T)
    return list(torch.autograd.grad(nn.functional.mse_loss(x, targets), weights))


# --- a rank's process ----------------------------------------------------------------------------------------------


def run_rank(rank: int, ranks: int, meeting_point: str, steps: list[Step], settings: Settings) -> None:
    """Run all steps as one of the ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting_point, rank=rank, world_size=ranks)
    try:
        for step in steps:
            run_step(rank, step, settings)
    finally:
        dist.destroy_process_group()


def run_step(rank: int, step: Step, settings: Settings) -> None:
    """Run a schedule, check its gradients, and let rank 0 write down and tell how it went."""
    stages = [make_stage(stage, step.placement, settings.op_s) for stage in step.placement.stages_of_rank(rank)]
    runtime = Runtime(stages, step.micro_batches_of_pipe, nn.functional.mse_loss, settings.output / f"{step.name}.csv")
    inputs, targets = inputs_and_targets(stages, step)
    logs = []
    with profiled(settings, settings.output / f"{step.name}.rank{rank}.json") as step_is_done:
        for number in range(settings.steps + 1):  # the first one connects the ranks
            dist.barrier()
            logs.append(runtime.start_log())
            runtime.step(*inputs, target=targets)
            step_is_done()
            if number < settings.steps:
                forget_gradients(stages)
    error = worst_error(stages, step)
    all_logs: list[Any] | None = [None] * dist.get_world_size() if rank == 0 else None
    dist.gather_object(logs[1:], all_logs)
    if all_logs is not None:
        length_s = write_timeline(settings.output / f"{step.name}.timeline.csv", all_logs, step)
        print(f"{step.name}: {length_s:.3f} s, gradients are off by {error:.1e} of the largest", flush=True)
    if error > WORST_ERROR:
        if rank == 0:
            print(f"{step.name}: gradients differ from those without a pipeline by {error:.1e}", file=sys.stderr)
        dist.barrier()
        sys.exit(1)


def make_stage(stage: int, placement: Placement, op_s: float) -> Stage:
    """Return a stage with its share of the model."""
    layer = Layer(int(placement.depth_of_stage[stage]), op_s)
    return Stage(layer, stage, placement, torch.zeros(SAMPLES, WIDTH, dtype=DTYPE), layer.backward_weight)


def inputs_and_targets(stages: list[Stage], step: Step) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return the inputs of the pipe that begins on this rank, and the targets of the one that ends here."""
    pipes = len(step.placement.pipes)
    pipe_of_stage = step.placement.pipe_of_stage.tolist()
    begins = [pipe_of_stage[stage.stage_index] for stage in stages if stage.is_first]
    ends = [pipe_of_stage[stage.stage_index] for stage in stages if stage.is_last]
    inputs, targets = (part.chunk(pipes) for part in batch(pipes * step.micro_batches_of_pipe))
    return tuple(inputs[pipe] for pipe in begins), targets[ends[0]] if ends else None


def forget_gradients(stages: list[Stage]) -> None:
    """Begin the next step from nothing."""
    for stage in stages:
        stage.submod.weight.grad = None


def worst_error(stages: list[Stage], step: Step) -> float:
    """Return how far any gradient of any rank is off, relative to the largest of its weight.

    Torch divides by the micro-batches of a pipe, so what the copies of a weight in several pipes found is averaged.
    """
    pipes = step.placement.pipes
    share_of_stage = step.placement.depth_of_stage.tolist()
    expected_gradients = gradients_without_pipeline(len(pipes[0]), len(pipes) * step.micro_batches_of_pipe)
    error = torch.zeros(1, dtype=DTYPE)
    for share, expected in enumerate(expected_gradients):
        own = [stage.submod.weight.grad for stage in stages if share_of_stage[stage.stage_index] == share]
        gradient = torch.stack([torch.zeros_like(expected), *own]).sum(dim=0)
        dist.all_reduce(gradient)
        error = torch.maximum(error, (gradient / len(pipes) - expected).abs().max() / expected.abs().max())
    dist.all_reduce(error, dist.ReduceOp.MAX)
    return float(error)


@contextlib.contextmanager
def profiled(settings: Settings, path: Path) -> Iterator[Callable[[], None]]:
    """Give a function to call after each step: it tells torch's profiler, which leaves out the one for warming up."""
    if not settings.profile:
        yield lambda: None
        return
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        schedule=torch.profiler.schedule(wait=0, warmup=1, active=settings.steps, repeat=1),
        on_trace_ready=lambda profile: profile.export_chrome_trace(str(path)),
    ) as profile:
        yield profile.step


def write_timeline(path: Path, logs: list[list[Log]], step: Step) -> float:
    """Write what all ranks did, and return the seconds of the first measured step."""
    origin_s = min(log[0].computed[0][1] for log in logs)
    rows = [
        (rank, "compute", action, start, end)
        for rank, of_rank in enumerate(logs)
        for log in of_rank
        for action, start, end in log.computed
    ]
    for number in range(len(logs[0])):
        rows += transfers([of_rank[number] for of_rank in logs], step.placement)
    with written_whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("rank", "lane", "task", "start_s", "end_s"))
        for rank, lane, action, start, end in sorted(rows, key=lambda row: (row[0], row[1], row[3])):
            writer.writerow((rank, lane, action, f"{start - origin_s:.6f}", f"{end - origin_s:.6f}"))
    return max(log[0].computed[-1][2] for log in logs) - origin_s


def transfers(logs: list[Log], placement: Placement) -> Iterator[tuple[int, str, str, float, float]]:
    """Yield the transfers that a receiver waited for and so saw arrive; when the others came, nobody knows."""
    for rank, log in enumerate(logs):
        for received, (wait_s, there_s) in log.waited_s.items():
            stage, rest = received.split("RECV_")
            sender = int(stage) + (-1 if rest[0] == "F" else 1)
            sent, source = f"{sender}SEND_{rest}", int(placement.rank_of_stage[sender])
            if there_s - wait_s > LEAST_WAIT_S:
                yield source, "send", sent, logs[source].sent_s[sent], there_s
                yield rank, "recv", received, logs[source].sent_s[sent], there_s


# --- the command line ----------------------------------------------------------------------------------------------


def main() -> None:
    """Run the schedules that the command line names."""
    options = arguments()
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    settings = Settings(options.op_ms / 1000, options.steps, output, options.profile)
    try:
        steps = [export(name, options.ranks, options.micro_batches, output) for name in options.schedules]
    except UserError as error:
        sys.exit(f"run_in_pytorch.py: {error}")
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the processes are all here, whatever the network is
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = (Path(folder) / "ranks").as_uri()
        arguments_of_rank = (options.ranks, meeting_point, steps, settings)
        try:
            torch.multiprocessing.spawn(run_rank, arguments_of_rank, nprocs=options.ranks)
        except torch.multiprocessing.ProcessExitedException:
            sys.exit(1)  # the process has said why


def export(name: str, ranks: int, micro_batches: int, output: Path) -> Step:
    """Write a schedule down as torch reads it."""
    schedule = build(name, ranks, micro_batches)
    with written_whole(output / f"{name}.csv") as part:
        part.write_text(format_program(schedule), encoding="utf-8")
    return Step(name, schedule.placement, schedule.micro_batches_of_pipe[0])


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description="Run schedules of dualpipe-sim in PyTorch, on CPU processes.")
    parser.add_argument("schedules", nargs="+", metavar="SCHEDULE", help="names; see dualpipe-sim schedules")
    parser.add_argument("--ranks", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--micro-batches", type=int, default=4, help="of a step, all pipes together (default: 4)")
    parser.add_argument("--op-ms", type=float, default=20.0, help="what F, I and W of a stage take (default: 20 ms)")
    parser.add_argument("--steps", type=int, default=1, help="steps to measure, after one to warm up (default: 1)")
    parser.add_argument("--profile", action="store_true", help="write torch.profiler's traces too")
    parser.add_argument("-o", "--output", default="runs", metavar="FOLDER", help="where to write (default: runs)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
