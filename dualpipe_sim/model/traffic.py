"""How often software passes over tensors in memory, beside its GEMMs and attention's core.

Each number is time, as reads and writes of a tensor at the pace of a large copy: a kernel that fuses two steps passes
fewer times, one that reads every other half of a row longer than it would have to. Those of PyTorch were read off
kernels of its layers on an H100 (``validation/layers.py``: eager, and compiled layer by layer); those of Megatron-LM
follow its fused kernels, timed likewise where PyTorch compiles the same (https://github.com/NVIDIA/Megatron-LM,
``megatron/core/fusions``); those of ``ideal`` are what has to be read and written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Passes:
    """Reads and writes of a tensor.

    Attributes:
        forward: in F.
        backward: in I.

    """

    forward: float
    backward: float

    def of(self, work: str) -> float:
        """Return those of one kind of work; W has none."""
        return {"F": self.forward, "I": self.backward}.get(work, 0.0)


@dataclass(frozen=True)
class Traffic:
    """What a software stack passes over.

    >>> EAGER.gated.forward > COMPILED.gated.forward > IDEAL.gated.forward - 1
    True

    Attributes:
        norm: over what a norm reads, of a layer or of queries and keys.
        residual: over what is added to the residual stream.
        rotation: over queries and keys that are rotated.
        joint: over queries, keys and values, whose gradients become one tensor.
        gated: over the width of an FFN with a gate: activation, product, and both their gradients.
        plain: over the width of an FFN without.
        dropout: over what is dropped out beside a residual.
        scores: over attention's scores where they are stored, without the products.
        scores_dropout: over scores that are dropped out.
        routing: over the rows that go to experts: gathered in their order, gathered back, summed up.
        sorting: over those rows again where experts are spread over GPUs, by expert and back.
        router_kernels: kernels of the router that are too short for their bytes to matter.
        logits_bytes: bytes a logit that the loss takes.
        casts: over what a GEMM of fewer bits reads (in F) and the gradient it gets (in I).
        update: how much longer the optimizer takes than a large copy of its bytes.
        own_gradients: passes over the gradients of what a GPU updates, beside the update: for their norm, to clip.
        gradients: passes over all gradients that a GPU has, once a step: to set them to zero, to scale them.
        added: bytes a parameter and micro-batch where a weight's gradient is added to those before it.

    """

    norm: Passes
    residual: Passes
    rotation: Passes
    joint: Passes
    gated: Passes
    plain: Passes
    dropout: Passes
    scores: Passes
    scores_dropout: Passes
    routing: Passes
    sorting: Passes
    router_kernels: Passes
    logits_bytes: Passes
    casts: Passes
    update: float = 1.0
    own_gradients: float = 0.0
    gradients: float = 0.0
    added: float = 0.0


EAGER = Traffic(
    norm=Passes(2.5, 7.2),
    residual=Passes(2.6, 2.6),
    rotation=Passes(10, 10),
    joint=Passes(0, 2),
    gated=Passes(9.3, 16.8),
    plain=Passes(2.4, 3.6),
    dropout=Passes(2.5, 2.5),
    scores=Passes(7, 6),
    scores_dropout=Passes(3, 3),
    routing=Passes(8, 17),
    sorting=Passes(8, 8),
    router_kernels=Passes(25, 20),
    logits_bytes=Passes(25.8, 26.4),
    casts=Passes(2, 2),
    update=1.33,
    added=6.0,
)
ELEMENTARY_NORMS = replace(EAGER, norm=Passes(18, 33))
"""As eager, but norms by elementary operations in FP32: cast, square, mean, scale, cast, gain."""

COMPILED = Traffic(
    norm=Passes(2.2, 5.5),
    residual=Passes(2.1, 2.0),
    rotation=Passes(2, 2),
    joint=Passes(0, 2),
    gated=Passes(2.9, 7.3),
    plain=Passes(2.7, 3.6),
    dropout=Passes(0.5, 1.5),
    scores=Passes(3.5, 4),
    scores_dropout=Passes(3, 3),
    routing=Passes(6, 16),
    sorting=Passes(4, 4),
    router_kernels=Passes(15, 15),
    logits_bytes=Passes(25.8, 26.4),
    casts=Passes(1.5, 1.5),
    update=1.33,
    added=6.0,
)
FUSED = Traffic(
    norm=Passes(2.3, 4.2),
    residual=Passes(2.6, 2.6),
    rotation=Passes(2, 2),
    joint=Passes(1, 2),
    gated=Passes(2.9, 7.3),
    plain=Passes(2.7, 3.6),
    dropout=Passes(0.5, 1.5),
    scores=Passes(2.6, 3.9),
    scores_dropout=Passes(3, 3),
    routing=Passes(4, 4),
    sorting=Passes(4, 4),
    router_kernels=Passes(12, 12),
    logits_bytes=Passes(25.8, 26.4),
    casts=Passes(1.5, 1.5),
    update=1.33,
    added=6.0,
)
"""Kernels that fuse what stands together, as Transformer Engine and Megatron-LM have them."""

MEGATRON = replace(FUSED, logits_bytes=Passes(8, 4), update=1.2, own_gradients=3.0, gradients=3.0)
"""The same with Megatron-LM's optimizer, its buffers of gradients in FP32, and a fused loss over a cut vocabulary."""

MEGATRON_2021 = replace(MEGATRON, norm=Passes(2.5, 5.0), logits_bytes=Passes(38, 22))
"""The same with Apex's norms, whose gains' gradients pass over the inputs once more, and a loss of elementary steps."""

IDEAL = Traffic(
    norm=Passes(2, 2),
    residual=Passes(2, 2),
    rotation=Passes(2, 2),
    joint=Passes(0, 0),
    gated=Passes(3, 5),
    plain=Passes(2, 3),
    dropout=Passes(0, 1),
    scores=Passes(2, 3),
    scores_dropout=Passes(3, 3),
    routing=Passes(4, 4),
    sorting=Passes(0, 0),
    router_kernels=Passes(0, 0),
    logits_bytes=Passes(2, 4),
    casts=Passes(0.5, 0.5),
)
