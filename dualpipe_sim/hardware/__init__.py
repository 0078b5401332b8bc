"""What a run runs on: GPUs, clusters, links and what collectives achieve. Imports only ``base``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.hardware.cluster import Cluster as Cluster
    from dualpipe_sim.hardware.cluster import Link as Link
    from dualpipe_sim.hardware.cluster import Topology as Topology
    from dualpipe_sim.hardware.collectives import AllToAllKernel as AllToAllKernel
    from dualpipe_sim.hardware.gpu import Gpu as Gpu

_HOME = {
    "AllToAllKernel": "collectives",
    "Cluster": "cluster",
    "Gpu": "gpu",
    "Link": "cluster",
    "Topology": "cluster",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
