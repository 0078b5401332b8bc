"""Sweeps: one configuration at many points, each a row of a table; resumable, on processes or a Dask cluster.

Imports ``simulation``, ``config``, ``result`` and ``batch``.
"""

from dualpipe_sim.sweeps.runs import sweep
from dualpipe_sim.sweeps.table import SweepTable, read_table

__all__ = ["SweepTable", "read_table", "sweep"]
