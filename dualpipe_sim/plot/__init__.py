"""Pictures of timelines, drawn with matplotlib's object interface; nothing here touches pyplot's state."""

from dualpipe_sim.plot.files import save
from dualpipe_sim.plot.gantt import compare_gantt, gantt
from dualpipe_sim.plot.tradeoff import bubble_against_activations

__all__ = ["bubble_against_activations", "compare_gantt", "gantt", "save"]
