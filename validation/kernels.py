"""Time kernels by shape on one GPU: GEMMs, grouped GEMMs, attention, and what passes over memory.

    python validation/kernels.py -o out                     # all of them, about six minutes on an H100
    python validation/kernels.py -o out gemm attention      # some

Each kernel is recorded into a CUDA graph with operands that rotate through more memory than the L2 holds, and replayed
for as long as it takes, right after a time of the same: so the times are those of a GPU that is busy all the time, at
the clocks that its power limit allows, and hold nothing of the host. ``out`` gets a CSV a family, with times in
microseconds, and ``machine.json``. ``dualpipe_sim/presets/kernels`` holds what was made of them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

TOKENS = (128, 512, 1024, 2048, 4096, 8192, 16384)
FEATURES = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
EXPERTS, EACH = (2, 8, 32, 128), (64, 128, 256, 512, 1024, 4096)
FP8_TOKENS = (1024, 2048, 4096, 8192, 16384)
FP8_FEATURES = (512, 1024, 2048, 4096, 8192, 16384, 32768)
WARM_MS, LEAST_MS, ROTATED_BYTES = 25.0, 50.0, 256e6


class Timed(NamedTuple):
    """A kernel's shape and its times in microseconds: of F, I and W, or of whatever it has."""

    shape: dict[str, object]
    times_us: dict[str, float]


def repeated_us(call: Callable[[int], Any], few: int = 0, *, graph: bool = True) -> float:
    """Return the microseconds of a call, which is told its turn, on a busy GPU."""
    turns = few or 4
    replay: Callable[[], Any]
    for turn in range(turns):
        call(turn)
    torch.cuda.synchronize()
    if graph:
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded, stream=torch.cuda.current_stream()):
            for turn in range(turns):
                call(turn)
        replay = recorded.replay
    else:

        def replay() -> None:
            for turn in range(turns):
                call(turn)

    first = _elapsed_ms(replay, 1)
    _elapsed_ms(replay, max(1, round(WARM_MS / first)))
    rounds = max(2, round(LEAST_MS / first))
    return _elapsed_ms(replay, rounds) / rounds / turns * 1e3


def _elapsed_ms(replay: Callable[[], Any], rounds: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(rounds):
        replay()
    end.record()
    end.synchronize()
    return max(1e-3, start.elapsed_time(end))


class Pool:
    """Random numbers that operands are views of, at places that change from turn to turn."""

    def __init__(self, elements: int) -> None:
        self.elements = elements
        self.numbers = torch.randn(elements, device="cuda", dtype=torch.bfloat16)

    def view(self, turn: int, *shape: int) -> Tensor:
        """Return an operand."""
        size = torch.Size(shape).numel()
        start = turn * 7_919 % max(1, (self.elements - size) // 1_000_000) * 1_000_000 // 64 * 64
        return self.numbers[start : start + size].view(*shape)


def turns_of(size_bytes: float) -> int:
    """Return how many operands in turn the L2 does not hold."""
    return int(min(64, max(2, ROTATED_BYTES // size_bytes + 1)))


def gemms(pool: Pool) -> Iterator[Timed]:
    """Time linear maps of BF16: output, gradient of the input, gradient of the weight."""
    for tokens, outputs, inputs in itertools.product(TOKENS, FEATURES, FEATURES):
        few = turns_of(2.0 * (tokens * inputs + inputs * outputs))
        made = torch.empty(
            max(tokens * outputs, tokens * inputs, inputs * outputs), device="cuda", dtype=torch.bfloat16
        )

        def into(*shape: int, made: Tensor = made) -> Tensor:
            return made[: shape[0] * shape[1]].view(*shape)

        def forward(turn: int, t: int = tokens, o: int = outputs, i: int = inputs) -> None:
            torch.mm(pool.view(turn, t, i), pool.view(turn + 31, o, i).T, out=into(t, o))

        def backward(turn: int, t: int = tokens, o: int = outputs, i: int = inputs) -> None:
            torch.mm(pool.view(turn, t, o), pool.view(turn + 31, o, i), out=into(t, i))

        def weight(turn: int, t: int = tokens, o: int = outputs, i: int = inputs) -> None:
            torch.mm(pool.view(turn, t, o).T, pool.view(turn + 31, t, i), out=into(o, i))

        yield Timed(
            {"tokens": tokens, "outputs": outputs, "inputs": inputs},
            {name: repeated_us(one, few) for name, one in (("F", forward), ("I", backward), ("W", weight))},
        )


def gemms_to_fp32(pool: Pool) -> Iterator[Timed]:
    """Time gradients of weights that come in FP32, as they do where they are summed up in it."""
    for tokens, outputs, inputs in itertools.product((1024, 4096, 16384), (512, 2048, 8192, 32768), (512, 2048, 8192)):

        def weight(turn: int, t: int = tokens, o: int = outputs, i: int = inputs) -> None:
            torch.mm(pool.view(turn, t, o).T, pool.view(turn + 31, t, i), out_dtype=torch.float32)

        few = turns_of(2.0 * tokens * (inputs + outputs))
        yield Timed({"tokens": tokens, "outputs": outputs, "inputs": inputs}, {"W": repeated_us(weight, few)})


def gemms_fp8(pool: Pool) -> Iterator[Timed]:
    """Time FP8 GEMMs with a scale a tensor, as F reads its operands, with fast accumulation and with a precise one."""
    numbers = pool.numbers[: 2**30 + 2**27].to(torch.float8_e4m3fn)
    scale = torch.ones((), device="cuda")
    for tokens, outputs, inputs in itertools.product(FP8_TOKENS, FP8_FEATURES, FP8_FEATURES):
        few = turns_of(1.0 * (tokens * inputs + inputs * outputs))

        def call(turn: int, fast: bool, t: int = tokens, o: int = outputs, i: int = inputs) -> None:
            start, other = (place * 17_000_000 % 127_000_000 // 64 * 64 for place in (turn, turn + 3))
            a, b = numbers[start : start + t * i].view(t, i), numbers[other : other + o * i].view(o, i)
            torch._scaled_mm(a, b.T, scale, scale, out_dtype=torch.bfloat16, use_fast_accum=fast)

        times = {name: repeated_us(partial(call, fast=fast), few) for name, fast in (("F", True), ("precise", False))}
        yield Timed({"tokens": tokens, "outputs": outputs, "inputs": inputs}, times)


def grouped_gemms(pool: Pool) -> Iterator[Timed]:
    """Time linear maps of experts with equally many tokens each."""
    widths = (768, 2048, 7168)
    for experts, each, outputs, inputs in itertools.product(EXPERTS, EACH, widths, widths):
        rows = experts * each
        if rows > 2**16:
            continue
        ends = torch.arange(1, experts + 1, device="cuda", dtype=torch.int32) * each
        few = turns_of(2.0 * (rows * inputs + experts * inputs * outputs))

        def forward(turn: int, e: int = experts, r: int = rows, o: int = outputs, i: int = inputs) -> None:
            weights = pool.view(turn + 31, e, o, i).transpose(1, 2)
            torch._grouped_mm(pool.view(turn, r, i), weights, offs=ends)

        def backward(turn: int, e: int = experts, r: int = rows, o: int = outputs, i: int = inputs) -> None:
            torch._grouped_mm(pool.view(turn, r, o), pool.view(turn + 31, e, o, i), offs=ends)

        def weight(turn: int, r: int = rows, o: int = outputs, i: int = inputs) -> None:
            torch._grouped_mm(pool.view(turn, r, o).T, pool.view(turn + 31, r, i), offs=ends)

        yield Timed(
            {"experts": experts, "tokens": each, "outputs": outputs, "inputs": inputs},
            {name: repeated_us(one, few) for name, one in (("F", forward), ("I", backward), ("W", weight))},
        )


def attentions(_: Pool) -> Iterator[Timed]:
    """Time causal attention with cuDNN's kernels and FlashAttention-2's."""
    kernels = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash-2": SDPBackend.FLASH_ATTENTION}
    lengths, heads = (1024, 2048, 4096, 8192, 16384, 32768), (8, 32, 128)
    for (name, backend), length, many, (kv, qk, v) in itertools.product(
        kernels.items(), lengths, heads, ((1, 128, 128), (8, 128, 128), (1, 64, 64), (1, 192, 128))
    ):
        if length * many > 2**20 or (name == "flash-2" and (qk != v or kv > 1)):
            continue
        q, k, w = (
            torch.randn(1, number, length, width, device="cuda", dtype=torch.bfloat16, requires_grad=True)
            for number, width in ((many, qk), (max(1, many // kv), qk), (max(1, many // kv), v))
        )

        def attend(_: int, q: Tensor = q, k: Tensor = k, w: Tensor = w) -> Tensor:
            return functional.scaled_dot_product_attention(q, k, w, is_causal=True, enable_gqa=k.shape[1] < q.shape[1])

        with sdpa_kernel(backend):
            made = attend(0)
            up = torch.randn_like(made)

            def back(_: int, made: Tensor = made, up: Tensor = up, inputs: Any = (q, k, w)) -> None:
                torch.autograd.grad(made, inputs, up, retain_graph=True)

            times = {"F": repeated_us(attend), "I": repeated_us(back)}
        yield Timed(
            {"kernel": name, "heads": many, "kv": max(1, many // kv), "length": length, "qk": qk, "v": v}, times
        )


def passes(pool: Pool) -> Iterator[Timed]:
    """Time what passes over memory, kernel by kernel, on tensors of rows x width."""
    for rows, width in ((2048, 2048), (4096, 4096), (8192, 4096), (8192, 14336), (32768, 8192)):
        few = turns_of(4.0 * rows * width)
        gain = torch.ones(width, device="cuda", dtype=torch.bfloat16)
        halves = width // 2
        index = torch.randperm(rows, device="cuda")

        def leaf(turn: int, r: int = rows, w: int = width) -> Tensor:
            return pool.view(turn, r, w)

        forward: dict[str, Callable[[int], Any]] = {
            "copy": lambda t: leaf(t).clone(),
            "cast to fp32": lambda t: leaf(t).float(),
            "add": lambda t: leaf(t) + leaf(t + 31),
            "multiply": lambda t: leaf(t) * leaf(t + 31),
            "silu": lambda t: functional.silu(leaf(t)),
            "silu of half": lambda t: functional.silu(leaf(t)[:, :halves]),
            "gelu": lambda t: functional.gelu(leaf(t)),
            "relu squared": lambda t: functional.relu(leaf(t)).square(),
            "rms norm": lambda t: functional.rms_norm(leaf(t), (width,), gain),
            "layer norm": lambda t: functional.layer_norm(leaf(t), (width,), gain, gain),
            "dropout": lambda t: functional.dropout(leaf(t), 0.1),
            "gather": lambda t: leaf(t)[index],
            "softmax": lambda t: functional.softmax(leaf(t), -1),
            "log softmax of fp32": lambda t: functional.log_softmax(leaf(t), -1, dtype=torch.float32),
        }
        yield Timed({"rows": rows, "width": width, "of": "F"}, {n: repeated_us(c, few) for n, c in forward.items()})
        x = leaf(0).clone().requires_grad_()
        gain.requires_grad_()
        made = {
            "silu": functional.silu(x),
            "gelu": functional.gelu(x),
            "rms norm": functional.rms_norm(x, (width,), gain),
            "layer norm": functional.layer_norm(x, (width,), gain, gain),
            "softmax": functional.softmax(x, -1),
            "log softmax of fp32": functional.log_softmax(x, -1, dtype=torch.float32),
            "gather": x[index],
        }
        up = leaf(1).float()
        inner = {
            name: repeated_us(
                lambda t, one=one: torch.autograd.grad(  # type: ignore[misc]
                    one,
                    x,
                    up if one.dtype != x.dtype else leaf(t),
                    retain_graph=True,
                ),
                few,
            )
            for name, one in made.items()
        }
        yield Timed({"rows": rows, "width": width, "of": "I"}, inner)


def losses(pool: Pool) -> Iterator[Timed]:
    """Time the cross-entropy in FP32 over BF16 logits, and the fused AdamW."""
    for rows, width in ((2048, 128256), (8192, 32000), (4096, 128256)):
        logits = pool.view(0, rows, width).clone().requires_grad_()
        labels = torch.randint(width, (rows,), device="cuda")

        def forward(_: int, x: Tensor = logits, y: Tensor = labels) -> Tensor:
            return functional.cross_entropy(x.float(), y)

        loss = forward(0)

        def backward(_: int, loss: Tensor = loss, x: Tensor = logits) -> None:
            torch.autograd.grad(loss, x, retain_graph=True)

        times = {"F": repeated_us(forward), "I": repeated_us(backward)}
        yield Timed({"what": "cross-entropy", "rows": rows, "width": width}, times)
    for name, dtype in (("adamw bf16", torch.bfloat16), ("adamw fp32", torch.float32)):
        weights = [torch.nn.Parameter(torch.randn(4096, 4096, device="cuda", dtype=dtype)) for _ in range(32)]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        adam = torch.optim.AdamW(weights, fused=True)
        yield Timed(
            {"what": name, "rows": 32, "width": 4096**2}, {"F": repeated_us(lambda _: adam.step(), graph=False)}
        )
        for_each = torch.optim.AdamW(weights, foreach=True)
        plain = repeated_us(lambda _: for_each.step(), graph=False)
        yield Timed({"what": f"{name}, for each", "rows": 32, "width": 4096**2}, {"F": plain})
        norm = repeated_us(lambda _: torch.nn.utils.clip_grad_norm_(weights, 1.0), graph=False)
        yield Timed({"what": f"gradient norm and clip of {name}", "rows": 32, "width": 4096**2}, {"F": norm})


FAMILIES: dict[str, Callable[[Pool], Iterator[Timed]]] = {
    "gemm": gemms,
    "attention": attentions,
    "passes": passes,
    "loss": losses,
    "grouped": grouped_gemms,
    "fp8": gemms_fp8,
    "fp32-gradients": gemms_to_fp32,
}


def main() -> None:
    """Time what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the tables")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call] # backwards are captured where forwards ran
    pool = Pool(14 * 2**29)
    for family in given.families or FAMILIES:
        rows: list[dict[str, object]] = []
        try:
            rows.extend(
                one.shape | {name: f"{value:.2f}" for name, value in one.times_us.items()}
                for one in FAMILIES[family](pool)
            )
        except Exception as error:  # noqa: BLE001 - what was timed so far is worth keeping
            print(f"{family}: {error}", file=sys.stderr)
        names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
        with (given.out / f"{family}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        print(f"{family}: {len(rows)} shapes", flush=True)
    query = "name,power.limit,clocks.sm,power.draw,driver_version,memory.total"
    seen = subprocess.run(  # noqa: S603
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],  # noqa: S607
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "smi": seen}
    (given.out / "machine.json").write_text(json.dumps(machine, indent=1) + "\n")


if __name__ == "__main__":
    main()
