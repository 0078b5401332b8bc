"""How commands print JSON: an answer that says which it is, or a schema."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from dualpipe_sim.answers import answer, strict_json


def print_answer(command: str, told: Mapping[str, object]) -> None:
    """Print what a command says as JSON, with the name and version of its schema as the first key."""
    print_json(answer(command, told))


def print_json(data: object) -> None:
    """Print data as JSON that every parser reads."""
    typer.echo(strict_json(data))
