"""``python -m dualpipe_sim`` is ``dualpipe-sim``."""

from dualpipe_sim.cli import main

main()
