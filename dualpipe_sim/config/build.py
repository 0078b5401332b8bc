"""From a validated configuration to an experiment."""

from __future__ import annotations

from pathlib import Path

from dualpipe_sim.config.choices import compared, each_option, own_choice
from dualpipe_sim.config.costs import costs_of
from dualpipe_sim.config.job import agreed, micro_batches_of, parallelism_of, recompute_of
from dualpipe_sim.config.overlap import runtime_of
from dualpipe_sim.config.schema import ClusterSection, MeasuredSection, PlanSection, Root, Tier
from dualpipe_sim.engine.noise import Noise
from dualpipe_sim.engine.scenarios import Scenarios
from dualpipe_sim.errors import ConfigError, UserError
from dualpipe_sim.experiment import Experiment, Free, Measured, Sought
from dualpipe_sim.hardware.cluster import Cluster, Link


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
    ranks = agreed("pipeline.ranks", root.pipeline.ranks, "parallel.pipeline", root.parallel.pipeline)
    micro_batches = micro_batches_of(root, ranks)
    folder = Path(source).parent  # files are named from where the configuration is
    own = own_choice(root, ranks, micro_batches, folder)
    return Experiment(
        own,
        costs_of(root, folder),
        _cluster(root.cluster),
        compare=compared(root, own, folder),
        engine=root.engine,
        source=source,
        contention=root.contention,
        noise=None if root.noise is None else Noise(**root.noise.model_dump()),
        scenarios=_scenarios(root),
        free=_free(root.plan),
        sought=Sought() if root.search is None else Sought(**root.search.model_dump()),
        transfers=root.pipeline.transfers,
        runtime=runtime_of(root),
        measured=None if root.measured is None else _measured(root.measured),
        gpus_per_rank=parallelism_of(root.parallel, own.ranks).gpus,
        max_memory_bytes=root.max_memory,
    )


def _scenarios(root: Root) -> Scenarios:
    told = root.scenarios.model_dump(exclude_none=True)
    usual = {} if root.noise is None else {"jitter": root.noise.jitter}
    return Scenarios(**{**usual, **told})


def _measured(section: MeasuredSection) -> Measured:
    numbers = {
        "step_time_s": section.step_time,
        "tokens_per_second_per_gpu": section.tokens_per_second_per_gpu,
        "mfu": section.mfu,
        "gpu_hours_per_trillion_tokens": section.gpu_hours_per_trillion_tokens,
    }
    return Measured(section.source, {key: one for key, one in numbers.items() if one is not None}, section.why)


def _free(section: PlanSection) -> Free:
    return Free(
        schedules=tuple(one for schedule in section.schedules for one in each_option(schedule)),
        ranks=section.ranks,
        tensor=section.tensor,
        context=section.context,
        expert=section.expert,
        layouts=section.layouts,
        micro_batch_size=section.micro_batch_size,
        recompute=tuple(map(recompute_of, section.recompute)),
        precision=section.precision,
        communication_sms=section.communication_sms,
    )


def _cluster(section: ClusterSection | Cluster) -> Cluster:
    if isinstance(section, Cluster):
        return section
    return Cluster(
        section.gpus_per_node,
        _link(section.nvlink),
        _link(section.infiniband),
        section.mapping,
        section.gpus_per_pod,
        section.oversubscription,
        section.collectives,
    )


def _link(section: Tier) -> Link:
    return Link(section.bandwidth, section.latency)
