"""Pictures of timelines, drawn with matplotlib's object interface; nothing here touches pyplot's state.

Imports ``analysis``, ``graph``, ``order``, and of ``pictures`` what it shares with ``report``: colours and
boxes. Nothing else imports matplotlib.
"""

from dualpipe_sim.pictures.plot.animation import animate, check_animation
from dualpipe_sim.pictures.plot.content import Term
from dualpipe_sim.pictures.plot.files import check_format, save
from dualpipe_sim.pictures.plot.gantt import compare_gantt, gantt
from dualpipe_sim.pictures.plot.idle import idle_by_cause
from dualpipe_sim.pictures.plot.layers import layer_bars
from dualpipe_sim.pictures.plot.memory import activations_over_time, memory_over_time
from dualpipe_sim.pictures.plot.memory_stack import memory_stack
from dualpipe_sim.pictures.plot.pair import pair_figure
from dualpipe_sim.pictures.plot.plan import plan_chart
from dualpipe_sim.pictures.plot.regimes import regime_chart
from dualpipe_sim.pictures.plot.sensitivity import Dependence, sensitivity_bars
from dualpipe_sim.pictures.plot.sweep import bubble_curves, bubble_heatmap
from dualpipe_sim.pictures.plot.tradeoff import bubble_against_activations

__all__ = [
    "Dependence",
    "Term",
    "activations_over_time",
    "animate",
    "bubble_against_activations",
    "bubble_curves",
    "bubble_heatmap",
    "check_animation",
    "check_format",
    "compare_gantt",
    "gantt",
    "idle_by_cause",
    "layer_bars",
    "memory_over_time",
    "memory_stack",
    "pair_figure",
    "plan_chart",
    "regime_chart",
    "save",
    "sensitivity_bars",
]
