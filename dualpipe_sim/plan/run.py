"""Running candidates: each a row, on this process, on worker processes or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from dualpipe_sim.base.show import brief
from dualpipe_sim.experiment import Contention, Experiment
from dualpipe_sim.plan.space import Candidate, costs_at, experiment_at
from dualpipe_sim.result import Result
from dualpipe_sim.simulation import run_or_refuse

COLUMNS = (
    "step_time_s",
    "tokens_per_second_per_gpu",
    "mfu",
    "bubble_ratio",
    "exposed_s",
    "peak_memory_bytes",
    "fullest_rank",
    "micro_batches",
    "data_parallel",
)
"""Keys of a candidate that was run. ``exposed_s``: seconds of all-to-alls and transfers beside which nothing computes,
mean over ranks. ``peak_memory_bytes``: of the fullest rank, with
what its software stack reserves and loses."""


@dataclass(frozen=True)
class RunCandidate:
    """Runs candidates of an experiment.

    Attributes:
        experiment: what the plan starts from.
        contention: whether flows that overlap share links, which takes the SimPy engine.

    """

    experiment: Experiment
    contention: Contention = "none"

    __repr__ = brief

    def __call__(self, point: Mapping[str, object]) -> dict[str, object]:
        """Return a candidate's row, or the ``error`` that it has no other."""
        result = self.result(Candidate.from_dict(point))
        if result.error is not None:
            return {"error": result.error}
        cut = costs_at(self.experiment, Candidate.from_dict(point)).job.parallel
        return row_of(result) | {"data_parallel": cut.data}

    def result(self, candidate: Candidate) -> Result:
        """Return a candidate's run.

        Raises:
            UserError: GPUs or sequences that cannot be shared out in this way.

        """
        experiment = replace(experiment_at(self.experiment, candidate), contention=self.contention)
        return run_or_refuse(experiment, experiment.choice)


def row_of(result: Result) -> dict[str, object]:
    """Return what a plan's table shows of a run with a model."""
    peaks = [0] if result.memory is None else result.memory.needed_bytes_by_rank.tolist()
    idle_s = result.idle_s_by_cause or {}
    parts_s = (
        result.exposed_alltoall_s_by_rank,
        result.exposed_tensor_parallel_s_by_rank,
        idle_s.get("exposed_transfer"),
    )
    exposed_s = sum(np.mean(part_s or [0.0]) for part_s in parts_s)
    return {
        "step_time_s": result.step_time_s,
        "tokens_per_second_per_gpu": result.tokens_per_second_per_gpu,
        "mfu": result.mfu,
        "bubble_ratio": result.bubble_ratio,
        "exposed_s": float(exposed_s),
        "peak_memory_bytes": max(peaks),
        "fullest_rank": int(np.argmax(peaks)),
        "micro_batches": result.micro_batches,
    }
