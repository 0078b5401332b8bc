"""The section ``costs:`` of a configuration, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from dualpipe_sim.base.records import FieldError
from dualpipe_sim.config.section import Section, one_of, or_object
from dualpipe_sim.config.values import (
    CostTime,
    Count,
    Flag,
    Fraction,
    Kernels,
    Seconds,
    Shares,
    Transfer,
    TransferCost,
    Weights,
    halved,
)
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.load import USUAL, Load
from dualpipe_sim.costs.measured import MeasuredCosts
from dualpipe_sim.costs.phases import Costs
from dualpipe_sim.costs.profile import ProfileCosts
from dualpipe_sim.costs.registry import cost_model, cost_models
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.errors import did_you_mean, either, plain, quoted

HALVES = ("backward_input", "backward_weight")
_OF_OPS = ("forward", "backward", *HALVES, "overlapped", "recompute", "vocab_s", "vocab_t", "offload", "all_reduce")
_TIMES = (*_OF_OPS, "unshard", "reduce_grad", "transfer")


_WEIGHTS = (
    "how long each micro-batch takes over the mean, and how large its transfers are, as with sequences of different "
    "lengths; those of the first pipe first"
)


def _has_unit(time: object) -> bool:
    return any(map(_has_unit, time)) if isinstance(time, (list, tuple)) else isinstance(time, str)


def in_halves(data: object, where: str) -> object:
    """Return times with a full backward split into its halves.

    Raises:
        ValueError: the halves are given too.

    """
    if not isinstance(data, Mapping) or data.get("backward") is None:
        return data
    given = [key for key in HALVES if key in data]
    if given:
        raise ValueError(f"give either backward or {' and '.join(given)}, not both")
    try:
        half = halved(data["backward"])
    except ValueError as error:
        raise FieldError(where, "backward", str(error)) from error
    return {**data, **dict.fromkeys(HALVES, half)}


class Uniform(Section):
    """Times of one micro-batch through 1/ranks of the model.

    A list has one entry for each 1/ranks of the model's depth, or one for each stage of a pipe.
    """

    model_config = ConfigDict(json_schema_extra=one_of(["backward"], HALVES))

    kind: Literal["uniform"] = Field("uniform", description="one time for each kind of op")
    forward: CostTime = Field(description="time of a forward")
    backward: CostTime | None = Field(
        None, description="time of a full backward, half of it each for the input and for the weights"
    )
    backward_input: CostTime = Field(description="time of a backward for the input; or give backward")
    backward_weight: CostTime = Field(description="time of a backward for the weights; or give backward")
    overlapped: CostTime | None = Field(None, description="time of an overlapped pair; default: forward + backward")
    transfer: TransferCost = Field(
        Transfer(seconds=0.0),
        description="time of a stage boundary's tensor under way, or its bytes; or a list, one for each boundary",
    )
    micro_batch_weights: Weights | None = Field(None, description=_WEIGHTS)
    slices: Shares | None = Field(
        None, description="shares of a micro-batch's time that its slices take, where a schedule cuts it; default: even"
    )
    recompute: CostTime | None = Field(None, description="time of a forward that runs again; default: forward")
    vocab_s: CostTime = Field(
        0.0, description="time of S, a rank's pass through its share of the output layer; or a list"
    )
    vocab_t: CostTime = Field(0.0, description="time of T, likewise, which makes the share's gradients; or a list")
    all_reduce: CostTime = Field(
        0.0,
        description="time of tensor-parallel all-reduces in a forward, and again in a backward for the input: exposed "
        "there, hidden beside W in a full backward and beside all compute in an overlapped pair",
    )
    unshard: CostTime | None = Field(
        None,
        description="time to gather the weights of 1/ranks of the model, where GPUs share them out and gather them a "
        "stage at a time (FSDP under torch's pipelining); default: they do not",
    )
    reduce_grad: CostTime | None = Field(None, description="time to reduce and scatter their gradients, likewise")
    offload: CostTime = Field(
        0.0,
        description="time to copy what a micro-batch leaves on a rank to the host, and that back, in such schedules",
    )
    unitless: Flag = Field(
        False, description="whether times are units of no clock, shown without 's'; default: where none has a unit"
    )

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, data: object) -> object:
        """Split a full backward in halves, and see whether any time has a unit."""
        if not isinstance(data, Mapping):
            return data
        return in_halves({"unitless": not any(map(_has_unit, map(data.get, _TIMES))), **data}, "costs")


class LayerTimes(Section):
    """Times of an MoE layer in overlapped pairs, which stand in for the formulas'.

    A compute phase is the time of its kernels, or that of its GEMMs, attention and other kernels, of which the first
    two go faster where all SMs compute. An all-to-all is its whole time.
    """

    attention_forward: Kernels | None = Field(None, description="attention part of a layer, forward")
    mlp_forward: Kernels | None = Field(None, description="MLP part, forward")
    mlp_input_gradient: Kernels | None = Field(None, description="MLP part, input gradient")
    attention_input_gradient: Kernels | None = Field(None, description="attention part, input gradient")
    mlp_weight_gradient: Kernels | None = Field(None, description="MLP part, weight gradient")
    attention_weight_gradient: Kernels | None = Field(None, description="attention part, weight gradient")
    dispatch_forward: Seconds | None = Field(None, description="all-to-all of tokens to their experts")
    combine_forward: Seconds | None = Field(None, description="all-to-all of results back")
    combine_gradient: Seconds | None = Field(None, description="all-to-all of gradients to the experts")
    dispatch_gradient: Seconds | None = Field(None, description="all-to-all of gradients back")


class Layers(Section):
    """Times that come out of a model's shapes, a GPU's rates and a cluster's links."""

    kind: Literal["layers"] = Field(description="times by layer, of a model on GPUs")
    transfer: TransferCost | None = Field(
        None, description="time of a stage boundary's tensor; default: its bytes over the cluster's links"
    )
    slices: Literal["balanced", "even"] = Field(
        "balanced",
        description="slices, where a schedule has such: as long in time each, or as many tokens each, of which "
        "a later one attends to more",
    )
    measured: LayerTimes = Field(
        LayerTimes.model_validate({}), description="measured times that stand in for the formulas'"
    )


class ProfiledLayer(Section):
    """Times of a layer for one micro-batch."""

    model_config = ConfigDict(json_schema_extra=one_of(["backward"], HALVES))

    forward: Seconds = Field(description="time of its forward")
    backward: Seconds | None = Field(
        None, description="time of its full backward, half of it each for the input and for the weights"
    )
    backward_input: Seconds = Field(description="time of its backward for the input; or give backward")
    backward_weight: Seconds = Field(description="time of its backward for the weights; or give backward")
    count: Count = Field(1, description="how many such layers follow each other")

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, data: object) -> object:
        return in_halves(data, "costs.layers")


class Profile(Section):
    """Times of each layer of a model, of which `pipeline.layout` says how many each stage holds."""

    kind: Literal["profile"] = Field(description="times of each layer")
    layers: tuple[ProfiledLayer, ...] = Field(
        min_length=1,
        description="all layers in the order of the forward pass, embedding and head among them: each a mapping of "
        "forward, backward_input and backward_weight, or forward and backward, and count if several follow each other",
    )
    transfer: TransferCost = Field(
        Transfer(seconds=0.0),
        description="time of a stage boundary's tensor under way, or its bytes; or a list, one for each boundary",
    )


class LoadSection(Section):
    """How much longer ops take on busy GPUs and beside messages."""

    beta: Fraction = Field(0.0, description="how much longer an op takes on a GPU that was busy before it")
    tau: Seconds = Field(USUAL.tau_s, description="what happened this long ago counts 1/e")
    gamma: Fraction = Field(0.0, description="how much longer it takes beside a message of its rank")

    @property
    def load(self) -> Load:
        """Return it as costs have it."""
        return Load(self.beta, self.tau, self.gamma)


class FromRun(Section):
    """Times measured in a run, as `dualpipe-sim calibrate` writes them."""

    kind: Literal["measured"] = Field(description="times of a real run")
    file: str = Field(description="what `dualpipe-sim calibrate` wrote, named from where the configuration is")
    transfer: TransferCost | None = Field(
        None, description="time of a stage boundary's tensor under way, or its bytes; default: the measured time"
    )
    micro_batch_weights: Weights | None = Field(None, description=_WEIGHTS)
    launch: Flag = Field(True, description="whether ops take their measured launch overhead too")
    load: LoadSection | None = Field(
        None, description="how much longer ops take on busy GPUs than on idle ones; default: what the file says"
    )
    host: Flag = Field(True, description="whether ops wait for their host to issue them, where the file says how long")


class Registered(BaseModel):
    """Costs of a kind that is not the package's own; what else it holds are the fields of the registered class."""

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str


_OWN = {"uniform": UniformCosts, "profile": ProfileCosts, "layers": LayerCosts, "measured": MeasuredCosts}


def is_own(kind: str) -> bool:
    """Return whether costs of a kind have a section here: they are the package's, and nobody took their place."""
    return kind in _OWN and cost_model(kind) is _OWN[kind]


def _known_kind(value: object) -> object:
    if not isinstance(value, Mapping) or value.get("kind", "uniform") in list(_OWN):
        return value  # other packages' kinds are looked for only where one is asked for
    kind, known = value["kind"], list({**_OWN, **cost_models()})
    if kind not in known:
        raise ValueError(f"kind must be {either(known)}, got {quoted(kind)}{did_you_mean(plain(kind), known)}")
    return value


def _tag_of_costs(value: object) -> str:
    kind = value.get("kind", "uniform") if isinstance(value, Mapping) else getattr(value, "kind", "uniform")
    return f"[{kind}]" if is_own(kind) else "[registered]"


_CostSection = Annotated[
    Annotated[Uniform, Tag("[uniform]")]
    | Annotated[Profile, Tag("[profile]")]
    | Annotated[Layers, Tag("[layers]")]
    | Annotated[FromRun, Tag("[measured]")]
    | Annotated[Registered, Tag("[registered]")],
    Discriminator(_tag_of_costs),
    BeforeValidator(_known_kind),
]


def _is_cost_model(value: object) -> bool:
    return not isinstance(value, (Mapping, type)) and callable(getattr(value, "on", None))


if TYPE_CHECKING:
    CostChoice: TypeAlias = Uniform | Profile | Layers | FromRun | Registered | Costs
else:
    CostChoice = Annotated[_CostSection, or_object(_is_cost_model)]
