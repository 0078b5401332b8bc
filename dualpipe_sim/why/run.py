"""From a configuration to why its run takes as long as it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from dualpipe_sim.analysis.critical_path import critical_path
from dualpipe_sim.experiment import Experiment
from dualpipe_sim.simulation import run
from dualpipe_sim.why.bubble import Over, bubble_of
from dualpipe_sim.why.outcome import Why
from dualpipe_sim.why.sensitivity import of_costs, of_hardware, step_time_s


def why(config: str | Path | Mapping[str, object] | None = None, **overrides: object) -> Why:
    """Run the schedule of a configuration and say why its step takes as long as it does.

    >>> print(why("figure5", schedule="zb-h1").bubble.in_letters())
    7 F + 7 I - 7 W

    Args:
        config: as for :func:`dualpipe_sim.simulate`.
        overrides: as for :func:`dualpipe_sim.simulate`.

    Raises:
        ConfigError: what is wrong with the configuration, in one line.
        ScheduleError: the schedule cannot do these sizes.

    """
    from dualpipe_sim.config.load import in_full, load_experiment

    return why_run(load_experiment(config, in_full(overrides)))


def why_run(experiment: Experiment) -> Why:
    """Run the schedule of an experiment and say why its step takes as long as it does; errors as for :func:`why`.

    >>> from dualpipe_sim.config import load_experiment
    >>> why_run(load_experiment("figure5")).path.seconds_by_part()
    {'compute': 66.0}
    """
    result = run(experiment)
    timeline = result.played
    with experiment.named():
        return Why(
            result=result,
            step_s=step_time_s(timeline),
            path=critical_path(timeline),
            costs=of_costs(timeline, experiment),
            hardware=of_hardware(timeline, experiment),
            bubble=bubble_of(timeline, cast("Over", (result.theory or {}).get("over", "makespan"))),
            lettered=getattr(experiment.costs, "uniform_times", None) is not None,
        )
