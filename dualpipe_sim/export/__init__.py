"""Timelines for other programs: Perfetto, Holistic Trace Analysis, simulators of networks.

Each writer is a function of a :class:`~dualpipe_sim.graph.timeline.Timeline` and a place; files are written whole or
not at all. Imports ``analysis``, ``graph`` and ``order``.
"""

from dualpipe_sim.export.chakra import write_chakra
from dualpipe_sim.export.chrome import write_chrome
from dualpipe_sim.export.hta import write_hta

__all__ = ["write_chakra", "write_chrome", "write_hta"]
