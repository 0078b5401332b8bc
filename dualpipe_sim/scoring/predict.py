"""What is predicted of one measured run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dualpipe_sim.base.show import brief
from dualpipe_sim.config.load import load_experiment
from dualpipe_sim.errors import UserError
from dualpipe_sim.plan.why_first import causes_s
from dualpipe_sim.scoring.rows import Class
from dualpipe_sim.simulation import run_or_refuse


@dataclass(frozen=True)
class Prediction:
    """One run, predicted and measured.

    >>> one = Prediction("a", "dense", step_time_s=1.1, measured_step_time_s=1.0)
    >>> round(one.error, 3), one.memory_error
    (0.1, None)

    Attributes:
        id: the run's name.
        kind: its class.
        source: where it was published, if that is said.
        gpu: the GPU that it ran on: a preset's name, or the row's own word where there is no such preset.
        precision: what its GEMMs multiply, in the row's word.
        step_time_s: predicted seconds of a step, with gradient reduction and optimizer.
        memory_bytes: predicted peak of allocated bytes of the fullest GPU.
        fits: whether that, with what the software reserves and loses, is no more than the GPU has.
        stack: the software that it is predicted for.
        assumed: what the row does not state, a line each.
        parts_s: predicted seconds by cause; they sum to the step.
        measured_step_time_s: measured seconds of a step.
        measured_memory_bytes: measured peak of allocated bytes.
        unsupported: why nothing is predicted, or None.
        counts: whether the error counts.

    """

    id: str
    kind: Class
    source: str = ""
    gpu: str = ""
    precision: str = ""
    step_time_s: float | None = None
    memory_bytes: int | None = None
    fits: bool | None = None
    stack: str = ""
    assumed: tuple[str, ...] = ()
    parts_s: Mapping[str, float] | None = None
    measured_step_time_s: float | None = None
    measured_memory_bytes: float | None = None
    unsupported: str | None = None
    counts: bool = True

    __repr__ = brief

    @property
    def error(self) -> float | None:
        """Predicted over measured step time, less one; None without both."""
        return _error(self.step_time_s, self.measured_step_time_s)

    @property
    def memory_error(self) -> float | None:
        """The same of memory."""
        return _error(self.memory_bytes, self.measured_memory_bytes)

    def to_dict(self) -> dict[str, object]:
        """Return everything, ready for JSON; of a run that is not predicted only why."""
        named: dict[str, object] = {"id": self.id, "class": self.kind}
        if self.unsupported is not None:
            return named | {"unsupported": self.unsupported}
        return named | {
            "step_time_s": self.step_time_s,
            "memory_bytes": self.memory_bytes,
            "fits": self.fits,
            "stack": self.stack,
            "assumed": list(self.assumed),
            "parts_s": dict(self.parts_s or {}),
            "measured_step_time_s": self.measured_step_time_s,
            "error": self.error,
            "measured_memory_bytes": self.measured_memory_bytes,
            "memory_error": self.memory_error,
        }


def _error(predicted: float | None, measured: float | None) -> float | None:
    return None if predicted is None or measured is None else predicted / measured - 1


def predicted(point: Mapping[str, Any]) -> dict[str, object]:
    """Return what is predicted of a configuration, ``point["config"]``, by the names of :class:`Prediction`.

    Raises:
        UserError: it cannot be simulated.

    """
    experiment = load_experiment(point["config"])
    result = run_or_refuse(experiment, experiment.choice)
    if result.error is not None:
        raise UserError(result.error)
    return {
        "step_time_s": result.step_time_s,
        "memory_bytes": max(result.peak_memory_bytes_by_rank or [0]),
        "fits": result.fits,
        "parts_s": causes_s(result, experiment),
    }
