"""The shape of a configuration file. Field names are the file's keys; descriptions are what users read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field

from dualpipe_sim.base.precision import Precision
from dualpipe_sim.config.axes import Factors
from dualpipe_sim.config.cost_section import CostChoice
from dualpipe_sim.config.records import preset_record, record
from dualpipe_sim.config.section import Section, one_of, or_object
from dualpipe_sim.config.values import (
    Bandwidth,
    Count,
    Draws,
    Factor,
    Flag,
    Fraction,
    Index,
    Layout,
    OrWords,
    RuntimeChoice,
    ScheduleChoice,
    ScheduleChoices,
    Seconds,
    Size,
    Skew,
)
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.cluster import Cluster
from dualpipe_sim.hardware.collectives import AllToAllKernel
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.parallelism import ContextExchange, Dispatcher, Zero, least_data
from dualpipe_sim.model.recipe import AttentionKernel
from dualpipe_sim.model.stacks import StackName

if TYPE_CHECKING:
    ModelRecord: TypeAlias = Model
    GpuRecord: TypeAlias = Gpu
    AllToAllRecord: TypeAlias = AllToAllKernel
else:
    ModelRecord = preset_record(Model, "model")
    GpuRecord = preset_record(Gpu, "gpu")
    AllToAllRecord = record(AllToAllKernel)


class Pipeline(Section):
    """How many ranks and micro-batches, and which stage holds which layers."""

    ranks: Count | None = Field(None, description="pipeline ranks; or give parallel.pipeline")
    micro_batches: Count | None = Field(
        None, description="micro-batches of a step, all pipes together; or give training.global_batch"
    )
    layout: Layout = Field(
        "even",
        description="'even', 'balanced' (the slowest stage as fast as can be, and of such splits the best for the "
        "schedule), the number of layers of each stage, "
        "or a Megatron layout string such as 'Et*3|(tt|)*29,m|L'",
    )
    transfers: Literal["async", "rendezvous"] = Field(
        "async",
        description="how tensors move between ranks where no runtime says it: each leaves when it is made, or sends "
        "and receives take turns on each rank and wait for the other side, in torch's order",
    )
    runtime: RuntimeChoice = Field(
        "ideal",
        validate_default=True,
        description="whose program moves them instead: 'torch', 'megatron', 'deepseek', or 'ideal' for nobody's; or a "
        "name with options: {name: torch, version: '2.11'}",
    )


class Parallel(Section):
    """GPUs: pipeline x tensor x context x data; the GPUs of a pipeline rank are neighbours."""

    gpus: Count | None = Field(None, description="all GPUs; 'data' follows from it where it is not given")
    pipeline: Count | None = Field(None, description="pipeline ranks, if pipeline.ranks does not say it")
    tensor: Count = Field(
        1, description="GPUs that share out heads, FFN widths and the vocabulary of a stage; they are neighbours"
    )
    sequence: Flag = Field(True, description="whether those GPUs share out the sequence around norms and residuals")
    tensor_overlap: Flag | None = Field(
        None,
        description="whether their collectives around a block go beside its GEMMs, a piece at a time, or none of them "
        "beside compute; default: what the stack does",
    )
    context: Count = Field(1, description="GPUs that share each sequence out, in attention too")
    context_exchange: ContextExchange = Field(
        "ring",
        description="how they see each other's keys and values: passed on in a ring beside attention, gathered before "
        "it, or by all-to-all, which gives each a share of the heads (Ulysses)",
    )
    context_balanced: Flag = Field(
        True, description="whether each has a share of a sequence's start and of its end, which makes attention even"
    )
    expert: Count = Field(1, description="GPUs that the routed experts are spread over, 'tensor' ones among them")
    expert_tensor: Count = Field(1, description="GPUs that share out the width of each routed expert")
    dispatcher: Dispatcher | None = Field(
        None,
        description="how tokens go to experts on other GPUs: once to each GPU (deepep), or a copy for each expert by "
        "all-to-all (nccl); default: as the stack does, deepseek's deepep",
    )
    data: Count | None = Field(
        None,
        description="parts of a pipeline rank, each of 'tensor' x 'context' GPUs, that run micro-batches of their own; "
        "default: what 'gpus' leaves, or as few as hold 'expert' x 'expert_tensor' GPUs",
    )
    zero: Zero = Field(
        1,
        description="what those that hold the same parameters share out: nothing, optimizer states, gradients too, "
        "weights too (ZeRO)",
    )
    fsdp: Count | None = Field(
        None, description="GPUs that share out weights, gradients and optimizer states; several such groups hold copies"
    )
    gathers: Literal["each", "once", "stages"] | None = Field(
        None,
        description="whether weights so shared out are gathered for each op, layer by layer, or once a step, or stage "
        "by stage ahead of its ops, three at a time, as PyTorch's pipelining does; default: once in a pipeline",
    )

    def replicas(self, ranks: int | None) -> int:
        """Return the parts of a pipeline rank that run micro-batches of their own.

        Args:
            ranks: pipeline ranks, None where they are not known yet.

        Raises:
            UserError: the sizes do not make the GPUs that there are.

        """
        least = least_data(self.tensor, self.context, self.expert, self.expert_tensor)
        if self.gpus is None:
            return self.data or least
        together = (ranks or 1) * self.tensor * self.context
        if self.data is not None and together * self.data != self.gpus:
            raise UserError(
                f"parallel.gpus: {self._sizes(ranks)} x {self.data} (data) make {together * self.data} GPUs, not "
                f"{self.gpus}; leave one of them out, or make them agree"
            )
        if self.gpus % (together * least):
            below = self.gpus // (together * least) * together * least
            nearest = " or ".join(f"{gpus}" for gpus in (below, below + together * least) if gpus)
            raise UserError(
                f"parallel.gpus: {self.gpus} is no multiple of {together * least}, which {self._sizes(ranks)} with "
                f"experts over {self.expert * self.expert_tensor} take; nearest: {nearest}"
            )
        return self.gpus // together

    def _sizes(self, ranks: int | None) -> str:
        sizes = {"pipeline": ranks or 1, "tensor": self.tensor, "context": self.context}
        return " x ".join(f"{size} ({key})" for key, size in sizes.items() if size > 1) or "1 (pipeline)"


class RecomputeSection(Section):
    """What the backward pass computes again instead of keeping it."""

    no_mapping: ClassVar[str] = "must be 'full', 'selective', 'none', a list of names, or a mapping of keys, got {}"

    norms: Flag = Field(True, description="outputs of RMSNorms")
    up_projections: Flag = Field(True, description="MLA's queries, keys and values")
    activation: Flag = Field(True, description="outputs of SwiGLU or GELU")
    routed_activation: Flag = Field(False, description="those of routed experts alone")
    core: Flag = Field(False, description="attention's core, from queries, keys and values")
    shared: Flag = Field(False, description="shared experts")
    mlp: Flag = Field(False, description="dense FFNs")
    moe: Flag = Field(False, description="FFNs of experts, with their all-to-alls")
    alternate: Flag = Field(False, description="every second linear map of a layer, as torchtitan's selection by op")
    full: Flag = Field(False, description="whole layers, of which only the input is kept")
    layers: Index = Field(
        0, description="with full, how many layers of a stage, from its first on, are recomputed whole; 0 for all"
    )
    together: Count = Field(
        1, description="with full, how many layers in a row run again together, of which one input is kept"
    )


_NOTHING = {"norms": False, "up_projections": False, "activation": False}
_RECOMPUTE_WORDS = {"full": {"full": True}, "selective": {**_NOTHING, "core": True}, "none": _NOTHING}


def _recompute(value: object) -> object:
    """Return what a word for a way to recompute stands for, or a list of keys; a mapping stays as it is."""
    if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
        return {**_NOTHING, **dict.fromkeys(value, True)}
    return _RECOMPUTE_WORDS.get(value, value) if isinstance(value, str) else value


if TYPE_CHECKING:
    RecomputeChoice: TypeAlias = RecomputeSection
else:
    RecomputeChoice = Annotated[RecomputeSection, BeforeValidator(_recompute), OrWords(tuple(_RECOMPUTE_WORDS))]


class OffloadSection(Section):
    """What lies in the memory of a GPU's host for a while."""

    layers: Index = Field(
        0,
        description="layers of a stage, from its first on, whose activations are there between F and the backward",
    )
    optimizer: Fraction = Field(0.0, description="share of the optimizer's states that are there, and updated there")


class OptimizerSection(Section):
    """What is there of each parameter beside its weight, and whether the step ends with the optimizer's."""

    no_mapping: ClassVar[str] = "must be true, false, 'megatron', or a mapping of keys, got {}"

    main_weights: Literal["fp32", "bf16", "none"] | None = Field(
        None,
        description="the copy of the weights that is updated; none: the resident ones are; default: the stack's, fp32",
    )
    moments: Literal["fp32", "bf16", "none"] | None = Field(
        None, description="Adam's first and second moment; default: the stack's, bf16"
    )
    gradients: Literal["fp32", "bf16"] | None = Field(
        None, description="gradients, summed up over micro-batches; default: the stack's, fp32"
    )
    step: Flag = Field(True, description="whether the step ends with the optimizer's")


_OPTIMIZER_WORDS: dict[object, dict[str, object]] = {
    True: {},
    False: {"step": False},
    "megatron": {"main_weights": "fp32", "moments": "fp32", "gradients": "fp32"},
}


def _optimizer(value: object) -> object:
    """Return what a word stands for; a mapping stays as it is."""
    return _OPTIMIZER_WORDS.get(value, value) if isinstance(value, (bool, str)) else value


if TYPE_CHECKING:
    OptimizerChoice: TypeAlias = OptimizerSection
else:
    OptimizerChoice = Annotated[OptimizerSection, BeforeValidator(_optimizer), OrWords(tuple(_OPTIMIZER_WORDS))]


class Training(Section):
    """What a step trains on, and how."""

    sequence_length: Count = Field(description="tokens of a sequence")
    micro_batch_size: Count = Field(1, description="sequences of a micro-batch on one GPU")
    global_batch: Count | None = Field(
        None, description="sequences of a step; micro-batches x micro_batch_size x parallel.data"
    )
    precision: Precision = Field(
        "bf16",
        description="of GEMMs, and of what is sent, kept and held for them: 'fp8' is DeepSeek-V3's recipe, "
        "'fp8-tensor', 'fp8-block', 'mxfp8' and 'nvfp4' are Transformer Engine's",
    )
    activation_group: Count | None = Field(
        None, description="activations that share a scale; default: as many as the precision has it, in fp8 1 x 128"
    )
    weight_group: Count | None = Field(
        None, description="side of the block of weights that share a scale; default: in fp8 128 x 128"
    )
    accumulation_interval: Count = Field(128, description="products summed in fp8 before promotion to FP32")
    low_precision_weights: Flag | None = Field(
        None,
        description="whether resident weights are in these numbers alone; default: in fp8, while Transformer Engine's "
        "recipes keep them in BF16 too",
    )
    low_precision_attention: Flag = Field(False, description="whether attention's core computes in FP8")
    attention_kernel: AttentionKernel = Field(
        "fastest", description="whose kernel attention's core is: the fastest that was timed, or one of these"
    )
    recompute: RecomputeChoice = Field(
        RecomputeSection.model_validate({}),
        description="what the backward pass computes again, by key or as a list of keys; or 'full' for whole layers, "
        "'selective' for attention's core alone, 'none' for nothing",
    )
    offload: OffloadSection = Field(
        OffloadSection.model_validate({}), description="what lies in the host's memory for a while"
    )
    causal: Flag = Field(True, description="whether attention skips the masked half")
    routing_skew: Skew = Field(1.0, description="tokens of the busiest expert rank over the mean")
    gradient_reduction: Literal["overlapped", "after", "none"] = Field(
        "overlapped",
        description="when gradients are reduced: each layer's when its last one is there, all after the last op, or "
        "not at all",
    )
    optimizer: OptimizerChoice = Field(
        OptimizerSection.model_validate({}),
        description="what it holds of each parameter, by key; or 'megatron' for FP32 moments, false for no step of it",
    )


class OverlapSection(Section):
    """How compute and communication share a GPU in overlapped pairs, and which communication goes beside compute."""

    grad_reduce: Flag | None = Field(
        None, description="whether gradients are reduced beside the last backwards; default: gradient_reduction"
    )
    param_gather: Flag | None = Field(
        None, description="whether updated weights are gathered beside the first forwards; default: as grad_reduce"
    )
    tp_comm: Flag | None = Field(
        None, description="whether tensor-parallel collectives go beside GEMMs; default: parallel.tensor_overlap"
    )
    ep_comm: Flag | None = Field(
        None,
        description="whether all-to-alls of experts go beside compute of another micro-batch, 1f1b and "
        "interleaved-1f1b in their overlapped forms; default: as the schedule has it",
    )
    p2p: Flag | None = Field(
        None, description="whether messages between ranks go beside compute; default: as the runtime has it"
    )
    delay_wgrad: Flag | None = Field(
        None,
        description="whether weights' gradients go beside the all-to-all behind the input's, and a stage's last ones "
        "beside the send (Megatron-LM's --delay-wgrad-compute), or are waited for; default: as runtime megatron says, "
        "else beside the all-to-all, but not the send, as in DualPipe",
    )
    communication_sms: Count = Field(20, description="SMs of the all-to-all")
    sharing: Literal["reserved", "on-demand", "none"] = Field(
        "reserved",
        description="compute in a pair has the other SMs, or all of them while no all-to-all runs; none: an all-to-all "
        "is as NCCL's, which gets its SMs only when a kernel of compute ends",
    )
    alltoall_beside: Factor = Field(
        1.5,
        description="with sharing none, what an all-to-all takes beside compute, once it has SMs, over its time alone",
    )
    chunk_tokens: Count | None = Field(None, description="tokens of an all-to-all's chunk; default: the best size")


class Tier(Section):
    """What a tier of the network achieves between two GPUs."""

    bandwidth: Bandwidth = Field(description="achieved bandwidth of a GPU, each way")
    latency: Seconds = Field(0.0, description="end-to-end latency of a small message")


class ClusterSection(Section):
    """Nodes of GPUs behind NVLink, a NIC for each GPU on an InfiniBand fabric."""

    name: str = Field("cluster", description="what to call it")
    gpus_per_node: Count = Field(8, description="GPUs behind one NVLink switch")
    nvlink: Tier = Field(Tier(bandwidth=160e9, latency=3e-6), description="links inside a node")
    infiniband: Tier = Field(Tier(bandwidth=50e9, latency=5e-6), description="links between nodes")
    mapping: tuple[Index, ...] | None = Field(
        None, description="GPU of each rank; default: rank r on GPU r x the GPUs of a rank"
    )
    gpus_per_pod: Index = Field(0, description="GPUs whose NICs reach each other at full bandwidth; 0: all")
    oversubscription: Factor = Field(1.0, description="bandwidth of a pod's NICs over that of its links to other pods")
    collectives: str = Field(
        "", description="table of what NCCL's collectives take inside a node, by size: a packaged one or a .csv file"
    )
    alltoall: AllToAllRecord | None = Field(
        None, description="what the all-to-all's kernels achieve; default: as in the preset h800-ib"
    )


if TYPE_CHECKING:
    ClusterChoice: TypeAlias = ClusterSection | Cluster
else:
    ClusterChoice = Annotated[ClusterSection, or_object(Cluster)]


class NoiseSection(Section):
    """How durations vary, drawn many times."""

    jitter: Fraction = Field(0.0, description="standard deviation of each duration over its mean")
    seed: Index = Field(0, description="what the draws follow from")
    runs: Draws = Field(100, description="how many times the step is drawn")
    slow_ranks: dict[Index, Factor] = Field({}, description="factor on the compute of some ranks, by rank")


class ScenariosSection(Section):
    """What may happen in a step: `robust` draws it many times, the same for every schedule that it compares."""

    runs: Draws = Field(1000, description="how many scenarios are drawn")
    seed: Index = Field(0, description="what the draws follow from")
    jitter: Fraction | None = Field(
        None,
        description="standard deviation of what a rank's share takes for one micro-batch over its mean, and of a "
        "transfer; default: noise.jitter, or 0.05 without a section noise",
    )
    stragglers: Fraction = Field(0.05, description="chance of each rank to be slow for the whole step")
    slowdown: Fraction = Field(
        0.2, description="how much longer a slow rank computes, at the mean; exponentially distributed"
    )
    slow_links: Fraction = Field(
        0.05, description="chance of each two ranks that send to each other to have a slow link between them"
    )
    link_slowdown: Fraction = Field(
        1.0, description="how much longer a transfer over a slow link takes, at the mean; exponentially distributed"
    )
    routing_skew: Skew | None = Field(
        None,
        description="tokens of the busiest expert rank over the mean, at the mean over stages and micro-batches; what "
        "it is above 1 is drawn for each; default: training.routing_skew, and at least 1.12, as in DeepSeek's trace",
    )
    expert_share: Fraction = Field(
        0.0,
        description="share of an op's time that goes with the skew; costs by layer know it and leave this out",
    )


class MeasuredSection(Section):
    """What somebody measured of the schedule that `run` plays: shown beside what is simulated."""

    source: str = Field(description="who measured it, and where that stands")
    step_time: Seconds | None = Field(None, description="time of a training step")
    tokens_per_second_per_gpu: Factor | None = Field(None, description="tokens trained on, a second and GPU")
    mfu: Fraction | None = Field(None, description="model FLOPs over the BF16 peak, causal, as a share of 1")
    gpu_hours_per_trillion_tokens: Factor | None = Field(None, description="GPU-hours that 10^12 tokens take")
    why: str = Field("", description="what explains the difference, for readers")


class PlanSection(Section):
    """What `plan` may choose, a list each; all else is fixed, and so are the GPUs and the sequences of a step."""

    schedules: tuple[ScheduleChoice, ...] = Field(
        (), description="schedules; an option may be a list: {name: interleaved-1f1b, stages_per_rank: [2, 3]}"
    )
    ranks: tuple[Count, ...] = Field((), description="pipeline ranks")
    tensor: tuple[Count, ...] = Field((), description="GPUs that share out each layer's tensors")
    context: tuple[Count, ...] = Field((), description="GPUs that share each sequence out")
    expert: tuple[Count, ...] = Field((), description="GPUs that the routed experts are spread over")
    layouts: tuple[Layout, ...] = Field((), description="layouts, as pipeline.layout")
    micro_batch_size: tuple[Count, ...] = Field((), description="sequences of a micro-batch on one GPU")
    recompute: tuple[RecomputeChoice, ...] = Field((), description="what is recomputed, as training.recompute")
    precision: tuple[Precision, ...] = Field((), description="precisions, as training.precision")
    communication_sms: tuple[Count, ...] = Field((), description="SMs of the all-to-all")


class SearchSection(Section):
    """What `search` looks for: which stage holds which layers, where it lies, and what runs after what."""

    stages_per_rank: Count = Field(4, description="most stages of a rank, at the mean")
    activations: Factor | None = Field(
        None,
        description="most activations on a rank, in those of one micro-batch through 1/ranks of the layers; default: "
        "any number",
    )
    split: Flag = Field(True, description="whether the backward for the weights is an op of its own")
    recompute: Flag = Field(
        False,
        description="whether stages may run forwards again, so that they keep their inputs alone until then",
    )
    seconds: Factor = Field(60.0, description="how long it may take")
    rounds: Count | None = Field(None, description="how many rounds it has instead, so that it finds the same again")
    moves: Count | None = Field(
        None, description="how many changes each of a round's four walks tries; default: as many as take some seconds"
    )
    seed: Index = Field(0, description="of all that is drawn")


def _needs(schema: dict[str, Any]) -> None:
    for ways in (["schedule"], ["compare"], ["search"]), (["costs"], ["model"]):
        one_of(*ways)(schema)


class Root(Section):
    """A configuration file. A model, GPU or cluster is a preset's name, or a mapping that may start from a preset.

    In Python, schedules, costs, the model, the GPU and the cluster may be objects, too.
    """

    model_config = ConfigDict(json_schema_extra=_needs)

    pipeline: Pipeline = Field(
        Pipeline.model_validate({}), description="ranks, micro-batches, layout and how tensors move"
    )
    schedule: ScheduleChoice | None = Field(
        None,
        description="the schedule that `run` and `gantt` play; default: the first of those compared, or 1f1b where "
        "there is only a `search:`",
    )
    compare: ScheduleChoices = Field((), description="the schedules that `compare` plays, or all of them")
    costs: CostChoice = Field(description="how long everything takes, by its kind; default: by layer of the model")
    model: ModelRecord | None = Field(None, description="the model, for costs of kind 'layers'")
    gpu: GpuRecord | None = Field(None, description="every rank's GPU, for costs of kind 'layers'")
    cluster: ClusterChoice = Field(
        ClusterSection.model_validate({}),
        description="nodes of GPUs behind NVLink, and the network between them; default: the usual one of a GPU's "
        "preset, for costs of kind 'layers'",
    )
    parallel: Parallel = Field(
        Parallel.model_validate({}), description="how many GPUs, and what is spread over those of a rank"
    )
    training: Training | None = Field(None, description="what a step trains on, for costs of kind 'layers'")
    stack: StackName = Field(
        "deepseek", description="the software that trains, which says what it keeps beyond what must be"
    )
    overlap: OverlapSection | None = Field(
        None, description="how compute and communication share a GPU, for costs of kind 'layers'"
    )
    plugins: tuple[Path, ...] = Field(
        (),
        description="Python files that register schedules, kinds of costs and metrics, named from where the "
        "configuration is; they are run where --allow-plugins says so",
    )
    noise: NoiseSection | None = Field(None, description="jitter and stragglers")
    scenarios: ScenariosSection = Field(
        ScenariosSection.model_validate({}), description="what may happen in a step, which `robust` draws"
    )
    measured: MeasuredSection | None = Field(
        None, description="what was measured of it, to be shown beside; left out where a setting changes the experiment"
    )
    engine: Literal["auto", "simpy", "longest-path"] = Field("auto", description="what plays the task graph")
    sweep: Factors = Field((), description="what `sweep` varies")
    plan: PlanSection = Field(PlanSection.model_validate({}), description="what `plan` may choose")
    search: SearchSection | None = Field(None, description="what `search` looks for")
    contention: Literal["none", "fair"] = Field(
        "none", description="whether all-to-alls and transfers given as bytes share links (max-min fair)"
    )

    max_memory: Size | None = Field(
        None,
        description="of this machine's memory that a run may take: what would take more is refused before it begins; "
        "default: what is free",
    )

    @property
    def ranks(self) -> int | None:
        """Pipeline ranks as the configuration says them; None where those of an order from a file count."""
        return self.pipeline.ranks or self.parallel.pipeline
