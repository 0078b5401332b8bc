"""What a configuration trains, and on which GPU."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from dualpipe_sim.config.overlap import step_end_of, tensor_overlap_of
from dualpipe_sim.config.schema import Parallel, RecomputeSection, Root, Training
from dualpipe_sim.costs.parts import Overlap
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.job import Job
from dualpipe_sim.model.parallelism import Parallelism
from dualpipe_sim.model.recipe import Offload, Recipe, Recompute
from dualpipe_sim.model.stacks import STACKS, Stack

Given = TypeVar("Given", Model, Gpu)

SECTIONS: dict[type, tuple[str, ...]] = {Job: ("model", "training"), Gpu: ("gpu",), Overlap: ("overlap",)}
"""What is built from sections that not every kind of costs reads."""


def job_of(root: Root) -> Job:
    """Return the job.

    Raises:
        UserError: a section that it needs is missing, or they do not fit each other.

    """
    training = root.training
    if training is None:
        raise UserError(f"training: is missing; costs of kind '{_kind(root)}' need its sequence_length")
    return Job(
        model=_needed("model", root.model, _kind(root)),
        recipe=_recipe(training, STACKS[root.stack]),
        sequence_length=training.sequence_length,
        micro_batch_size=training.micro_batch_size,
        parallel=replace(parallelism_of(root.parallel, root.ranks), tensor_overlap=tensor_overlap_of(root)),
        layout=root.pipeline.layout,
        routing_skew=training.routing_skew,
        causal=training.causal,
        step_end=step_end_of(root, training),
        micro_batches=micro_batches_of(root, root.ranks),
    )


def micro_batches_of(root: Root, ranks: int | None) -> int | None:
    """Return the micro-batches of a step; None where they are not said.

    Raises:
        UserError: two keys disagree, or the global batch is no whole micro-batches.

    """
    training = root.training
    of_batch = None if training is None else _micro_batches(training, root.parallel.replicas(ranks))
    return agreed("pipeline.micro_batches", root.pipeline.micro_batches, "training.global_batch", of_batch)


def parallelism_of(section: Parallel, ranks: int | None) -> Parallelism:
    """Return how a pipeline rank's GPUs share model and data out."""
    same = section.model_dump(exclude={"gpus", "pipeline", "data", "fsdp", "gathers"})
    return Parallelism(
        **same,
        data=section.replicas(ranks),
        fsdp=section.fsdp or 0,
        gathers=section.gathers or ("each" if ranks in (None, 1) else "once"),
    )


def gpu_of(root: Root) -> Gpu:
    """Return every rank's GPU.

    Raises:
        UserError: it is missing.

    """
    return _needed("gpu", root.gpu, _kind(root))


def refuse_unread(root: Root, read: Collection[type]) -> None:
    """Refuse sections that costs do not read.

    Args:
        root: the configuration.
        read: what these costs are built from, beside their own section.

    Raises:
        UserError: such a section is there.

    """
    unread = [key for built, keys in SECTIONS.items() if built not in read for key in keys]
    for key in unread:
        if getattr(root, key) is not None:
            raise UserError(f"{key}: is only for costs of kind 'layers', but costs.kind is '{_kind(root)}'")


def recompute_of(section: RecomputeSection) -> Recompute:
    """Return what the backward pass computes again."""
    return Recompute(**section.model_dump())


def _kind(root: Root) -> str:
    return str(getattr(root.costs, "kind", type(root.costs).__name__))


def _needed(key: str, given: Given | None, kind: str) -> Given:
    if given is None:
        raise UserError(f"{key}: is missing; costs of kind '{kind}' need a preset's name, or a mapping")
    return given


def _recipe(training: Training, stack: Stack) -> Recipe:
    own = training.optimizer.model_dump(exclude={"step"}, exclude_none=True)
    return Recipe(
        precision=training.precision,
        activation_group=training.activation_group,
        weight_group=training.weight_group,
        accumulation_interval=training.accumulation_interval,
        low_precision_weights=training.low_precision_weights,
        low_precision_attention=training.low_precision_attention,
        attention_kernel=training.attention_kernel,
        recompute=recompute_of(training.recompute),
        offload=Offload(**training.offload.model_dump()),
        optimizer=replace(stack.optimizer, **own),
        stack=stack,
    )


def agreed(key: str, value: int | None, other_key: str, other: int | None) -> int | None:
    """Return a number that may be given by either of two keys, or by none."""
    if value is not None and other is not None and value != other:
        raise UserError(f"{key} is {value}, but {other_key} makes it {other}; give one of them, or make them agree")
    return other if value is None else value


def _micro_batches(training: Training, replicas: int) -> int | None:
    if training.global_batch is None:
        return None
    sequences = training.micro_batch_size * replicas
    if training.global_batch % sequences:
        raise UserError(
            f"training.global_batch: {training.global_batch} sequences are no whole micro-batches of "
            f"{training.micro_batch_size} on each of {replicas} (parallel.data); take a multiple of {sequences}"
        )
    return training.global_batch // sequences
