"""Who published a schedule and who runs it, as docs/schedules.yaml says: citations as text and as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

SAID: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "schedules.yaml").read_text(encoding="utf-8"))
_MOST_NAMED = 4  # authors, before the rest are "et al."


def said_of(schedule: str) -> dict[str, Any]:
    """Return what the file says of a schedule."""
    if schedule not in SAID["schedules"]:
        raise LookupError(f"docs/schedules.yaml: say below schedules whom a page of {schedule} cites, and what runs it")
    return SAID["schedules"][schedule]  # type: ignore[no-any-return]


def citations(keys: Iterable[str]) -> str:
    """Return citations as a list and as entries for BibTeX."""
    cited = [(key, SAID["citations"][key]) for key in keys]
    entries = "\n".join(bibtex(key, one) for key, one in cited)
    return "\n".join(f"- {citation(one)}" for _, one in cited) + f"\n\n```bibtex\n{entries}```"


def citation(one: Mapping[str, Any]) -> str:
    """Return a citation as text."""
    names = [" ".join(reversed(name.strip("{}").split(", "))) for name in one["authors"].split(" and ")]
    shown = names[:-1] if names[-1] == "others" else names[:_MOST_NAMED]
    authors = ", ".join(shown) + ("" if shown == names else " et al.")
    year, venue = str(one["year"]), one.get("venue", "")
    first = "" if venue.endswith(year[2:]) else f" (first {year})"
    return f"{authors}: *{one['title']}*. {f'{venue}{first}' if venue else year}, <{address(one)}>"


def address(one: Mapping[str, Any]) -> str:
    """Return where a citation is to be found."""
    return f"https://arxiv.org/abs/{one['arxiv']}" if "arxiv" in one else str(one["link"])


def bibtex(key: str, one: Mapping[str, Any]) -> str:
    """Return a citation's entry for BibTeX."""
    fields = {"title": f"{{{one['title']}}}", "author": one["authors"], "year": one["year"]}
    fields |= {"howpublished": one["venue"]} if "venue" in one else {}
    fields |= {"eprint": one["arxiv"], "archivePrefix": "arXiv"} if "arxiv" in one else {}
    fields |= {"url": address(one)}
    lines = "".join(f"  {name} = {{{value}}},\n" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}}}\n"


def year_of(key: str) -> str:
    """Return the year of a citation."""
    return str(SAID["citations"][key]["year"])
