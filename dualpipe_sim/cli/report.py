"""The command report: a configuration's runs as one page for a browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dualpipe_sim.cli.app import app, example
from dualpipe_sim.cli.arguments import Config, Output, Settings, simulates
from dualpipe_sim.cli.terminal import line


@app.command(epilog=example("report figure5 -o report.html"))
@simulates
def report(config: Config, output: Output, settings: Settings = None) -> None:
    """Write one HTML page that needs no network: Gantt to zoom and hover over, memory, idle time by cause, table.

    It shows the schedules that the configuration compares, or its only one.
    """
    from dualpipe_sim.base.files import read_text
    from dualpipe_sim.config import load_experiment
    from dualpipe_sim.pictures.report import check_suffix
    from dualpipe_sim.scoring.accuracy import error_bar, remarks
    from dualpipe_sim.simulation import run_all

    check_suffix(output)
    experiment = load_experiment(config, settings=settings or ())
    changes = "".join(f"\n# --set {setting}" for setting in settings or ())
    text = read_text(experiment.source).rstrip("\n") + changes
    runs = run_all(experiment)
    runs = replace(runs, remarks=remarks(runs, error_bar(experiment)))
    runs.report(Path(experiment.source).stem, text, str(experiment.choice)).save(output)
    line(f"{output}: {Path(output).stat().st_size / 1e3:,.0f} kB")
