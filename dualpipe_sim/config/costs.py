"""The cost model that a configuration describes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from dualpipe_sim.config.cost_section import FromRun, Layers, LayerTimes, Profile, Registered, Uniform
from dualpipe_sim.config.job import gpu_of, job_of, refuse_unread
from dualpipe_sim.config.measured import read_measured
from dualpipe_sim.config.overlap import FLAGS, delay_wgrad_of
from dualpipe_sim.config.presets import read_preset
from dualpipe_sim.config.records import read
from dualpipe_sim.config.registered import registered_costs
from dualpipe_sim.config.schema import Root
from dualpipe_sim.costs.asked import gathers_stages
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.costs.measured import MeasuredCosts
from dualpipe_sim.costs.parts import Measured, Overlap
from dualpipe_sim.costs.phases import Costs
from dualpipe_sim.costs.profile import LayerTime, ProfileCosts
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.costs.workload import Block, Work
from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.collectives import AllToAllKernel, AllToAllStep
from dualpipe_sim.model.layout import LayoutChoice
from dualpipe_sim.model.pattern import MOST_LAYERS

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


def costs_of(root: Root, folder: Path) -> Costs:
    """Return the costs of a configuration; files that it names are in ``folder``.

    Raises:
        UserError: sections that do not fit each other, or that this kind of costs does not read.

    """
    costs, asked = _costs_of(root, folder), root.parallel.gathers
    if asked is not None and (asked == "stages") != gathers_stages(costs):
        known = "costs.unshard and costs.reduce_grad say how long stages take to gather and reduce"
        raise UserError(f"parallel.gathers: {asked} does not fit these costs; of kind 'uniform', {known}")
    return costs


def _costs_of(root: Root, folder: Path) -> Costs:
    section = root.costs
    if isinstance(section, Layers):
        return _layer_costs(root, section)
    if isinstance(section, Registered):
        return registered_costs(root, section)
    refuse_unread(root, ())
    if isinstance(section, Uniform):
        return _uniform_costs(section)
    if isinstance(section, Profile):
        return _profile_costs(section, root.pipeline.layout)
    return _costs_of_run(section, folder) if isinstance(section, FromRun) else section


def _uniform_costs(section: Uniform) -> UniformCosts:
    return UniformCosts(
        forward=section.forward,
        backward_input=section.backward_input,
        backward_weight=section.backward_weight,
        overlapped=section.overlapped,
        slices=section.slices,
        recompute=section.recompute,
        vocab_s=section.vocab_s,
        vocab_t=section.vocab_t,
        offload=section.offload,
        all_reduce=section.all_reduce,
        unshard=section.unshard,
        reduce_grad=section.reduce_grad,
        transfer_s=section.transfer.seconds,
        transfer_bytes=section.transfer.size_bytes,
        micro_batch_weights=section.micro_batch_weights,
        unitless=section.unitless,
    )


def _profile_costs(section: Profile, layout: LayoutChoice) -> ProfileCosts:
    layers = sum(layer.count for layer in section.layers)
    if layers > MOST_LAYERS:
        raise UserError(f"costs.layers: are {layers}, more than {MOST_LAYERS}; let one stand for several")
    return ProfileCosts(
        layers=tuple(
            LayerTime(layer.forward, layer.backward_input, layer.backward_weight)
            for layer in section.layers
            for _ in range(layer.count)
        ),
        layout=layout,
        transfer_s=section.transfer.seconds,
        transfer_bytes=section.transfer.size_bytes,
    )


def _costs_of_run(section: FromRun, folder: Path) -> MeasuredCosts:
    measured = read_measured(folder / section.file)
    if section.transfer is not None:
        transfer = section.transfer
        measured = replace(measured, transfer_s=transfer.seconds, transfer_bytes=transfer.size_bytes)
    if section.load is not None:
        measured = replace(measured, load=section.load.load)
    return replace(
        measured,
        source=section.file,
        launch=section.launch,
        host=section.host,
        micro_batch_weights=section.micro_batch_weights,
    )


def _layer_costs(root: Root, section: Layers) -> LayerCosts:
    transfer = section.transfer
    if transfer is not None and transfer.seconds is None:
        raise UserError("costs.transfer: costs of kind 'layers' know the bytes; give times, or leave it out")
    overlap = {} if root.overlap is None else root.overlap.model_dump(exclude=set(FLAGS))
    return LayerCosts(
        job=job_of(root),
        gpu=gpu_of(root),
        kernel=getattr(root.cluster, "alltoall", None) or _usual_kernel(),
        overlap=Overlap(**overlap, delay_wgrad=delay_wgrad_of(root)),
        measured=_measured(section.measured),
        transfer_s=None if transfer is None else transfer.seconds,
        slices=section.slices,
    )


@cache
def _usual_kernel() -> AllToAllKernel:
    where = "cluster.alltoall"
    return read(AllToAllKernel, read_preset("cluster", ALLTOALL_DEFAULT, where)["alltoall"], where)


def _measured(section: LayerTimes) -> Measured:
    given = {key: value for key in section.model_fields_set if (value := getattr(section, key)) is not None}
    return Measured(
        compute={phase: given[key] for key, phase in _COMPUTE.items() if key in given},
        alltoall_s={step: given[key] for key, step in _ALLTOALL.items() if key in given},
    )
