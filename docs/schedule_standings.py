"""Where a schedule is the fastest and what is faster elsewhere, from the runs of make_situations.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from make_situations import LIMITS, MICRO_BATCHES, PAIRS, RANKS, TRANSFERS, Row

from dualpipe_sim.schedules.registry import schedules

COLUMNS = [(micro_batches, transfer) for micro_batches in MICRO_BATCHES for transfer in TRANSFERS]
HEAD = [f"M {micro_batches}<br>C {transfer:g}" for micro_batches, transfer in COLUMNS]

_ROUNDING = 1e-6
_MOST_NAMED = 2


class Situation(NamedTuple):
    """What a standing is of: time of a pair over that of F + B, limit on activations, micro-batches, transfer."""

    pair: float
    limit: float | None
    micro_batches: int
    transfer: float


class Standing(NamedTuple):
    """How a schedule stands in one situation.

    Attributes:
        over: how much longer its step takes than the fastest one's, as a share; None where it does not fit.
        fastest: the fastest schedules.
        options: its own best options there.

    """

    over: float | None
    fastest: tuple[str, ...]
    options: str = ""


class Means(NamedTuple):
    """What a schedule needs beside its order.

    Attributes:
        copies: of the parameters.
        splits: backwards split into I and W.
        pairs: forwards and backwards that overlap.
        cuts: micro-batches that are cut.
        host: the host's memory.

    """

    copies: int = 1
    splits: bool = False
    pairs: bool = False
    cuts: bool = False
    host: bool = False

    def allow(self, row: Row) -> bool:
        """Whether a run needs no more."""
        return all(needed <= allowed for needed, allowed in zip(_means(row), self, strict=True))


def _means(row: Row) -> Means:
    return Means(row.copies, row.splits, row.pair is not None, row.cuts, row.host)


class Standings(NamedTuple):
    """How a schedule stands.

    Attributes:
        contest: whose costs; see make_situations.py.
        means: the least that it can do with.
        found: how it stands by situation among those that need no more; without situations in which nothing fits.
        beside_more: the same among those that may need more, by what that is.

    """

    contest: str
    means: Means
    found: Mapping[Situation, Standing]
    beside_more: Mapping[str, Mapping[Situation, Standing]]


def standings(name: str, rows: Sequence[Row]) -> Standings:
    """Return how a schedule stands."""
    own = [row for row in rows if row.schedule == name]
    contest = "plain" if any(row.contest == "plain" for row in own) else own[0].contest
    rows = [row for row in rows if row.contest == contest]
    means = Means(*(min(needed) for needed in zip(*map(_means, own), strict=True)))
    gains = PAIRS if means.pairs and contest == "plain" else PAIRS[:1]
    split, overlap, more = "split backwards", f"overlap pairs, to {PAIRS[1]:g} (F + B)", {}
    if not means.splits:
        more[split] = _standing_in(name, rows, means._replace(splits=True), PAIRS[:1])
    if not means.pairs and contest == "plain":
        both = overlap if means.splits else f"{split} and {overlap}"
        more[both] = _standing_in(name, rows, means._replace(splits=True, pairs=True), PAIRS[1:])
    return Standings(contest, means, _standing_in(name, rows, means, gains), more)


def _standing_in(name: str, rows: Sequence[Row], means: Means, pairs: Iterable[float]) -> dict[Situation, Standing]:
    rivals = [row for row in rows if means.allow(row)]
    return {at: _standing(name, fit) for at in _all_situations(pairs) if (fit := _fitting(rivals, at))}


def _all_situations(pairs: Iterable[float]) -> Iterator[Situation]:
    return (Situation(pair, limit, *column) for pair in pairs for limit in LIMITS for column in COLUMNS)


def _fitting(rows: Iterable[Row], at: Situation) -> list[Row]:
    """Return the runs of a situation that fit its limit."""
    return [
        row
        for row in rows
        if (row.micro_batches, row.transfer) == (at.micro_batches, at.transfer)
        and row.pair in (None, at.pair)
        and (at.limit is None or row.peak <= at.limit + _ROUNDING)
    ]


def _standing(name: str, rows: Sequence[Row]) -> Standing:
    best, own = _fastest(rows), [row for row in rows if row.schedule == name]
    if not own:
        return Standing(None, best)
    mine = min(own, key=lambda row: row.makespan)
    return Standing(mine.makespan / min(row.makespan for row in rows) - 1, best, mine.options)


def _fastest(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the names of the schedules with the shortest step."""
    least = min(row.makespan for row in rows)
    return tuple(dict.fromkeys(row.schedule for row in rows if row.makespan <= least * (1 + _ROUNDING)))


# On a schedule's page.


def when_to_use(name: str, its: Standings) -> str:
    """Return where a schedule is the fastest, and what is faster elsewhere."""
    parts = [f"{_beside(its)} On {RANKS} ranks, F = I = W = 1:"]
    for pair in sorted({at.pair for at in its.found}, reverse=True):
        here = {at: one for at, one in its.found.items() if at.pair == pair}
        gain = "where pairs gain nothing" if pair == 1 else f"where an overlapped pair takes {pair:g} (F + B)"
        where = f" {gain}" if its.means.pairs else ""
        parts.append(f"**{_won(name, here)}{where}**{_elsewhere(name, here)}.")
        rows = (
            (limit, [_cell(name, here.get(Situation(pair, limit, *column))) for column in COLUMNS]) for limit in LIMITS
        )
        parts.append(dense(("at most", *HEAD), ((label, *cells) for label, cells in merged(rows))))
    options = Counter(one.options for one in its.found.values() if one.options)
    if len(options) > 1:
        often = ", ".join(f"`{words}` in {times}" for words, times in options.most_common(3))
        parts.append(f"Its best options: {often} of {sum(options.values())}.")
    for what, found in its.beside_more.items():
        parts.append(f"Where others may {what}: {_won(name, found).lower()}{_elsewhere(name, found)}.")
    parts.append(
        "*M micro-batches, transfers of C; a row is a limit on the activations of a rank. +3 % zb-v: its step is 3 % "
        "longer than that of the fastest, zb-v; –: it does not fit. [Every run](situations.csv), "
        "[how they were played](index.md#which-is-fastest-where).*"
    )
    return "\n\n".join(parts)


def _beside(its: Standings) -> str:
    """Say with which others a schedule is compared."""
    means = its.means
    copies = "one copy" if means.copies == 1 else f"{means.copies} copies"
    needs = [f"{copies} of the parameters", *([] if means.cuts else ["whole micro-batches"])]
    needs += ["split backwards" if means.splits else "whole backwards", "pairs" if means.pairs else "no pairs"]
    needs += ["copies to the host of 1 for a rank's share"] if means.host else []
    said = f"Beside the schedules that need no more than it ({', '.join(needs)})."
    if its.contest == "recompute":
        return (
            f"{said} Of every forward the input alone is held and the rest runs again: here as an op of its own, in "
            "others as a part of I, which takes 2."
        )
    if its.contest == "vocabulary":
        return (
            f"{said} The output layer takes as long as all else on a rank; others have it on their last stage. What "
            "ranks sum up at barriers takes no time."
        )
    return said


def _won(name: str, found: Mapping[Situation, Standing]) -> str:
    won = sum(name in one.fastest for one in found.values())
    if won in (0, len(found)):
        return "Fastest everywhere" if won else "Nowhere the fastest"
    return f"Fastest in {won} of {len(found)} situations"


def _elsewhere(name: str, found: Mapping[Situation, Standing]) -> str:
    ahead = Counter(one.fastest[0] for one in found.values() if one.over is not None and name not in one.fastest)
    too_full = sum(one.over is None for one in found.values())
    said = [""]
    if ahead:
        said.append("behind " + ", ".join(f"{link(other)} in {times}" for other, times in ahead.most_common(3)))
    if too_full:
        said.append(f"too large in {too_full}")
    return "; ".join(said)


def _cell(name: str, one: Standing | None) -> str:
    if one is None or one.over is None:
        return "–"
    if name not in one.fastest:
        return f"+{100 * one.over:.2g} % {link(one.fastest[0])}"
    others = [link(other) for other in one.fastest if other != name]
    return "**fastest**" if not others else f"**fastest**, as {_some(others)}"


def merged(rows: Iterable[tuple[float | None, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Yield rows of limits, with neighbours that say the same as one."""
    for cells, same in groupby(rows, key=lambda row: row[1]):
        yield ", ".join("any" if limit is None else f"{limit:g}" for limit, _ in same), cells


def dense(head: Sequence[str], rows: Iterable[Sequence[str]], *, also: str = "") -> str:
    """Return a table whose columns stand close, in a box that the site's style sheet and script know."""
    table = "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
    return f'<div class="dense{also}" markdown="1">\n\n{table}\n\n</div>'


def link(name: str) -> str:
    """Return a link to a schedule's page from beside it."""
    return f"[{name}]({name}.md)"


def _some(links: Sequence[str]) -> str:
    return ", ".join(links[:_MOST_NAMED]) + (" …" if len(links) > _MOST_NAMED else "")


# On the index.

_USES = (
    ("whole backwards", Means(), 1.0),
    ("split backwards", Means(splits=True), 1.0),
    ("split backwards, pairs 0.8", Means(splits=True, pairs=True), 0.8),
    ("split backwards, pairs 0.8, two copies", Means(copies=2, splits=True, pairs=True), 0.8),
    ("whole backwards, slices", Means(cuts=True), 1.0),
    ("split backwards, slices", Means(splits=True, cuts=True), 1.0),
    ("split backwards, host", Means(splits=True, host=True), 1.0),
)


def winners(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Yield who is the fastest by what may be used and by limit, left out where a row before says the same."""
    plain = [row for row in rows if row.contest == "plain"]
    said: list[tuple[float | None, list[str]]] = []
    for uses, means, pair in _USES:
        allowed = [row for row in plain if means.allow(row)]
        lines = [
            (limit, [_winner(_fitting(allowed, Situation(pair, limit, *column))) for column in COLUMNS])
            for limit in LIMITS
        ]
        yield from ((uses, label, *cells) for label, cells in merged(line for line in lines if line not in said))
        said += lines


def _winner(rows: Sequence[Row]) -> str:
    """Return the fastest of some runs; beside one that adapts to its times, the fastest of the others too."""
    if not rows:
        return "–"
    best, specs = _fastest(rows), schedules()
    fixed = [row for row in rows if not specs[row.schedule].adapts_to_times]
    said = _some([link(name) for name in best])
    if not fixed or not all(specs[name].adapts_to_times for name in best):
        return said
    behind = min(row.makespan for row in fixed) / min(row.makespan for row in rows) - 1
    return f"{said}, then {_some([link(name) for name in _fastest(fixed)])} +{100 * behind:.2g} %"
