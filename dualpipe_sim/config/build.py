"""From a validated configuration to an experiment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TypeVar, cast

from dualpipe_sim.config.measured import read_measured
from dualpipe_sim.config.presets import in_base_units, read_preset
from dualpipe_sim.config.schema import (
    ClusterSection,
    FromRun,
    Layers,
    MeasuredSection,
    PlanSection,
    RecomputeSection,
    Root,
    Tier,
    Training,
    Uniform,
)
from dualpipe_sim.config.values import ScheduleSection
from dualpipe_sim.costs.compute import Block, Work
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.measured import MeasuredCosts
from dualpipe_sim.costs.parts import Measured, Overlap
from dualpipe_sim.costs.phases import TimedCosts
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.noise import Noise
from dualpipe_sim.errors import ConfigError, ScheduleError, UserError
from dualpipe_sim.experiment import Choice, Experiment, Free
from dualpipe_sim.files import read_text
from dualpipe_sim.hardware.cluster import Cluster, Link
from dualpipe_sim.hardware.collectives import AllToAllKernel, AllToAllStep
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.job import Job, StepEnd
from dualpipe_sim.model.recipe import Recipe, Recompute
from dualpipe_sim.order.check import check_order
from dualpipe_sim.records import build
from dualpipe_sim.runtimes.torch import parse_either, without_messages
from dualpipe_sim.schedules.registry import spec

Built = TypeVar("Built", Model, Gpu)

ALLTOALL_DEFAULT = "h800-ib"
"""The cluster preset whose all-to-all kernels a cluster without its own is given."""

_COMPUTE: dict[str, tuple[Block, Work]] = {
    "attention_forward": ("attn", "F"),
    "mlp_forward": ("mlp", "F"),
    "mlp_input_gradient": ("mlp", "I"),
    "attention_input_gradient": ("attn", "I"),
    "mlp_weight_gradient": ("mlp", "W"),
    "attention_weight_gradient": ("attn", "W"),
}
_ALLTOALL: dict[str, AllToAllStep] = {
    "dispatch_forward": "dispatch F",
    "combine_forward": "combine F",
    "combine_gradient": "combine I",
    "dispatch_gradient": "dispatch I",
}


def build_experiment(root: Root, source: str) -> Experiment:
    """Return the experiment that a configuration describes.

    Raises:
        ConfigError: values that do not fit each other, with the file and the key.

    """
    try:
        return _experiment(root, source)
    except UserError as error:
        raise ConfigError(f"{source}: {error}") from error


def _experiment(root: Root, source: str) -> Experiment:
    ranks = _agree("pipeline.ranks", root.pipeline.ranks, "parallel.pipeline", root.parallel.pipeline)
    micro_batches = _agree(
        "pipeline.micro_batches",
        root.pipeline.micro_batches,
        "training.global_batch",
        None if root.training is None else _micro_batches(root.training, _data_parallel(root)),
    )
    folder = Path(source).parent  # files are named from where the configuration is
    return Experiment(
        _own_choice(root.schedule, ranks, micro_batches, folder),
        _costs(root, ranks, folder),
        _cluster(root.cluster),
        compare=tuple(
            _choice(section, ranks, micro_batches, folder, f"compare[{position}]")
            for position, section in enumerate(root.compare)
        ),
        engine=root.engine,
        source=source,
        contention=root.contention,
        noise=None if root.noise is None else Noise(**root.noise.model_dump()),
        free=_free(root.plan),
        transfers=root.pipeline.transfers,
        gpus_per_rank=_data_parallel(root),
    )


def _free(section: PlanSection) -> Free:
    return Free(
        schedules=tuple(one for schedule in section.schedules for one in _each_option(schedule)),
        ranks=section.ranks,
        expert=section.expert,
        layouts=section.layouts,
        micro_batch_size=section.micro_batch_size,
        recompute=tuple(map(_recompute, section.recompute)),
        precision=section.precision,
        communication_sms=section.communication_sms,
    )


def _each_option(section: ScheduleSection) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield a schedule with each combination of those of its options that are lists."""
    if section.placement is not None or section.ranks or section.micro_batches:
        raise UserError(f"plan.schedules: {section.name}: takes a registered schedule, whose sizes the plan sets")
    values = [value if isinstance(value, list) else [value] for value in section.options.values()]
    for chosen in product(*values):
        options = dict(zip(section.options, chosen, strict=True))
        try:
            spec(section.name).check_options(options)
        except ScheduleError as error:
            raise UserError(f"plan.schedules: {error}") from error
        yield section.name, options


def _agree(key: str, value: int | None, other_key: str, other: int | None) -> int:
    """Return a number that may be given by either of two keys."""
    if value is not None and other is not None and value != other:
        raise UserError(f"{key} is {value}, but {other_key} makes it {other}; give one of them, or make them agree")
    given = other if value is None else value
    if given is None:
        raise UserError(f"{key}: is missing, and so is {other_key}")
    return given


def _micro_batches(training: Training, data_parallel: int) -> int | None:
    if training.global_batch is None:
        return None
    sequences = training.micro_batch_size * data_parallel
    if training.global_batch % sequences:
        raise UserError(
            f"training.global_batch: {training.global_batch} sequences are no whole micro-batches of "
            f"{training.micro_batch_size} on each of {data_parallel} GPUs; take a multiple of {sequences}"
        )
    return training.global_batch // sequences


def _data_parallel(root: Root) -> int:
    return root.parallel.data or root.parallel.expert


def _own_choice(section: ScheduleSection, ranks: int, micro_batches: int, folder: Path) -> Choice:
    choice = _choice(section, ranks, micro_batches, folder, "schedule")
    if choice.order is not None and choice.micro_batches != micro_batches:
        raise UserError(
            f"schedule: {choice.name} has {choice.micro_batches} micro-batches, but pipeline.micro_batches is "
            f"{micro_batches}"
        )
    return choice


def _choice(section: ScheduleSection, ranks: int, micro_batches: int, folder: Path, where: str) -> Choice:
    if section.placement is not None:
        return _choice_from_file(section, ranks, folder, where)
    choice = Choice(section.name, section.ranks or ranks, section.micro_batches or micro_batches, section.options)
    try:
        spec(choice.name).check_options(choice.options)
    except ScheduleError as error:
        raise UserError(f"{where}: {error}") from error
    return choice


def _choice_from_file(section: ScheduleSection, ranks: int, folder: Path, where: str) -> Choice:
    """Read an order from its file and refuse it with the first thing that is wrong."""
    text = read_text(folder / section.name)
    placement = section.placement or "explicit"
    findings = check_order(without_messages(text), placement)
    if findings:
        more = f" (and {len(findings) - 1} more; `dualpipe-sim check` names all)" if len(findings) > 1 else ""
        raise UserError(f"{where}: {section.name}: {findings[0]}{more}")
    try:
        order = parse_either(text, placement, section.name)
    except ScheduleError as error:
        raise UserError(f"{where}: {section.name}: {error}") from error
    if order.ranks != ranks:
        raise UserError(
            f"{where}: {section.name} has a row for each of {order.ranks} ranks, but the pipeline has {ranks}"
        )
    return Choice(section.name, order.ranks, order.micro_batches, order=order)


def _costs(root: Root, ranks: int, folder: Path) -> TimedCosts:
    if isinstance(root.costs, Layers):
        return _layer_costs(root, root.costs)
    for key in ("model", "gpu", "training", "overlap"):
        if getattr(root, key) is not None:
            raise UserError(f"{key}: is only for costs of kind 'layers', but costs.kind is '{root.costs.kind}'")
    return _uniform_costs(root.costs, ranks) if isinstance(root.costs, Uniform) else _costs_of_run(root.costs, folder)


def _costs_of_run(section: FromRun, folder: Path) -> MeasuredCosts:
    measured = read_measured(folder / section.file)
    if section.transfer is not None:
        transfer = section.transfer
        measured = replace(measured, transfer_s=transfer.seconds, transfer_bytes=transfer.size_bytes)
    return replace(measured, source=section.file, launch=section.launch)


def _uniform_costs(section: Uniform, ranks: int) -> UniformCosts:
    for key in ("forward", "backward_input", "backward_weight", "overlapped"):
        cost = getattr(section, key)
        if isinstance(cost, tuple) and len(cost) != ranks:
            raise UserError(
                f"costs.{key}: a list needs one time for each of the {ranks} ranks' shares of the model, "
                f"got {len(cost)}"
            )
    return UniformCosts(
        forward=section.forward,
        backward_input=section.backward_input,
        backward_weight=section.backward_weight,
        overlapped=section.overlapped,
        transfer_s=section.transfer.seconds,
        transfer_bytes=section.transfer.size_bytes,
    )


def _layer_costs(root: Root, section: Layers) -> LayerCosts:
    training, transfer = root.training, section.transfer
    if training is None:
        raise UserError("training: is missing; costs of kind 'layers' need its sequence_length")
    if transfer is not None and transfer.seconds is None:
        raise UserError("costs.transfer: costs of kind 'layers' know the bytes; give a time, or leave it out")
    overlap = {} if root.overlap is None else root.overlap.model_dump()
    return LayerCosts(
        job=_job(root, training),
        gpu=_named(Gpu, root.gpu, "gpu"),
        kernel=_alltoall_kernel(root.cluster),
        overlap=Overlap(**overlap),
        measured=_measured(section.measured),
        transfer_s=None if transfer is None else transfer.seconds,
    )


def _job(root: Root, training: Training) -> Job:
    return Job(
        model=_named(Model, root.model, "model"),
        recipe=_recipe(training),
        sequence_length=training.sequence_length,
        micro_batch_size=training.micro_batch_size,
        expert_parallel=root.parallel.expert,
        data_parallel=_data_parallel(root),
        layout=root.pipeline.layout,
        routing_skew=training.routing_skew,
        causal=training.causal,
        step_end=StepEnd(training.gradient_reduction, training.optimizer),
    )


def _named(cls: type[Built], given: dict[str, object] | None, where: str) -> Built:
    if given is None:
        raise UserError(f"{where}: is missing; costs of kind 'layers' need a preset's name, or a mapping")
    return build(cls, cast("dict[str, object]", in_base_units(cls, {"name": where, **given}, where)), where)


def _alltoall_kernel(section: ClusterSection) -> AllToAllKernel:
    where = "cluster.alltoall"
    given = section.alltoall
    if given is None:
        given = cast("dict[str, object]", read_preset("cluster", ALLTOALL_DEFAULT, where)["alltoall"])
    return build(AllToAllKernel, cast("dict[str, object]", in_base_units(AllToAllKernel, given, where)), where)


def _recipe(training: Training) -> Recipe:
    return Recipe(
        precision=training.precision,
        activation_group=training.activation_group,
        weight_group=training.weight_group,
        accumulation_interval=training.accumulation_interval,
        recompute=_recompute(training.recompute),
    )


def _recompute(section: RecomputeSection) -> Recompute:
    return Recompute(section.norms, section.up_projections, section.activation)


def _measured(section: MeasuredSection) -> Measured:
    given = {key: value for key in section.model_fields_set if (value := getattr(section, key)) is not None}
    return Measured(
        compute={phase: given[key] for key, phase in _COMPUTE.items() if key in given},
        alltoall_s={step: given[key] for key, step in _ALLTOALL.items() if key in given},
    )


def _cluster(section: ClusterSection) -> Cluster:
    return Cluster(section.gpus_per_node, _link(section.nvlink), _link(section.infiniband), section.mapping)


def _link(section: Tier) -> Link:
    return Link(section.bandwidth, section.latency)
