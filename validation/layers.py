"""Time layers and whole collectives on the GPUs of one host, and say which kernels they were.

    python validation/layers.py -o out
    torchrun --nproc-per-node 2 validation/layers.py -o out   # tensor and expert parallelism of 2, and NCCL

A layer is RMSNorm, one map to queries, keys and values, causal attention (cuDNN), output map, residual; RMSNorm, one
map up (and to the gate), activation, map down, residual; without biases, rotary embedding or dropout, in BF16. With
experts: a router whose softmax is in FP32, balanced tokens, gathered in the order of experts, grouped GEMMs, gathered
back, summed with their weights. Four layers in a row run forward, then backward; ``layers.csv`` has the time of one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

DEPTH = 4


class Sizes(NamedTuple):
    """What a layer is."""

    name: str
    hidden: int
    heads: int
    kv_heads: int
    head: int
    ffn: int
    activation: str = "swiglu"
    experts: int = 0
    active: int = 0


SIZES = [
    Sizes("llama3-8b", 4096, 32, 8, 128, 14336),
    Sizes("llama3-70b", 8192, 64, 8, 128, 28672),
    Sizes("llama-1b", 2048, 32, 8, 64, 8192),
    Sizes("qwen3-4b", 2560, 32, 8, 128, 9728),
    Sizes("qwen3-32b", 5120, 64, 8, 128, 25600),
    Sizes("gpt-6.7b", 4096, 32, 32, 128, 16384, "gelu"),
    Sizes("gpt-1.5b", 1600, 25, 25, 64, 6400, "gelu"),
    Sizes("qwen3-30b-a3b", 2048, 32, 4, 128, 768, experts=128, active=8),
    Sizes("mixtral-8x7b", 4096, 32, 8, 128, 14336, experts=8, active=2),
    Sizes("deepseek-moe-16b", 2048, 16, 16, 128, 1408, experts=64, active=6),
]
BATCHES = {"llama3-8b": ((4096, 1), (8192, 1), (4096, 4)), "qwen3-30b-a3b": ((4096, 1), (4096, 4))}


class Gather(torch.autograd.Function):
    """All-gather of tokens; backward a reduce-scatter."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        """Gather."""
        made = x.new_empty(x.shape[0] * dist.get_world_size(), *x.shape[1:])
        dist.all_gather_into_tensor(made, x.contiguous())
        return made

    @staticmethod
    def backward(_: Any, up: Tensor) -> Tensor:
        """Scatter sums."""
        made = up.new_empty(up.shape[0] // dist.get_world_size(), *up.shape[1:])
        dist.reduce_scatter_tensor(made, up.contiguous())
        return made


class Scatter(torch.autograd.Function):
    """Reduce-scatter of tokens; backward an all-gather."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        """Scatter sums."""
        return Gather.backward(_, x)

    @staticmethod
    def backward(_: Any, up: Tensor) -> Tensor:
        """Gather."""
        return Gather.forward(_, up)


class Exchange(torch.autograd.Function):
    """All-to-all of equal shares, which is its own backward."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        """Exchange."""
        made = torch.empty_like(x)
        dist.all_to_all_single(made, x.contiguous())
        return made

    backward = forward


class Layer(nn.Module):
    """One layer, or one GPU's share of it."""

    def __init__(self, sizes: Sizes, tensor: int, expert: int) -> None:
        super().__init__()
        self.sizes, self.tensor, self.expert = sizes, tensor, expert
        self.heads, self.kv = sizes.heads // tensor, sizes.kv_heads // tensor
        self.first, self.second = nn.RMSNorm(sizes.hidden), nn.RMSNorm(sizes.hidden)
        self.qkv = nn.Linear(sizes.hidden, (self.heads + 2 * self.kv) * sizes.head, bias=False)
        self.out = nn.Linear(self.heads * sizes.head, sizes.hidden, bias=False)
        gates = 2 if sizes.activation == "swiglu" else 1
        if sizes.experts:
            here = sizes.experts // expert
            self.router = nn.Linear(sizes.hidden, sizes.experts, bias=False)
            self.up_weights = nn.Parameter(torch.randn(here, sizes.hidden, gates * sizes.ffn) * 0.02)
            self.down_weights = nn.Parameter(torch.randn(here, sizes.ffn, sizes.hidden) * 0.02)
        else:
            self.up = nn.Linear(sizes.hidden, gates * sizes.ffn // tensor, bias=False)
            self.down = nn.Linear(sizes.ffn // tensor, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of (batch, length, hidden), with tensor parallelism of its share of tokens."""
        x = x + self._attend(self.first(x))
        return x + (self._route(self.second(x)) if self.sizes.experts else self._feed(self.second(x)))

    def _act(self, x: Tensor) -> Tensor:
        if self.sizes.activation == "gelu":
            return functional.gelu(x)
        gate, up = x.chunk(2, -1)
        return functional.silu(gate) * up

    def _feed(self, x: Tensor) -> Tensor:
        if self.tensor == 1:
            return self.down(self._act(self.up(x)))
        made: Tensor = Scatter.apply(self.down(self._act(self.up(Gather.apply(x)))))
        return made

    def _attend(self, x: Tensor) -> Tensor:
        if self.tensor > 1:
            x = Gather.apply(x)
        shape = x.shape  # (length, batch, hidden): tokens first, so that shares of them are whole
        q, k, v = self.qkv(x).view(*shape[:2], -1, self.sizes.head).split([self.heads, self.kv, self.kv], 2)
        q, k, v = (one.permute(1, 2, 0, 3) for one in (q, k, v))
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            made = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv < self.heads)
        made = self.out(made.permute(2, 0, 1, 3).reshape(*shape[:2], -1))
        return Scatter.apply(made) if self.tensor > 1 else made

    def _route(self, x: Tensor) -> Tensor:
        sizes, shape = self.sizes, x.shape
        x = x.reshape(-1, sizes.hidden)
        scores = functional.softmax(self.router(x).float(), -1)
        _, _ = scores.topk(sizes.active, -1)
        tokens = x.shape[0]
        chosen = (torch.arange(tokens * sizes.active, device=x.device) % sizes.experts).view(tokens, sizes.active)
        weights = scores.gather(1, chosen)
        order = chosen.flatten().argsort(stable=True)
        rows = x[order // sizes.active]
        here = sizes.experts // self.expert
        each = rows.shape[0] // sizes.experts
        if self.expert > 1:
            rows = Exchange.apply(rows)  # [from GPU, expert here, tokens]
            rows = rows.view(self.expert, here, each, -1).transpose(0, 1).reshape(-1, sizes.hidden)
        ends = torch.arange(1, here + 1, device=x.device, dtype=torch.int32) * (rows.shape[0] // here)
        rows = torch._grouped_mm(
            self._act(torch._grouped_mm(rows, self.up_weights, offs=ends)), self.down_weights, offs=ends
        )
        if self.expert > 1:
            rows = rows.view(here, self.expert, each, -1).transpose(0, 1).reshape(-1, sizes.hidden)
            rows = Exchange.apply(rows)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.numel(), device=x.device)
        made = rows[back].view(tokens, sizes.active, sizes.hidden)
        return (made * weights.to(made.dtype)[..., None]).sum(1).view(shape)


def timed(layers: list[nn.Module], x: Tensor) -> tuple[float, float, float]:
    """Return the seconds of a layer's forward and backward, and the bytes that it keeps."""
    forward, backward, kept = [], [], 0
    for _ in range(14):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(3)]
        before = torch.cuda.memory_allocated()
        marks[0].record()
        made = x
        for layer in layers:
            made = layer(made)
        marks[1].record()
        kept = torch.cuda.memory_allocated() - before
        made.backward(x.detach())
        marks[2].record()
        torch.cuda.synchronize()
        for layer in layers:
            layer.zero_grad(set_to_none=True)
        x.grad = None
        forward.append(marks[0].elapsed_time(marks[1]))
        backward.append(marks[1].elapsed_time(marks[2]))
    return median(forward[4:]) / DEPTH * 1e-3, median(backward[4:]) / DEPTH * 1e-3, kept / DEPTH


def kernels(layers: list[nn.Module], x: Tensor) -> list[tuple[str, int, float]]:
    """Return the kernels of a forward and backward of all layers, with counts and microseconds of one layer."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        made = x
        for layer in layers:
            made = layer(made)
        made.backward(x.detach())
        torch.cuda.synchronize()
    return [
        (one.key[:150], one.count, one.self_device_time_total / DEPTH)
        for one in sorted(profile.key_averages(), key=lambda one: -one.self_device_time_total)
    ]


def run(
    sizes: Sizes, length: int, batch: int, *, tensor: int, expert: int, compiled: bool, out: Path
) -> dict[str, Any]:
    """Time one layer."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        layers: list[nn.Module] = [Layer(sizes, tensor, expert) for _ in range(DEPTH)]
        x = torch.randn(length // tensor, batch, sizes.hidden, requires_grad=True)
    if compiled:
        layers = [torch.compile(layer) for layer in layers]  # type: ignore[misc]
    forward_s, backward_s, kept = timed(layers, x)
    mode = "compile" if compiled else "eager"
    name = f"{sizes.name}-{length}x{batch}-tp{tensor}-ep{expert}-{mode}"
    if int(os.environ.get("RANK", "0")) == 0 and batch == 1:
        (out / f"kernels_{name}.json").write_text(json.dumps(kernels(layers, x), indent=0))
    elif batch == 1:
        kernels(layers, x)
    return sizes._asdict() | {
        "length": length, "batch": batch, "tensor": tensor, "expert": expert, "mode": mode,
        "forward_ms": round(forward_s * 1e3, 4), "backward_ms": round(backward_s * 1e3, 4), "kept_bytes": round(kept),
    }  # fmt: skip


def collectives() -> list[dict[str, Any]]:
    """Time NCCL's collectives, one after the other on one stream, by the bytes of the whole tensor."""
    gpus, rows = dist.get_world_size(), []
    for exponent in range(10, 31, 2):
        size = 2**exponent // 2
        whole, other = (torch.zeros(size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        share = whole[: size // gpus]
        peer = dist.get_rank() ^ 1

        def send(whole: Tensor = whole, other: Tensor = other, peer: int = peer) -> None:
            one = (
                dist.P2POp(dist.isend, whole, peer) if dist.get_rank() % 2 == 0 else dist.P2POp(dist.irecv, other, peer)
            )
            for work in dist.batch_isend_irecv([one]):
                work.wait()

        calls = {
            "all_gather": lambda: dist.all_gather_into_tensor(whole, share),
            "reduce_scatter": lambda: dist.reduce_scatter_tensor(share, whole),
            "all_reduce": lambda: dist.all_reduce(whole),
            "alltoall": lambda: dist.all_to_all_single(other, whole),
            "send": send,
        }
        for op, call in calls.items():
            times = []
            for _ in range(3):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                number = 20 if exponent < 28 else 5
                call()
                start.record()
                for _ in range(number):
                    call()
                end.record()
                torch.cuda.synchronize()
                times.append(start.elapsed_time(end) / number * 1e3)
            rows.append({"op": op, "gpus": gpus, "bytes": 2**exponent, "us": round(min(times), 2)})
    return rows


def main() -> None:
    """Time what the GPUs allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the tables")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    gpus = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    torch.cuda.set_device(rank)
    if gpus > 1:
        dist.init_process_group("nccl")
        found = collectives()
        if rank == 0:
            write(out / "nccl.csv", found)
    rows: list[dict[str, Any]] = []
    for sizes in SIZES:
        for length, batch in BATCHES.get(sizes.name, ((4096, 1),)):
            for compiled in (False, True) if gpus == 1 and not sizes.experts else (False,):
                cut = {"tensor": gpus, "expert": 1} if not sizes.experts else {"tensor": 1, "expert": gpus}
                if sizes.kv_heads % cut["tensor"]:
                    continue
                try:
                    rows.append(run(sizes, length, batch, **cut, compiled=compiled, out=out))
                except Exception as error:  # noqa: BLE001 - the others are worth having
                    print(f"{sizes.name}: {error}", flush=True)
                torch.cuda.empty_cache()
            if rank == 0:
                write(out / f"layers_{gpus}.csv", rows)
    if gpus > 1:
        dist.destroy_process_group()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
