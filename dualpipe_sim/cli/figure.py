"""Options that say how a chart is drawn: for which paper, in which font and colours, with what beside it."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import typer

Size: TypeAlias = Annotated[
    str | None,
    typer.Option("--size", metavar="SIZE", help="single-column, double-column, or 6x4 (inches), 16x9cm, 160x90mm."),
]
FontSize: TypeAlias = Annotated[
    float | None, typer.Option("--font-size", metavar="POINTS", help="Size of text; default: one that suits --size.")
]
Font: TypeAlias = Annotated[str | None, typer.Option("--font", metavar="NAME", help="Family of the font.")]
Legend: TypeAlias = Annotated[bool, typer.Option("--legend/--no-legend", help="Say what colours mean.")]
NumbersShown: TypeAlias = Annotated[bool, typer.Option("--numbers/--no-numbers", help="Number micro-batches.")]
Causes: TypeAlias = Annotated[
    bool | None,
    typer.Option("--causes/--no-causes", help="Colour idle time by its cause; default: where there is room for sums."),
]
Path: TypeAlias = Annotated[
    bool, typer.Option("--critical-path", help="Draw the chain of waits that the run is as long as, and sum it up.")
]
Title: TypeAlias = Annotated[
    str | None, typer.Option("--title", metavar="TEXT", help="What stands above; an empty text for nothing.")
]
Palette: TypeAlias = Annotated[
    str, typer.Option("--palette", metavar="NAME", help="Colours of kinds of ops: deepseek, okabe-ito or grey.")
]
Dark: TypeAlias = Annotated[bool, typer.Option("--dark", help="Draw on a dark ground.")]


def drawn(  # noqa: PLR0913, PLR0917 - each is an option
    size: str | None,
    font_size: float | None,
    font: str | None,
    legend: bool,
    numbers: bool,
    causes: bool | None,
    critical_path: bool,
    title: str | None,
    palette: str,
    dark: bool,
) -> dict[str, Any]:
    """Return what the options say, as the plots' arguments."""
    return {
        "size": size,
        "font_size": font_size,
        "font": font,
        "legend": legend,
        "numbers": "auto" if numbers else "none",
        "causes": causes,
        "critical_path": critical_path,
        "title": title,
        "palette": palette,
        "theme": "dark" if dark else "light",
    }
