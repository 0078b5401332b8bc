"""How objects show themselves: a line as their ``repr``, a table that fits the terminal, the same table as HTML."""

from __future__ import annotations

import re
import shutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from html import escape  # noqa: TID251 - this is the place
from itertools import zip_longest
from reprlib import Repr
from typing import Any

from dualpipe_sim.errors import visible

_LONGEST_LINE = 240
_LONGEST_CELL = 120
LEFT = "text-align: left"
"""The one style that cells of tables have."""
_LEFT = f' style="{LEFT}"'
_NARROWEST = 12
"""Characters that a column of words has at least."""

SHOWN_ROWS = 20
"""Rows that a table shows, however many there are."""


class _Short(Repr):
    """Looks at the beginning of a value only; of an array it says what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 2
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 3
        self.maxstring = self.maxother = 60

    def repr_ndarray(self, array: Any, _level: int) -> str:  # noqa: ANN401 - the ground knows no numpy
        return f"<{array.dtype} {' × '.join(map(str, array.shape))}>"


_SHORT = _Short()


def on_one_line(text: str) -> str:
    r"""Return a text in which nothing acts on a terminal or a page, its lines put one behind the other.

    >>> on_one_line("a\n\x1b[2Jb")
    'a \\x1b[2Jb'
    """
    return text if text.isprintable() else visible(re.sub(r"\s*[\n\r\t]\s*", " ", text))


def all_on_one_line(data: Any) -> Any:  # noqa: ANN401 - as JSON has it
    """Return plain data with all its texts as :func:`on_one_line` makes them, keys included."""
    if isinstance(data, str):
        return on_one_line(data)
    if isinstance(data, Mapping):
        return {all_on_one_line(key): all_on_one_line(one) for key, one in data.items()}
    return [all_on_one_line(one) for one in data] if isinstance(data, (list, tuple)) else data


def in_html(text: str) -> str:
    r"""Return a text as a page shows it, in an element or an attribute; its lines stay.

    >>> in_html("<b>\x1b&")
    '&lt;b&gt;\\x1b&amp;'
    """
    return escape(visible(text))


def line(thing: object, *words: str) -> str:
    """Return a ``repr`` that says what a thing is and no more: its class and some words, none of them empty.

    >>> line(ValueError(), "1f1b", "", "4 ranks")
    '<ValueError 1f1b, 4 ranks>'
    """
    said = " ".join(visible(", ".join(filter(None, words))).split())
    return f"<{type(thing).__name__} {cut(said, _LONGEST_LINE)}>"


def brief(thing: object) -> str:
    """Return the ``repr`` of a dataclass or named tuple, its values cut short, and as many fields as fit a line."""
    names = [one.name for one in fields(thing) if one.repr] if is_dataclass(thing) else thing._fields  # type: ignore[attr-defined]
    said = f"{type(thing).__name__}("
    for place, name in enumerate(names):
        value = f"{', ' if place else ''}{name}={_SHORT.repr(getattr(thing, name))}"
        if len(said) + len(value) > _LONGEST_LINE:
            return f"{said}, …)"
        said += value
    return f"{said})"


def cut(text: str, longest: int) -> str:
    """Return a text, cut short with "…" where it is longer.

    >>> cut("interleaved", 6)
    'inter…'
    """
    return text if len(text) <= longest else f"{text[: max(longest - 1, 0)]}…"


@dataclass(frozen=True)
class Table:
    """Texts in rows, to be written for a terminal or for a browser.

    Where a terminal is narrow, words go on in the next line. Numbers never do, nor are they cut: a column that has no
    place is left out, the last one first, and named below.

    Attributes:
        headings: what stands above the columns.
        rows: the cells; in a row with fewer than there are columns, the last cell reaches to the end.
        words: the headings of columns of words, which stand at the left and give way; all others hold numbers.
        title: what stands above.
        notes: sentences that stand below.
        of: how many rows there are, where ``rows`` are the first of more.
        most: rows that are shown.

    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[str] = ()
    title: str = ""
    notes: Sequence[str] = ()
    of: int = 0
    most: int = SHOWN_ROWS

    def __post_init__(self) -> None:
        """Make its texts such that nothing in them acts on whatever shows them, and each is one line."""
        for name in ("headings", "words", "notes"):
            object.__setattr__(self, name, _on_one_line(getattr(self, name)))
        object.__setattr__(self, "rows", self.rows if _are_seen(self.rows) else list(map(_on_one_line, self.rows)))
        object.__setattr__(self, "title", on_one_line(self.title))

    def text(self, width: int) -> str:
        """Return the table with no line longer than ``width``; below it stands what was left out.

        >>> print(Table(["schedule", "makespan", "bubble"], [["1f1b", "66 s", "9.1%"]], ["schedule"]).text(20))
        schedule  makespan
        ────────  ────────
        1f1b          66 s
        … 1 more column:
        bubble
        """
        gap, widths = self._fitting(width)
        rule = ["─" * one for one in widths] + [""] * (len(self.headings) - len(widths))
        rows = [*self._above(widths), rule, *self._shown]
        lines = [line for row in rows for line in self._lines(row, widths, gap, width)] if self.headings else []
        return "\n".join([*wrapped(self.title, width), *lines, *self._below(width, len(widths))])

    def written(self, form: str) -> str:
        r"""Return the table, all its rows, in ``latex`` (with booktabs) or ``markdown``.

        >>> print(Table(["schedule", "bubble"], [["1f1b", "9.1%"]], ["schedule"]).written("markdown"), end="")
        | schedule | bubble |
        |---|--:|
        | 1f1b | 9.1% |
        """
        rows = [[*row, *[""] * (len(self.headings) - len(row))] for row in self.rows]
        return {"latex": self._latex, "markdown": self._markdown}[form](rows)

    def _latex(self, rows: Sequence[Sequence[str]]) -> str:
        sides = "".join("l" if heading in self.words else "r" for heading in self.headings)
        lines = [" & ".join(map(_in_latex, row)) + r" \\" for row in (self.headings, *rows)]
        ruled = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        notes = [f"% {note}" for note in self.notes]
        return "\n".join([rf"\begin{{tabular}}{{{sides}}}", *ruled, r"\end{tabular}", *notes, ""])

    def _markdown(self, rows: Sequence[Sequence[str]]) -> str:
        sides = ["---" if heading in self.words else "--:" for heading in self.headings]
        cells = [list(map(_in_markdown, row)) for row in (self.headings, *rows)]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        lines.insert(1, f"|{'|'.join(sides)}|")
        notes = [line for note in self.notes for line in ("", _in_markdown(note))]
        return "\n".join([*lines, *notes, ""])

    def html(self) -> str:
        """Return the table as HTML, every text escaped."""
        head = "".join(f"<th{self._side(heading)}>{escape(heading)}</th>" for heading in self.headings)
        body = "".join(f"<tr>{self._html_cells(row)}</tr>" for row in self._shown)
        caption = f"<caption{_LEFT}>{escape(self.title)}</caption>" if self.title else ""
        below = "<br>".join(map(escape, (*self._left_out, *self.notes)))
        table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"{table}<p>{below}</p>" if below else table

    @property
    def _shown(self) -> Sequence[Sequence[str]]:
        return self.rows[: self.most]

    @property
    def _left_out(self) -> list[str]:
        rows, shown = max(self.of, len(self.rows)), len(self._shown)
        return [f"{rows:,} rows, the first {shown} shown"] if rows > shown else []

    def _reaches(self, row: Sequence[str]) -> bool:
        return len(row) < len(self.headings)

    def _fitting(self, width: int) -> tuple[int, list[int]]:
        """Return the space between columns, and the widths of as many columns as fit."""
        whole = [self._whole_width(column) for column in range(len(self.headings))]
        for count in range(len(whole), 1, -1):
            for gap, least in ((2, width), (1, width), (1, _NARROWEST)):
                widths, excess = whole[:count], sum(whole[:count]) + gap * (count - 1) - width
                for column in sorted(self._word_columns(count), key=lambda column: -whole[column]):
                    less = max(0, min(excess, widths[column] - least))
                    widths[column] -= less
                    excess -= less
                if excess <= 0:
                    return gap, widths
        return 1, [min(one, width) for one in whole[:1]]

    def _word_columns(self, count: int) -> list[int]:
        return [column for column in range(count) if self.headings[column] in self.words]

    def _whole_width(self, column: int) -> int:
        cells = (row[column] for row in self._shown if column < len(row) - self._reaches(row))
        heading = self.headings[column]
        return max(map(len, [" ", *cells, *([heading] if heading in self.words else heading.split())]))

    def _above(self, widths: Sequence[int]) -> Iterator[Sequence[str]]:
        """Yield the lines of the headings, the last one right above the numbers."""
        cells = [wrapped(heading, one) for heading, one in zip(self.headings, widths, strict=False)]
        most = max(map(len, cells), default=0)
        hidden = [""] * (len(self.headings) - len(widths))
        yield from ([*line, *hidden] for line in zip(*([""] * (most - len(one)) + one for one in cells), strict=True))

    def _lines(self, row: Sequence[str], widths: Sequence[int], gap: int, width: int) -> Iterator[str]:
        """Yield the lines of a row: cells of words go on in the next line, other cells are cut."""
        own, reaching = list(widths[: len(row)]), self._reaches(row)
        if reaching:
            own[len(row) - 1 :] = [width - sum(own[: len(row) - 1]) - gap * (len(row) - 1)]
            if len(own) < len(row) or own[-1] < _NARROWEST:  # no place beside the others
                yield from wrapped(", ".join(row), width)
                return
        aligned = ["<" if heading in self.words else ">" for heading in self.headings]
        aligned[len(row) - reaching :] = ["<"] * reaching
        cells = [wrapped(cell, one) or [""] for cell, one in zip(row, own, strict=False)]
        for parts in zip_longest(*cells, fillvalue=""):
            texts = (f"{cut(part, one):{side}{one}}" for part, one, side in zip(parts, own, aligned, strict=False))
            yield (" " * gap).join(texts).rstrip()

    def _below(self, width: int, columns: int) -> list[str]:
        hidden = self.headings[columns:]
        more = [f"… {len(hidden)} more column{'s' * (len(hidden) > 1)}: {', '.join(hidden)}"] if hidden else []
        rows = [f"… {text}" for text in self._left_out]
        return [part for note in (*rows, *more, *self.notes) for part in wrapped(note, width)]

    def _html_cells(self, row: Sequence[str]) -> str:
        whole = row[:-1] if self._reaches(row) else row
        cells = (
            f"<td{self._side(heading)}>{escape(cut(text, _LONGEST_CELL))}</td>"
            for heading, text in zip(self.headings, whole, strict=False)
        )
        reaching = (
            f'<td colspan="{len(self.headings) - len(whole)}"{_LEFT}>{escape(text)}</td>' for text in row[len(whole) :]
        )
        return "".join((*cells, *reaching))

    def _side(self, heading: str) -> str:
        return _LEFT if heading in self.words else ""


def _are_seen(rows: Iterable[Iterable[str]]) -> bool:
    return all(text.isprintable() for row in rows for text in row)


def _on_one_line(texts: Collection[str]) -> Collection[str]:
    """Return the texts, the same ones where each is on one line already."""
    return texts if _are_seen([texts]) else [on_one_line(text) for text in texts]


_LATEX = {
    **{mark: rf"\{mark}" for mark in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "×": r"$\times$",
    "µ": r"\textmu{}",
    "–": "--",
    "−": "$-$",
}


def _in_latex(text: str) -> str:
    """Return a text with what LaTeX takes for its own written out."""
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _in_markdown(text: str) -> str:
    """Return a text with what Markdown takes for a cell's end, a tag or a link written out."""
    return re.sub(r"[\\|<\[]", r"\\\g<0>", text)


class Tabular(ABC):
    """What shows itself as a table: on a terminal where it is printed, in a notebook as HTML."""

    @abstractmethod
    def to_table(self) -> Table:
        """Return the table that this shows itself as."""

    def __str__(self) -> str:
        return self.to_table().text(shutil.get_terminal_size().columns)

    def _repr_html_(self) -> str:
        return self.to_table().html()


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines; a word that is longer than a line is parted, one that is longer than two is cut.

    >>> wrapped("interleaved_1f1b is 0F0,0F1,0F2,0F3,0F4,0F5,0F6", 12)
    ['interleaved_', '1f1b is', '0F0,0F1,0F2…']
    """
    width = max(width, 1)
    words = [word if len(word) <= 2 * width else cut(word, width) for word in text.split()]
    long = any(len(word) > width for word in words)
    return textwrap.wrap(" ".join(words), width, break_on_hyphens=long)
