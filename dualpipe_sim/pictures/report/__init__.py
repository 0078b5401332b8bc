"""A run or a comparison as one page for a browser: Gantt, memory, causes of idle time, table, configuration.

Imports ``analysis``, ``graph``, ``order``, and of ``pictures`` what it shares with ``plot``: colours and
boxes.
"""

from dualpipe_sim.pictures.report.data import Run
from dualpipe_sim.pictures.report.page import (
    Page,
    check_suffix,
    page,
    page_data,
    page_style,
    policy,
    viewer_script,
    viewer_style,
    widget_module,
)

__all__ = [
    "Page",
    "Run",
    "check_suffix",
    "page",
    "page_data",
    "page_style",
    "policy",
    "viewer_script",
    "viewer_style",
    "widget_module",
]
