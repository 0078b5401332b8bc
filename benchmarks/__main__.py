"""Print all measurements as Markdown: ``python -m benchmarks``."""

from __future__ import annotations

from benchmarks import machine, sections
from benchmarks.live_page import live_page

SECTIONS = {
    "Stages of a run, ms": sections.stages,
    "From name to metrics": sections.whole_runs,
    "The SimPy engine against bare SimPy": sections.against_bare_simpy,
    "The whole run on SimPy against bare SimPy": sections.name_to_metrics_against_bare_simpy,
    "Programs of runtimes": sections.programs,
    "Many scenarios of one graph": sections.scenarios,
    "Many orders of the same tasks, µs": sections.many_orders,
    "Walks of a search": sections.walks,
    "Sweeps": sections.sweep_points,
    "Sweeps where only numbers change": sections.number_points,
    "Robust choice": sections.robust_choice,
    "Maps of regimes": sections.regime_maps,
    "Plans": sections.plans,
    "Growth": sections.linearity,
    "Cold start": sections.cold_start,
    "The live page": live_page,
}


def main() -> None:
    """Run every section and print it as soon as it is there."""
    print(f"{machine.describe()}\n")
    for title, section in SECTIONS.items():
        print(f"## {title}\n\n{section()}\n", flush=True)


if __name__ == "__main__":
    main()
