"""A live page on this machine: settings by slider, answers as charts, and the whole experiment in the URL.

A link is text: the name of a packaged configuration or YAML in full, and settings (``link``). From it follows everything
that the page shows and gives (``answer``, ``downloads``), in worker processes that a clock watches (``workers``), behind a
few routes (``server``). Nothing but starlette and uvicorn is used here that other folders do not use, and nobody else uses
these two.
"""

from dualpipe_sim.explore.link import Link, Start

__all__ = ["Link", "Start"]
