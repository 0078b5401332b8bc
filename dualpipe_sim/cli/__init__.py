"""The command line: it reads arguments and prints; what it prints comes from the library.

May import every folder; no folder imports it, and nothing else imports typer or rich.
"""

from dualpipe_sim.cli.app import main

__all__ = ["main"]
