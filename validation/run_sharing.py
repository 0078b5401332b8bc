"""Measure on the GPUs of one host how all-to-alls and compute share them, and write it down.

    torchrun --nproc-per-node 2 validation/run_sharing.py -o out

``out/sharing.json`` holds, beside versions and clocks:

``alltoall``  NCCL's all-to-all alone, by bytes that a GPU hands in, its own share included.
``beside``    a GEMM and an all-to-all, each alone and each while the other goes on, by channels of the communicator (a
              channel is a block, on an SM of its own) and by the GEMM's size: an all-to-all starts when kernels end.
``pairs``     a forward of one MoE layer and a backward of another on two streams, in DualPipe's order: every phase
              alone, when each ran in the pair's compute without all-to-alls, and when in the pair. Phases are the GEMMs
              of a layer's projections and experts; attention's own kernels and what is elementwise are left out, as
              they share SMs in the same way.

Times are seconds on the GPU's clock, between events on the stream that does the work; lists are one entry a repeat, of
rank 0. Without GPUs it runs on gloo, for trying, with tiny sizes and nothing beside anything.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from gpus import Clocks, clock_of, connect
from torch import Tensor

Work = Callable[[], object]

CHANNELS = (None, 4, 8, 16, 32)  # None: as many as NCCL takes
GEMMS = ((1024, 4096, 4096), (4096, 4096, 4096), (8192, 8192, 8192))  # rows, columns, depth: 0.05, 0.2 and 1.6 ms
BYTES = tuple(1 << power for power in range(16, 30))
EXPERTS = 8  # of a GPU


class Sizes(NamedTuple):
    """An MoE layer as a GPU of two sees it."""

    tokens: int
    hidden: int
    ffn: int
    top_k: int


LAYERS = {
    "deepseek-v3": Sizes(4096, 7168, 2048, 8),
    "mixtral-8x7b": Sizes(8192, 4096, 14336, 2),
    "small": Sizes(8192, 2048, 1408, 6),
}

LANES = {
    "messages": ("combine I", "dispatch F", "dispatch I", "combine F"),
    "compute": ("attn F", "mlp I", "mlp W", "mlp F", "attn I", "attn W"),
}
"""A pair's phases in order; https://github.com/deepseek-ai/profile-data shows this order."""

NEEDS = {
    "dispatch F": "attn F",
    "mlp F": "dispatch F",
    "combine F": "mlp F",
    "mlp I": "combine I",
    "dispatch I": "mlp I",
    "attn I": "dispatch I",
}
"""What each phase waits for on the other stream."""


class Machine:
    """A GPU with a stream for compute and one for messages; or a CPU, which has neither."""

    def __init__(self) -> None:
        self.device = connect()
        self.gpu = self.device.type == "cuda"
        clock = clock_of(self.device)
        self.mark, self.between_s, self.finish = clock.mark, clock.between_s, clock.finish
        self.streams = {lane: torch.cuda.Stream() if self.gpu else None for lane in ("compute", "messages")}

    def on(self, lane: str) -> contextlib.AbstractContextManager[object]:
        """Issue to a lane's stream."""
        return torch.cuda.stream(self.streams[lane]) if self.gpu else contextlib.nullcontext()

    def wait(self, mark: Any) -> None:
        """Let the current stream wait for a mark of the other."""
        if self.gpu:
            mark.wait()

    def together(self) -> None:
        """Wait until all GPUs are idle."""
        self.finish()
        dist.barrier()
        self.finish()

    def group(self, channels: int | None) -> Any:
        """Return a communicator with so many channels."""
        if not self.gpu or channels is None:
            return dist.new_group()
        options = dist.ProcessGroupNCCL.Options()
        options.config.min_ctas = options.config.max_ctas = channels
        return dist.new_group(backend="nccl", pg_options=options)

    def values(self, *shape: int) -> Tensor:
        """Return random values of a shape."""
        return torch.randn(shape, device=self.device).to(torch.bfloat16 if self.gpu else torch.float32)


# --- one work, alone and beside another ------------------------------------------------------------------------------


def alone_s(machine: Machine, lane: str, work: Work, repeats: int) -> list[float]:
    """Return the seconds of a work, several times in a row with nothing beside it."""
    machine.together()
    with machine.on(lane):
        for _ in range(3):
            work()
        marks = [machine.mark()]
        for _ in range(repeats):
            work()
            marks.append(machine.mark())
    machine.together()
    return [machine.between_s(*both) for both in itertools.pairwise(marks)]


def beside_s(machine: Machine, lane: str, work: Work, other: Work, others: int, repeats: int) -> dict[str, Any]:
    """Return the seconds of a work while the other lane does another so often, and whether that outlasted it."""
    other_lane = "messages" if lane == "compute" else "compute"
    machine.together()
    with machine.on(other_lane):
        began = machine.mark()
        for _ in range(others):
            other()
        ended = machine.mark()
    with machine.on(lane):
        machine.wait(began)
        marks = [machine.mark()]
        for _ in range(repeats):
            work()
            marks.append(machine.mark())
    machine.together()
    covered = machine.between_s(marks[-1], ended) > 0
    return {"s": [machine.between_s(*both) for both in itertools.pairwise(marks)], "covered": covered}


def alltoall(machine: Machine, size_bytes: int, group: Any) -> Work:
    """Return an all-to-all of values that fill so many bytes on each GPU."""
    count = size_bytes // (2 if machine.gpu else 4)
    given, taken = machine.values(count), machine.values(count)
    return lambda: dist.all_to_all_single(taken, given, group=group)


def gemm(machine: Machine, rows: int, columns: int, depth: int) -> Work:
    """Return a matrix product."""
    left, right = machine.values(rows, depth), machine.values(depth, columns)
    result = machine.values(rows, columns)
    return lambda: torch.mm(left, right, out=result)


def agreed(machine: Machine, number: float) -> int:
    """Return rank 0's number, rounded up: what all ranks repeat must be the same on all."""
    value = torch.tensor([math.ceil(number)], device=machine.device)
    dist.broadcast(value, 0)
    return int(value.item())


# --- what is measured ------------------------------------------------------------------------------------------------


def measure_alltoall(machine: Machine, sizes: tuple[int, ...], repeats: int) -> Iterator[dict[str, Any]]:
    """Yield the seconds of all-to-alls by bytes."""
    group = machine.group(None)
    for size in sizes:
        yield {"bytes": size, "s": alone_s(machine, "messages", alltoall(machine, size, group), repeats)}


def measure_beside(
    machine: Machine, gemms: tuple[tuple[int, ...], ...], size_bytes: int, repeats: int
) -> Iterator[dict[str, Any]]:
    """Yield a GEMM and an all-to-all alone and beside each other, by channels."""
    for channels in CHANNELS if machine.gpu else CHANNELS[:1]:
        exchange = alltoall(machine, size_bytes, machine.group(channels))
        exchange_s = alone_s(machine, "messages", exchange, repeats)
        for shape in gemms:
            product = gemm(machine, *shape)
            product_s = alone_s(machine, "compute", product, repeats)
            # As much beside it as five times its own length would take alone: it may become that much slower.
            ratio = statistics.median(product_s) / statistics.median(exchange_s)
            exchanges, products = agreed(machine, 5 * repeats * ratio), agreed(machine, 8 * repeats / ratio)
            yield {
                "channels": channels,
                "gemm": shape,
                "bytes": size_bytes,
                "gemm_alone_s": product_s,
                "alltoall_alone_s": exchange_s,
                "gemm_beside": beside_s(machine, "compute", product, exchange, exchanges, repeats),
                "alltoall_beside": beside_s(machine, "messages", exchange, product, products, repeats),
            }


def phases_of(machine: Machine, layer: Sizes, group: Any) -> dict[str, Work]:
    """Return the phases of a layer's forward and backward."""
    tokens, hidden, ffn, top_k = layer
    rows = tokens * top_k // EXPERTS
    x, y = machine.values(tokens, hidden), machine.values(tokens, hidden)
    square = machine.values(hidden, hidden)
    inner, outer = machine.values(EXPERTS, rows, hidden), machine.values(EXPERTS, rows, ffn)
    up, down = machine.values(EXPERTS, hidden, ffn), machine.values(EXPERTS, ffn, hidden)
    exchange = alltoall(machine, tokens * top_k * hidden * (2 if machine.gpu else 4), group)

    def attention_gradients() -> None:
        for _ in range(4):
            torch.mm(x.T, y)

    def attention() -> None:  # a backward for the input has GEMMs of the same sizes
        for _ in range(4):
            torch.mm(x, square)

    def experts() -> None:
        torch.bmm(inner, up)
        torch.bmm(inner, up)
        torch.bmm(outer, down)

    def expert_gradients() -> None:
        for _ in range(3):
            torch.bmm(inner.transpose(1, 2), outer)

    compute = {"attn F": attention, "attn I": attention, "attn W": attention_gradients}
    compute |= {"mlp F": experts, "mlp I": experts, "mlp W": expert_gradients}
    return compute | dict.fromkeys(LANES["messages"], exchange)


def run_pair(machine: Machine, phases: dict[str, Work]) -> tuple[float, list[tuple[str, float, float]]]:
    """Run a pair once, or those of its phases that are given; return its seconds, and each phase's start and end."""
    machine.together()
    marks: dict[str, tuple[Any, Any]] = {}
    with machine.on("compute"):
        began = machine.mark()
    with machine.on("messages"):
        machine.wait(began)
    lanes = {lane: [name for name in names if name in phases] for lane, names in LANES.items()}
    needs = {name: need for name, need in NEEDS.items() if need in phases}
    while any(lanes.values()):  # a phase is issued once what it needs is: only then there is a mark to wait for
        for lane, left in lanes.items():
            while left and (needs.get(left[0]) is None or needs[left[0]] in marks):
                name = left.pop(0)
                with machine.on(lane):
                    if name in needs:
                        machine.wait(marks[needs[name]][1])
                    start = machine.mark()
                    phases[name]()
                    marks[name] = start, machine.mark()
    machine.together()
    ran = [(name, *(machine.between_s(began, mark) for mark in both)) for name, both in marks.items()]
    return max(end for _, _, end in ran), ran


def measure_pairs(machine: Machine, layers: dict[str, Sizes], repeats: int) -> Iterator[dict[str, Any]]:
    """Yield pairs of layers: every phase alone, and what ran when in the pair."""
    for name, layer in layers.items():
        for channels in (None, 16) if machine.gpu else (None,):
            phases = phases_of(machine, layer, machine.group(channels))
            alone = {
                phase: alone_s(machine, lane, phases[phase], repeats)
                for lane, names in LANES.items()
                for phase in names
            }
            compute = {phase: phases[phase] for phase in LANES["compute"]}
            compute_only = [run_pair(machine, compute) for _ in range(repeats + 2)][2:]
            pairs = [run_pair(machine, phases) for _ in range(repeats + 2)][2:]
            yield {
                "layer": name,
                **layer._asdict(),
                "channels": channels,
                "alone_s": alone,
                "compute_only_s": [seconds for seconds, _ in compute_only],
                "compute_only": [ran for _, ran in compute_only],
                "pair_s": [seconds for seconds, _ in pairs],
                "phases": [ran for _, ran in pairs],
            }


def main() -> None:
    """Measure all and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("out"))
    parser.add_argument("--repeats", type=int, default=12)
    settings = parser.parse_args()
    machine = Machine()
    small = {"tiny": Sizes(64, 32, 16, 2)}
    found: dict[str, Any] = {
        "device": f"{dist.get_world_size()} x {torch.cuda.get_device_name() if machine.gpu else 'CPU'}",
        "torch": torch.__version__,
        "nccl": list(torch.cuda.nccl.version()) if machine.gpu else None,
        "clocks": {},
    }
    sections = {
        "alltoall": measure_alltoall(machine, BYTES if machine.gpu else BYTES[:2], settings.repeats),
        "beside": measure_beside(machine, GEMMS if machine.gpu else ((64, 64, 64),), BYTES[-3], settings.repeats),
        "pairs": measure_pairs(machine, LAYERS if machine.gpu else small, settings.repeats),
    }
    for name, rows in sections.items():
        found[name] = []
        clocks = Clocks(machine.gpu and dist.get_rank() == 0)
        for row in rows:
            found[name].append(row)
            if dist.get_rank() == 0:
                print(name, json.dumps({key: brief(value) for key, value in row.items()}), flush=True)
                write(found, settings.output)
        found["clocks"][name] = clocks.stop()
    if dist.get_rank() == 0:
        write(found, settings.output)
    dist.destroy_process_group()


def write(found: dict[str, Any], folder: Path) -> None:
    """Write down what was found so far."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sharing.json").write_text(json.dumps(found) + "\n", encoding="utf-8")


def brief(value: Any) -> Any:
    """Return what a line shows of a value: medians of repeats."""
    if isinstance(value, dict):
        return {key: brief(one) for key, one in value.items()}
    if isinstance(value, list):
        return round(statistics.median(value), 7) if value and isinstance(value[0], float) else len(value)
    return value


if __name__ == "__main__":
    main()
