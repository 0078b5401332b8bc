"""How commands print JSON: an answer that says which it is, or a schema."""

from __future__ import annotations

from collections.abc import Mapping

from dualpipe_sim.answers import answer, strict_json
from dualpipe_sim.cli.terminal import write


def print_answer(command: str, told: Mapping[str, object]) -> None:
    """Print what a command says as JSON, with the name and version of its schema as the first key."""
    print_json(answer(command, told))


def print_json(data: object) -> None:
    """Print data as JSON that every parser reads."""
    write(strict_json(data) + "\n")
