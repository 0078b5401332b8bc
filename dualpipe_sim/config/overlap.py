"""What of a job's communication goes on beside its compute, flag by flag: ``overlap.grad_reduce`` and the others.

Each says in one place what a key of its own says elsewhere: when gradients are reduced, what a tensor-parallel group
does, which schedule, which option of a runtime. A flag that is left out changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

from dualpipe_sim.config.schema import OverlapSection, Root, Training
from dualpipe_sim.errors import UserError
from dualpipe_sim.model.job import Reduction, StepEnd
from dualpipe_sim.runtimes.registry import RuntimeInUse

FLAGS = ("grad_reduce", "param_gather", "tp_comm", "ep_comm", "p2p", "delay_wgrad")

_WGRAD = "delay_wgrad_compute"

_OVERLAPPED = {"1f1b": "1f1b-overlap", "interleaved-1f1b": "interleaved-1f1b-overlap"}
"""Schedules with a form in which a forward's all-to-alls go beside a backward's compute, and the other way."""


def flags_of(root: Root) -> Mapping[str, bool | None]:
    """Return the flags; None for those that are left out."""
    section = root.overlap or OverlapSection.model_validate({})
    return {name: getattr(section, name) for name in FLAGS}


def step_end_of(root: Root, training: Training) -> StepEnd:
    """Return when gradients are reduced and weights gathered.

    Raises:
        UserError: ``training.gradient_reduction`` says another thing than ``overlap.grad_reduce``.

    """
    flags, reduction = flags_of(root), training.gradient_reduction
    asked = flags["grad_reduce"]
    if asked is not None:
        wanted: Reduction = "overlapped" if asked else "after"
        if "gradient_reduction" in training.model_fields_set and reduction != wanted:
            raise UserError(
                f"overlap.grad_reduce: {str(asked).lower()} is gradient_reduction: {wanted}, but "
                f"training.gradient_reduction is {reduction}; leave one of them out"
            )
        reduction = wanted
    gather = flags["param_gather"]
    late = reduction != "overlapped" if gather is None else not gather
    return StepEnd(reduction, training.optimizer.step, gathering="after" if late else "overlapped")


def tensor_overlap_of(root: Root) -> bool | None:
    """Return whether a tensor-parallel group's collectives go beside GEMMs; None for what the stack does.

    Raises:
        UserError: ``parallel.tensor_overlap`` says another thing than ``overlap.tp_comm``.

    """
    asked, said = flags_of(root)["tp_comm"], root.parallel.tensor_overlap
    if asked is None:
        return said
    if said is not None and said != asked:
        raise UserError("overlap.tp_comm: parallel.tensor_overlap says the opposite; leave one of them out")
    return asked


def schedule_of(root: Root, name: str, where: str = "") -> str:
    """Return the schedule that ``overlap.ep_comm`` makes of one.

    Args:
        root: the configuration.
        name: the schedule.
        where: the key that it must have such a form for; empty for one to compare, which may have none.

    Raises:
        UserError: it has no such form.

    """
    asked = flags_of(root)["ep_comm"]
    if asked and name in _OVERLAPPED:
        return _OVERLAPPED[name]
    if not where:
        return name
    overlaps = name in _OVERLAPPED.values() or name.startswith("dualpipe")
    if asked and not overlaps:
        known = ", ".join((*_OVERLAPPED, "dualpipe"))
        raise UserError(f"overlap.ep_comm: {where}: {name} has no pairs for all-to-alls; take one of {known}")
    if asked is False and overlaps:
        raise UserError(f"overlap.ep_comm: {where}: {name} overlaps all-to-alls with compute; leave out ep_comm: false")
    return name


def runtime_of(root: Root) -> RuntimeInUse | None:
    """Return the runtime with what ``overlap.p2p`` says of its messages, and ``delay_wgrad`` of its backwards.

    Raises:
        UserError: no runtime is named whose messages could wait, or it has no such option.

    """
    asked, runtime = flags_of(root)["p2p"], root.pipeline.runtime
    delayed = flags_of(root)["delay_wgrad"]
    if runtime is not None and delayed is not None and _WGRAD in _options(runtime):
        made: Any = runtime.runtime
        runtime = replace(runtime, runtime=replace(made, **{_WGRAD: delayed}))
    if asked is None or (asked and runtime is None):
        return runtime
    if runtime is None:
        raise UserError("overlap.p2p: false: say whose messages compute waits for, like pipeline.runtime: megatron")
    if "overlap_p2p_comm" not in _options(runtime):
        raise UserError(f"overlap.p2p: runtime {runtime.name} has no choice of that; megatron has")
    messages: Any = runtime.runtime
    return replace(runtime, runtime=replace(messages, overlap_p2p_comm=asked))


def delay_wgrad_of(root: Root) -> bool | None:
    """Return when full backwards make weights' gradients: as it is said, or as the runtime does; None for neither."""
    asked, runtime = flags_of(root)["delay_wgrad"], root.pipeline.runtime
    if asked is not None or runtime is None or _WGRAD not in _options(runtime):
        return asked
    return bool(getattr(runtime.runtime, _WGRAD))


def _options(runtime: RuntimeInUse) -> Collection[str]:
    made: Any = runtime.runtime
    return [field.name for field in fields(made)]
