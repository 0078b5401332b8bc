"""What runs after what: ops, placements, orders and their text. Imports only ``base``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualpipe_sim.base.lazy import lazy_names

if TYPE_CHECKING:
    from dualpipe_sim.order.builder import OrderBuilder as OrderBuilder
    from dualpipe_sim.order.check import check_order as check_order
    from dualpipe_sim.order.check import check_schedule as check_schedule
    from dualpipe_sim.order.op_times import OpTimes as OpTimes
    from dualpipe_sim.order.ops import Kind as Kind
    from dualpipe_sim.order.ops import Op as Op
    from dualpipe_sim.order.ops import Pair as Pair
    from dualpipe_sim.order.placement import Placement as Placement
    from dualpipe_sim.order.placement import linear as linear
    from dualpipe_sim.order.placement import loop as loop
    from dualpipe_sim.order.placement import opposed as opposed
    from dualpipe_sim.order.placement import v_shape as v_shape
    from dualpipe_sim.order.placement import zigzag as zigzag
    from dualpipe_sim.order.schedule import Schedule as Schedule
    from dualpipe_sim.order.text import format_order as format_order
    from dualpipe_sim.order.text import parse_order as parse_order

_HOME = {
    "Kind": "ops",
    "Op": "ops",
    "OpTimes": "op_times",
    "OrderBuilder": "builder",
    "Pair": "ops",
    "Placement": "placement",
    "Schedule": "schedule",
    "check_order": "check",
    "check_schedule": "check",
    "format_order": "text",
    "linear": "placement",
    "loop": "placement",
    "opposed": "placement",
    "parse_order": "text",
    "v_shape": "placement",
    "zigzag": "placement",
}

__all__ = list(_HOME)

__getattr__, __dir__ = lazy_names(__name__, _HOME)
