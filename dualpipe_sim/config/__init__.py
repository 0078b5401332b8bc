"""From YAML to an experiment: frozen, units parsed, every error with its place in the file.

Imports ``experiment`` and what it is made of: ``costs``, ``engine``, ``schedules``, ``runtimes``, ``model``,
``hardware``, ``order``. Nothing else imports yaml or pydantic.
"""

from dualpipe_sim.config.load import load_experiment, packaged_configs

__all__ = ["load_experiment", "packaged_configs"]
