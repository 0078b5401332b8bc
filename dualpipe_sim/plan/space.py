"""What a plan chooses from: candidates, and the experiment that each one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod

from dualpipe_sim.base.precision import Precision
from dualpipe_sim.base.units import label_of
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.errors import UserError
from dualpipe_sim.experiment import Choice, Experiment, Free
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.layout import BALANCED, LayoutChoice
from dualpipe_sim.model.recipe import Recompute


@dataclass(frozen=True)
class Candidate:
    """One way to cut, schedule and run a model.

    Attributes:
        schedule: name of the schedule.
        options: its options.
        ranks: pipeline ranks.
        tensor: GPUs that share out each layer's tensors.
        context: GPUs that share each sequence out.
        expert: GPUs that the routed experts are spread over.
        layout: which stage holds which layers.
        micro_batch_size: sequences of a micro-batch on one GPU.
        precision: of GEMMs, dispatch, cached activations and weights.
        recompute: the names of what is recomputed.
        communication_sms: SMs of the all-to-all.

    """

    schedule: str
    options: Mapping[str, object]
    ranks: int
    tensor: int
    context: int
    expert: int
    layout: LayoutChoice
    micro_batch_size: int
    precision: Precision
    recompute: tuple[str, ...]
    communication_sms: int

    @property
    def label(self) -> str:
        """The schedule with its options."""
        return label_of(self.schedule, self.options)

    @property
    def setting(self) -> tuple[object, ...]:
        """All that the costs depend on."""
        return self.setting_of(self.layout)

    def setting_of(self, layout: LayoutChoice) -> tuple[object, ...]:
        """Return all that the costs depend on with another layout."""
        return (
            self.ranks,
            self.tensor,
            self.context,
            self.expert,
            layout,
            self.micro_batch_size,
            self.precision,
            self.recompute,
            self.communication_sms,
        )

    def to_dict(self) -> dict[str, object]:
        """Return every field, ready for JSON."""
        listed = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return listed | {"options": dict(self.options)}

    @classmethod
    def from_dict(cls, given: Mapping[str, object]) -> Candidate:
        """Return the candidate of :meth:`to_dict`."""
        names = cls.__dataclass_fields__
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return cls(**{key: values[key] for key in names})  # type: ignore[arg-type]


def candidates_of(experiment: Experiment) -> list[Candidate]:
    """Return all combinations of what is free, in the order of the configuration; the rest is the experiment's own.

    Where a configuration leaves nothing free, all is that has usual values.
    """
    own = candidate_of(experiment)
    if experiment.free == Free():
        candidates = _combined(usual(experiment), own)
        return [one for one in candidates if one.ranks > 1 or one.schedule == "1f1b"]  # alone, all schedules are one
    return _combined(experiment.free, own)


MOST_CANDIDATES = 10**6
"""Of a plan; each is looked at, most of them for some 2 ms."""


def _combined(free: Free, own: Candidate) -> list[Candidate]:
    if (many := prod(max(1, len(getattr(free, key))) for key in asdict(Free()))) > MOST_CANDIDATES:
        raise UserError(
            f"plan: its lists make {many} candidates, more than {MOST_CANDIDATES}; leave fewer of them free"
        )
    return [
        Candidate(name, options, *gpus, layout, size, *kept)
        for (name, options), gpus, layout, size, kept in product(
            free.schedules or [(own.schedule, own.options)],
            list(
                product(
                    free.ranks or [own.ranks],
                    free.tensor or [own.tensor],
                    free.context or [own.context],
                    free.expert or [own.expert],
                )
            ),
            free.layouts or [own.layout],
            free.micro_batch_size or [own.micro_batch_size],
            list(
                product(
                    free.precision or [own.precision],
                    [one.names for one in free.recompute] or [own.recompute],
                    free.communication_sms or [own.communication_sms],
                )
            ),
        )
    ]


def usual(experiment: Experiment) -> Free:
    """Return what is free where nobody says it: how GPUs are shared out, the schedule, micro-batch and recomputation.

    Tensor parallelism stays in a node; sequences are shared out from 8,192 tokens a GPU on; experts are spread over
    powers of two that divide them. Schedules are those that the software runs.
    """
    job = layer_costs(experiment).job
    gpus, node, experts = gpus_of(experiment), experiment.cluster.gpus_per_node, job.model.experts
    schedules = list(_OF_SOFTWARE.get(job.recipe.stack.name.partition("-")[0], _OF_ANY))
    if experts is not None:
        schedules += [("interleaved-1f1b-overlap", _TWO)]
    own = experiment.choice.name, experiment.choice.options
    return Free(
        schedules=tuple(schedules if own in schedules else [own, *schedules]),
        ranks=tuple(_powers(min(gpus, job.model.layers), gpus)),
        tensor=tuple(size for size in _powers(min(gpus, node), gpus) if _divides(job.model, size)),
        context=tuple(_powers(max(1, job.sequence_length // _LONG), gpus)),
        expert=(1,) if experts is None else tuple(_powers(min(gpus, experts.routed), experts.routed)),
        micro_batch_size=tuple(sorted({1, 2, 4, job.micro_batch_size})),
        recompute=tuple(dict.fromkeys((job.recipe.recompute, Recompute(full=True)))),
        layouts=tuple(dict.fromkeys((job.layout, BALANCED))) if isinstance(job.layout, str) else (BALANCED,),
    )


_TWO, _FOUR = {"stages_per_rank": 2}, {"stages_per_rank": 4}
_OF_ANY: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("1f1b", {}),
    ("zb-h1", {}),
    ("interleaved-1f1b", _TWO),
    ("interleaved-1f1b", _FOUR),
    ("dualpipe", {}),
    ("dualpipev", {}),
)
_OF_SOFTWARE: Mapping[str, tuple[tuple[str, Mapping[str, object]], ...]] = {
    "megatron": (("1f1b", {}), ("interleaved-1f1b", _TWO), ("interleaved-1f1b", _FOUR)),
    "torch": (
        ("1f1b", {}),
        ("interleaved-1f1b", _TWO),
        ("interleaved-1f1b", _FOUR),
        ("interleaved-zb", _TWO),
        ("zb-v", {}),
        ("dualpipev", {}),
    ),
}
"""Schedules by the first word of a stack's name."""

_LONG = 8192
"""Tokens of a sequence that a GPU has alone."""


def _powers(most: int, of: int) -> list[int]:
    """Return the powers of two up to a number that divide another."""
    return [size for size in (1 << bit for bit in range(most.bit_length())) if size <= most and of % size == 0]


def _divides(model: Model, gpus: int) -> bool:
    """Say whether a tensor-parallel group of so many GPUs can share a model out."""
    try:
        model.over(gpus)
    except UserError:
        return False
    return True


def candidate_of(experiment: Experiment) -> Candidate:
    """Return the candidate that the experiment itself is.

    Raises:
        UserError: costs without a model, or an order from a file.

    """
    costs, choice = layer_costs(experiment), experiment.choice
    if choice.order is not None:
        raise UserError(f"schedule: {choice.name} is an order from a file; a plan takes registered schedules")
    job = costs.job
    return Candidate(
        choice.name,
        choice.options,
        choice.ranks,
        job.parallel.tensor,
        job.parallel.context,
        job.parallel.expert,
        job.layout,
        job.micro_batch_size,
        job.recipe.precision,
        job.recipe.recompute.names,
        costs.overlap.communication_sms,
    )


def layer_costs(experiment: Experiment) -> LayerCosts:
    """Return the costs of an experiment with a model.

    Raises:
        UserError: costs without a model.

    """
    if not isinstance(experiment.cost_model, LayerCosts):
        raise UserError("costs.kind: a plan needs a model on GPUs, so costs of kind 'layers'")
    return experiment.cost_model


def gpus_of(experiment: Experiment) -> int:
    """Return the GPUs of an experiment, which hold for all its candidates."""
    return experiment.choice.ranks * layer_costs(experiment).job.parallel.gpus


def costs_at(experiment: Experiment, candidate: Candidate) -> LayerCosts:
    """Return the costs of a candidate.

    Raises:
        UserError: GPUs that cannot be shared out in this way, or settings that do not fit each other.

    """
    costs, gpus = layer_costs(experiment), gpus_of(experiment)
    together = candidate.tensor * candidate.context
    data, left = divmod(gpus, candidate.ranks * together)
    if left or not data:
        times = f" of {together} GPUs (parallel.tensor x parallel.context)" if together > 1 else ""
        raise UserError(f"{gpus} GPUs are no multiple of {candidate.ranks} ranks{times}")
    recipe = replace(costs.job.recipe, precision=candidate.precision, recompute=Recompute.of(candidate.recompute))
    job = replace(
        costs.job,
        recipe=recipe,
        micro_batch_size=candidate.micro_batch_size,
        parallel=replace(
            costs.job.parallel, tensor=candidate.tensor, context=candidate.context, expert=candidate.expert, data=data
        ),
        layout=candidate.layout,
        micro_batches=choice_at(experiment, candidate).micro_batches,
    )
    return replace(costs, job=job, overlap=replace(costs.overlap, communication_sms=candidate.communication_sms))


def experiment_at(experiment: Experiment, candidate: Candidate) -> Experiment:
    """Return the experiment that a candidate is: the same GPUs, the same sequences a step, nothing shared.

    Args:
        experiment: what the plan starts from.
        candidate: the candidate.

    Raises:
        UserError: GPUs or sequences that cannot be shared out in this way, or settings that do not fit each other.

    """
    costs = costs_at(experiment, candidate)
    return replace(
        experiment,
        settle_layout=False,  # bounds are of the split by times alone
        choice=choice_at(experiment, candidate),
        compare=(),
        cost_model=costs,
        engine="auto",
        contention="none",
        noise=None,
    )


def choice_at(experiment: Experiment, candidate: Candidate) -> Choice:
    """Return the schedule of a candidate at its sizes: the same sequences a step.

    Raises:
        UserError: sequences that cannot be shared out in this way.

    """
    own = layer_costs(experiment).job
    sequences = experiment.choice.micro_batches * own.micro_batch_size * own.parallel.data
    together = candidate.ranks * candidate.tensor * candidate.context
    at_once = candidate.micro_batch_size * gpus_of(experiment) // together
    micro_batches, left = divmod(sequences, at_once)
    if left or not micro_batches:
        raise UserError(f"{sequences} sequences a step are no whole micro-batches of {at_once}")
    return Choice(candidate.schedule, candidate.ranks, micro_batches, dict(candidate.options))
