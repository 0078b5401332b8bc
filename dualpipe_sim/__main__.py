"""The program ``dualpipe-sim``, also as ``python -m dualpipe_sim``."""

import os

from dualpipe_sim.base.signals import stoppable


def main() -> None:
    """Run the command line, which can be stopped from its first import on."""
    with stoppable("dualpipe-sim"):
        _open_standard_files()
        from dualpipe_sim.cli import main as command_line

        command_line()


def _open_standard_files() -> None:
    """Open what a caller has closed of stdin, stdout and stderr: the next file opened would be taken for it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


if __name__ == "__main__":
    main()
