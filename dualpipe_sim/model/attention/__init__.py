"""What mixes the tokens of a sequence, a file a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.model.attention.registry import Attention as Attention
    from dualpipe_sim.model.attention.registry import Core as Core
    from dualpipe_sim.model.attention.registry import kinds as kinds
    from dualpipe_sim.model.attention.registry import register as register

_HOME = {
    "Attention": "registry",
    "Core": "registry",
    "kinds": "registry",
    "register": "registry",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
