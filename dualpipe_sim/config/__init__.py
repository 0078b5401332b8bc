"""From YAML to an experiment: frozen, units parsed, every error with its place in the file."""

from dualpipe_sim.config.load import load_experiment, packaged_configs

__all__ = ["load_experiment", "packaged_configs"]
