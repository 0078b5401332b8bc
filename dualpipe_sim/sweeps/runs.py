"""A configuration at many points, each run as ``dualpipe-sim run`` would run it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dualpipe_sim.base.show import brief
from dualpipe_sim.batch.points import Progress
from dualpipe_sim.errors import ConfigError
from dualpipe_sim.sweeps.table import SweepTable

if TYPE_CHECKING:
    from dualpipe_sim.batch.study import Study


def sweep(
    config: str | Path | Mapping[str, object],
    over: Mapping[str, object] | None = None,
    *,
    workers: int = 1,
    dask: str | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> SweepTable:
    """Run a configuration at every point of a space; a point that fails is a row with ``error``.

    >>> table = sweep("figure5", {"schedules": ["1f1b", "dualpipe"], "micro_batches": [16, 32]})
    >>> [(row["schedule"], row["micro_batches"], row["makespan_s"]) for row in table]
    [('1f1b', 16, 69.0), ('1f1b', 32, 117.0), ('dualpipe', 16, 54.0), ('dualpipe', 32, 102.0)]

    Args:
        config: a YAML file, the name of a packaged one, or a mapping of the same shape; its ``sweep:`` section says
            what varies.
        over: more that varies, lists of values by dotted key, or by a short one as for :func:`~dualpipe_sim.simulate`;
            ``schedules`` are those of ``schedule``. Later axes vary faster, and an axis here replaces one of the same
            key in the section's grid.
        workers: processes on this machine.
        dask: address of a Dask scheduler, such as ``tcp://scheduler:8786``, whose workers run the points instead.
        output: a ``.csv``, ``.jsonl`` or ``.parquet`` file that rows are appended to as they come.
        resume: whether to go on with an ``output`` that is there.
        progress: called with how many of how many points are done.

    Returns:
        A row a point, in the order of the points: their values, the keys of a run, and ``point``, its name.

    Raises:
        ConfigError: nothing varies, or no point is a valid configuration.
        UserError: a file or workers that cannot be used.

    """
    from dualpipe_sim.batch.study import collect

    study = study_of(config, over or {})
    return SweepTable(
        tuple(collect(study, workers=workers, dask=dask, output=output, resume=resume, progress=progress))
    )


def study_of(
    config: str | Path | Mapping[str, object], over: Mapping[str, object], settings: Iterable[str] = ()
) -> Study:
    """Return the points of a configuration and how to run one; ``settings`` are texts such as ``engine=simpy``.

    Raises:
        ConfigError: nothing varies, or no point is a valid configuration.

    """
    from dualpipe_sim.analysis.registry import metrics
    from dualpipe_sim.batch.study import Study
    from dualpipe_sim.config.axes import points_of, with_axes
    from dualpipe_sim.config.load import read_config, sweep_of
    from dualpipe_sim.result import KEYS
    from dualpipe_sim.version import __version__

    data, source = read_config(config, settings=settings)
    factors = with_axes(sweep_of(data, source), over)
    if not factors:
        raise ConfigError(
            f"{source}: sweep: is missing, so nothing varies; say what does there, or by "
            "--over pipeline.micro_batches=16,32,64"
        )
    others = ("sweep", "compare") if "schedule" in data else ("sweep",)
    base = {key: value for key, value in data.items() if key not in others}
    points = points_of(factors)
    # Plugins have been run here, and who sends points to another process sends these along.
    at_points = {key: value for key, value in base.items() if key != "plugins"}
    runs = RunAt(at_points, source, tuple(metrics()))
    runs.check_any(points)
    setting = {key: value for key, value in base.items() if key != "max_memory"}  # of the machine, not of the rows
    return Study(points, runs, [*KEYS, *runs.metrics], [__version__, setting])


@dataclass(frozen=True)
class RunAt:
    """Runs a configuration at a point.

    Attributes:
        base: the configuration as plain data.
        source: what to call it in errors.
        metrics: the registered metrics that a row must have; a process that lacks one refuses the point.

    """

    base: Mapping[str, object]
    source: str
    metrics: tuple[str, ...] = ()

    __repr__ = brief

    def __call__(self, point: Mapping[str, object]) -> dict[str, object]:
        """Return the keys of the run at a point; of one that cannot be, ``error`` says why."""
        from dualpipe_sim.analysis.registry import metrics
        from dualpipe_sim.config import load_experiment

        for name in self.metrics:
            if name not in metrics():
                return self._refused(
                    point,
                    f"metric '{name}' is not registered in the worker process; name its file under plugins:, or take "
                    "one worker",
                )
        try:
            experiment = load_experiment(self.base, point, source=self.source)
        except ConfigError as error:
            return self._refused(point, str(error).removeprefix(f"{self.source}: "))
        from dualpipe_sim.simulation import run_or_refuse

        return run_or_refuse(experiment, experiment.choice).to_dict()

    def check_any(self, points: Iterable[Mapping[str, object]]) -> None:
        """Raise the first point's mistake where no point is a valid configuration, as with a mistyped axis."""
        from dualpipe_sim.config import load_experiment

        first: ConfigError | None = None
        for point in points:
            try:
                load_experiment(self.base, point, source=self.source)
            except ConfigError as error:
                first = first or error
            else:
                return
        if first is not None:
            raise first

    def _refused(self, point: Mapping[str, object], reason: str) -> dict[str, object]:
        schedule = point.get("schedule", self.base.get("schedule"))
        options = dict(schedule) if isinstance(schedule, Mapping) else {"name": schedule}
        return {"schedule": options.pop("name", None), "options": options, "error": reason}
