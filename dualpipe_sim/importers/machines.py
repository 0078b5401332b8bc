"""Machines by the names that others give them."""

from __future__ import annotations

from dualpipe_sim.config.presets import presets, read_preset
from dualpipe_sim.errors import UserError, did_you_mean, quoted
from dualpipe_sim.importers.imported import Keys

_ALIASES = {"a100-40g-sxm": "a100-40g", "h100-96g-hbm2e-500w": "h100-hbm2e", "h100-64g-hbm2e": "h100-hbm2e"}
"""Names whose first part is another GPU's preset."""


def gpu_named(name: str) -> str:
    """Return the preset of a GPU by a longer name of it.

    >>> gpu_named("h100-80g-sxm"), gpu_named("GB200-NVL72"), gpu_named("a100-40g-sxm")
    ('h100', 'gb200', 'a100-40g')

    Raises:
        UserError: there is none.

    """
    known, lower = presets("gpu"), name.lower().replace("_", "-")
    found = _ALIASES.get(lower) or next((one for one in (lower, lower.split("-")[0]) if one in known), None)
    if found is None:
        hint = did_you_mean(lower, known) or f" (known: {', '.join(known)})"
        raise UserError(f"gpu: there is no preset of {quoted(name)}{hint}")
    return found


def machine(gpu: str, gpus: int, *, gpus_per_node: int | None = None, nvlink_domain: int | None = None) -> Keys:
    """Return the sections of a GPU and of the nodes that so many of them are in.

    NVLink joins the GPUs of a node, or of a rack; jobs use as many of those as divide all their GPUs.

    >>> machine("gb200-nvl72", 256, gpus_per_node=4, nvlink_domain=72)["cluster"]
    {'preset': 'gb200-nvl72', 'gpus_per_node': 64}

    Args:
        gpu: a GPU's name.
        gpus: all GPUs of the job.
        gpus_per_node: GPUs of a host.
        nvlink_domain: GPUs that NVLink joins, if not those of a host.

    """
    preset = gpu_named(gpu)
    cluster = str(read_preset("gpu", preset, "gpu").get("cluster") or "h100-ib")
    joined = nvlink_domain or gpus_per_node
    keys: Keys = {"gpu": preset, "cluster": {"preset": cluster}}
    if joined:
        keys["cluster"]["gpus_per_node"] = max(one for one in range(1, min(joined, gpus) + 1) if gpus % one == 0)
    return keys
