"""Pictures of timelines, drawn with matplotlib's object interface; nothing here touches pyplot's state."""

from dualpipe_sim.plot.files import save
from dualpipe_sim.plot.gantt import compare_gantt, gantt
from dualpipe_sim.plot.sweep import bubble_curves, bubble_heatmap
from dualpipe_sim.plot.tradeoff import bubble_against_activations

__all__ = [
    "bubble_against_activations",
    "bubble_curves",
    "bubble_heatmap",
    "compare_gantt",
    "gantt",
    "save",
]
