"""Stages that train: rows of MLP or transformer layers whose backward for the weights can be put off."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD = 128  # width of an attention head, where the width allows


class Sizes(NamedTuple):
    """What all layers have in common."""

    block: str
    tokens: int
    width: int
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Of a micro-batch between two layers."""
        return self.tokens, self.width


class PutOff:
    """Backwards for weights that are still to do; None where they are done at once."""

    waiting: list[tuple[nn.Parameter, Tensor, Tensor]] | None = None


def add_gradient(weight: nn.Parameter, x: Tensor, gradient: Tensor) -> None:
    """Add a weight's gradient, in place, to what is there already."""
    if weight.grad is not None:
        weight.grad.addmm_(gradient.T, x)


class Linear(torch.autograd.Function):
    """``x @ weight.T``, which gives the gradient of x and adds that of the weight itself, or puts it off."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: nn.Parameter) -> Tensor:
        """Compute the output."""
        ctx.save_for_backward(x)
        ctx.weight = weight
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        """Compute the gradient of the input."""
        (x,) = ctx.saved_tensors
        if PutOff.waiting is None:
            add_gradient(ctx.weight, x, gradient)
        else:
            PutOff.waiting.append((ctx.weight, x.detach(), gradient))
        return gradient @ ctx.weight if ctx.needs_input_grad[0] else None, None


class Layer:
    """An MLP of four times the width with a residual, in a transformer with attention before it."""

    def __init__(self, number: int, sizes: Sizes, device: torch.device) -> None:
        self.sizes = sizes
        width = sizes.width
        shapes = [(4 * width, width), (width, 4 * width)]
        if sizes.block == "transformer":
            shapes += [(3 * width, width), (width, width)]
        numbers = torch.Generator(device).manual_seed(number)
        self.weights = [
            nn.Parameter(
                torch.randn(shape, dtype=sizes.dtype, device=device, generator=numbers) * (0.5 / shape[1] ** 0.5)
            )
            for shape in shapes
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        return self._forward(x, Linear.apply)

    def forward_plain(self, x: Tensor) -> Tensor:
        """Return the same, with torch's own backward."""
        return self._forward(x, functional.linear)

    def _forward(self, x: Tensor, linear: Any) -> Tensor:
        if self.sizes.block == "transformer":
            x = x + linear(self._attend(linear(x, self.weights[2])), self.weights[3])
        up, down = self.weights[:2]
        return x + linear(functional.gelu(linear(x, up)), down)

    def _attend(self, joined: Tensor) -> Tensor:
        tokens, width = self.sizes.shape
        heads = max(1, width // HEAD)
        queries, keys, values = joined.view(tokens, 3, heads, width // heads).permute(1, 2, 0, 3).unbind(0)
        mixed = functional.scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=True)
        return mixed[0].transpose(0, 1).reshape(tokens, width)


class Stage:
    """The layers of one stage, and what its micro-batches in flight keep."""

    def __init__(self, layers_of_stage: list[int], depth: int, sizes: Sizes, device: torch.device) -> None:
        first = sum(layers_of_stage[:depth])
        self.first, self.last = depth == 0, depth == len(layers_of_stage) - 1
        self.layers = [Layer(first + number, sizes, device) for number in range(layers_of_stage[depth])]
        self.in_flight: dict[int, tuple[Tensor, Tensor]] = {}
        self.put_off: dict[int, list[tuple[nn.Parameter, Tensor, Tensor]]] = {}

    def weights(self) -> list[nn.Parameter]:
        """Return all weights."""
        return [weight for layer in self.layers for weight in layer.weights]

    def forward(self, micro_batch: int, x: Tensor) -> Tensor:
        """Run a forward; the last stage's output is its loss."""
        x = x.detach().requires_grad_(not self.first)
        output = x
        for layer in self.layers:
            output = layer.forward(output)
        if self.last:
            output = output.square().mean()
        self.in_flight[micro_batch] = x, output
        return output.detach()

    def backward(self, micro_batch: int, gradient: Tensor | None, put_off: bool) -> Tensor | None:
        """Run a backward for the input, and for the weights too or put off; return the input's gradient."""
        x, output = self.in_flight.pop(micro_batch)
        PutOff.waiting = [] if put_off else None
        output.backward(gradient)
        if PutOff.waiting is not None:
            self.put_off[micro_batch] = PutOff.waiting
        PutOff.waiting = None
        return x.grad

    def backward_weight(self, micro_batch: int) -> None:
        """Run a backward for the weights."""
        waiting = self.put_off.pop(micro_batch)
        while waiting:
            add_gradient(*waiting.pop())


def make_input(sizes: Sizes, pipe: int, micro_batch: int, device: torch.device) -> Tensor:
    """Return the input of a micro-batch."""
    numbers = torch.Generator(device).manual_seed(1000 * pipe + micro_batch)
    return torch.randn(sizes.shape, dtype=sizes.dtype, device=device, generator=numbers)
