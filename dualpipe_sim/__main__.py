"""The program ``dualpipe-sim``, also as ``python -m dualpipe_sim``."""

from dualpipe_sim.base.signals import stoppable


def main() -> None:
    """Run the command line, which can be stopped from its first import on."""
    with stoppable("dualpipe-sim"):
        from dualpipe_sim.cli import main as command_line

        command_line()


if __name__ == "__main__":
    main()
