"""The command line: it reads arguments and prints; what it prints comes from the library."""

from dualpipe_sim.cli.app import main

__all__ = ["main"]
