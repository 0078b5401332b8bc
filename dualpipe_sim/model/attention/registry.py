"""The kinds of attention there are: one file each in ``dualpipe_sim.model.attention``, found by themselves.

Attention here is whatever mixes the tokens of a sequence, so linear attention and state-space layers too. A kind is a
frozen dataclass whose fields are its keys in ``model.attention``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from dualpipe_sim.base.registry import Registry
from dualpipe_sim.errors import UserError
from dualpipe_sim.model.linear import Linear
from dualpipe_sim.model.micro_batch import MicroBatch
from dualpipe_sim.model.recipe import Recipe


class Core(NamedTuple):
    """FLOPs a token of what is no linear map: attention's two products, or a recurrence.

    >>> Core(1.0, 2.0) + Core(0.5, 1.0)
    Core(forward=1.5, backward=3.0)

    Attributes:
        forward: of F.
        backward: of I; there is nothing in W.

    """

    forward: float
    backward: float

    def __add__(self, other: object) -> Core:
        if not isinstance(other, Core):
            return NotImplemented
        return Core(self.forward + other.forward, self.backward + other.backward)


class CoreShape(NamedTuple):
    """What the rate of attention's core depends on.

    Attributes:
        head: dimensions of a head, of query and value on average.
        heads: heads of a sequence.
        length: tokens of a sequence that is seen whole, in which a query sees as many keys.
        products: whether its two products are GEMMs of their own, with scores in memory between them.

    """

    head: float
    heads: float
    length: float
    products: bool = False


class Exchanged(NamedTuple):
    """Elements of a token.

    Attributes:
        queries: of its queries.
        keys_values: of its keys and values.
        outputs: of attention's output.

    """

    queries: int = 0
    keys_values: int = 0
    outputs: int = 0


class Attention(Protocol):
    """What a kind of attention says of itself.

    >>> multi_head = kinds()["softmax"](heads=32, qk_head=128, v_head=128)
    >>> [(linear.name, linear.parameters) for linear in multi_head.linears(4096)]
    [('queries, keys, values', 50331648), ('attention output', 16777216)]
    """

    def over(self, gpus: int) -> Attention:
        """Return the share of one GPU of a tensor-parallel group.

        Raises:
            UserError: it cannot be shared out evenly.

        """
        ...

    def linears(self, hidden: int) -> tuple[Linear, ...]:
        """Return its linear maps, in the order of the forward pass."""
        ...

    @property
    def norm_parameters(self) -> int:
        """Parameters of norms inside, beside those of the layer."""
        return 0

    @property
    def other_parameters(self) -> int:
        """Parameters of what is neither linear map nor norm: convolutions, decays, sinks."""
        return 0

    def core(self, sequence_length: int, *, causal: bool = True) -> Core:
        """Return the FLOPs a token of what is no linear map."""
        ...

    def core_shape(self, sequence_length: int, *, causal: bool = True) -> CoreShape | None:  # noqa: ARG002 - kinds differ
        """Return the shape of attention's core; None for recurrences."""
        return None

    @property
    def rotary(self) -> int:
        """Elements of a token that its position rotates."""
        return 0

    @property
    def normed(self) -> int:
        """Elements of a token that norms inside read."""
        return 0

    @property
    def exchanged(self) -> Exchanged:
        """Elements of a token that GPUs send each other where they share its sequence out.

        Kinds with a state pass that on, which is little (assumed: nothing).
        """
        return Exchanged()

    def inner_gradients(self, batch: MicroBatch) -> float:  # noqa: ARG002 - kinds differ
        """Return the elements of gradients of what lies between queries, keys, values and the output."""
        return 0.0

    def rotated(self, recipe: Recipe) -> int:  # noqa: ARG002 - kinds differ
        """Return the elements of a token that lie in one tensor with the values and are rotated into another."""
        return 0

    def activations(self, recipe: Recipe, batch: MicroBatch, *, dropout: bool) -> dict[str, float]:
        """Return what its forward keeps until the backward, in bytes by item, beside the layer's norms."""
        ...


_Kind = TypeVar("_Kind")

KINDS: Registry[type[Attention]] = Registry(
    "kind of attention", "dualpipe_sim.model.attention", "dualpipe_sim.attention", UserError
)

USUAL = "softmax"
"""The kind of a mapping that names none."""


def register(name: str, *, replace: bool = False) -> Callable[[type[_Kind]], type[_Kind]]:
    """Register a kind of attention under the name that ``model.attention.kind`` takes.

    >>> from dataclasses import dataclass
    >>> @register("pooling")
    ... @dataclass(frozen=True)
    ... class Pooling(Attention):
    ...     width: int
    >>> kinds()["pooling"](width=3)
    Pooling(width=3)

    Args:
        name: the name.
        replace: whether it may take the place of another kind of that name.

    Raises:
        UserError: another kind has that name.

    """
    KINDS.need_name(name)

    def decorate(cls: type[_Kind]) -> type[_Kind]:
        KINDS.add(name, cls, cls, replace=replace)  # type: ignore[arg-type]
        return cls

    return decorate


def kinds() -> Mapping[str, type[Attention]]:
    """Return all kinds by name.

    >>> own = ["gated-delta", "kimi-delta", "lightning", "mamba2", "none", "softmax"]
    >>> set(own) <= set(kinds())
    True
    """
    return KINDS.all()
