"""What is wrong with an order, in words: every finding names the rank, the cell in its row, and the op.

It reads what :func:`dualpipe_sim.order.text.parse_order` would refuse at the first mistake, and goes on: unlike a
simulation it tells all that is wrong, and unlike torch's own reader it sees doubled ops and losses out of order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain, product
from typing import NamedTuple, TypeAlias

from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.barriers import ONE_PIPE, waits_of
from dualpipe_sim.order.dependencies import producers
from dualpipe_sim.order.finding import Finding, Rule, Site
from dualpipe_sim.order.meant import NOWHERE, meant_micro_batches, meant_placement, meant_slices
from dualpipe_sim.order.messages import Message, in_line, messages_of, wrong_messages, wrong_places
from dualpipe_sim.order.ops import (
    Action,
    B,
    F,
    I,
    L,
    O,
    Op,
    R,
    Receive,
    S,
    Send,
    T,
    Vocabulary,
    W,
    ops_of,
    vocabulary_of,
)
from dualpipe_sim.order.placement import Placement, PlacementName
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.order.text import Row, in_todays_form, order_of, parse_cell, rows_of


class Checked(NamedTuple):
    """An order that was read and checked.

    Attributes:
        findings: all that is wrong with it.
        schedule: the order itself, where nothing is wrong.

    """

    findings: list[Finding]
    schedule: Schedule | None = None

    def to_dict(self) -> dict[str, object]:
        """Return what is wrong and, where nothing is, the order's sizes, ready for JSON."""
        order = self.schedule
        return {
            "legal": not self.findings,
            "findings": [asdict(one) for one in self.findings],
            "ranks": None if order is None else order.ranks,
            "stages": None if order is None else order.placement.stages,
            "micro_batches": None if order is None else order.micro_batches,
        }


def check_order(
    text: str, placement: PlacementName = "explicit", micro_batches: int | None = None, barriers: int = 1
) -> list[Finding]:
    r"""Say all that is wrong with an order in its text form; an empty list where nothing is. See :func:`read_order`.

    >>> for finding in check_order("0F0,0B0\n1B0,1F0"):
    ...     print(finding)
    rank 1, cell 0: 1B0 comes before 1F0 (cell 1), which it needs
    """
    return read_order(text, placement, micro_batches, barriers).findings


def read_order(
    text: str,
    placement: PlacementName = "explicit",
    micro_batches: int | None = None,
    barriers: int = 1,
    name: str = "file",
) -> Checked:
    """Read an order from its text form and say all that is wrong with it.

    Args:
        text: one line a rank, tasks separated by commas.
        placement: where the stages are and how they chain.
        micro_batches: micro-batches of the step, all pipes together; by default as many as the order has.
        barriers: how many of them stand between S and the backward behind it, where there are S and T: no cell says it.
        name: what to call the schedule.

    Raises:
        ScheduleError: ``micro_batches`` that cannot be dealt out to the placement's pipes.

    """
    cells, findings = _read(text)
    rows = [[ops_of(cell) for cell in row] for row in cells]
    if not any(True for _ in _ops(rows)):
        return Checked(findings)
    try:
        where = meant_placement(rows, placement)
    except ScheduleError as error:
        return Checked([*findings, Finding("placement", str(error))])
    of_pipe = meant_micro_batches(rows, where, micro_batches)
    findings += _check(rows, where, of_pipe, meant_slices(rows), barriers)
    if not findings:
        schedule = replace(order_of(cells, where, of_pipe, name), barriers=barriers)
        findings += wrong_places(cells, where) if schedule.program is None else wrong_messages(cells, schedule)
        return Checked(findings, None if findings else schedule)
    if placement == "explicit" and not check_order(text, "bidirectional", barriers=barriers):
        hint = "read as pipes in opposite directions nothing is wrong; choose placement 'bidirectional'"
        findings.insert(0, Finding("placement", hint))
    return Checked(findings)


def check_schedule(schedule: Schedule) -> list[Finding]:
    """Say all that is wrong with a schedule; an empty list where nothing is.

    >>> from dualpipe_sim import build
    >>> check_schedule(build("dualpipe", ranks=4, micro_batches=8))
    []
    """
    rows = [[task.ops for task in row] for row in schedule.bare.order]
    return list(_check(rows, schedule.placement, schedule.micro_batches_of_pipe, schedule.slices, schedule.barriers))


def check_all(
    text: str, placement: PlacementName = "explicit", micro_batches: int | None = None, barriers: int = 1
) -> Checked:
    r"""Read an order and say all that is wrong with it and with the sends and receives that it came with.

    >>> check_all("0F0,0B0\n1F0,1B0").to_dict()["stages"]
    2

    Raises:
        ScheduleError: as for :func:`read_order`.

    """
    findings, order = read_order(text, placement, micro_batches, barriers)
    findings += [] if order is None else check_lines(order)
    return Checked(findings, None if findings else order)


def check_lines(schedule: Schedule) -> list[Finding]:
    """Say which ranks wait for each other for ever where each one's sends and receives go one after another.

    So they do under ``transfers: rendezvous``. Only of a program that an order came with; what a runtime adds is right.
    """
    if schedule.program is None:
        return []
    circle = in_line(messages_of(schedule.program)).circle
    if not circle:
        return []
    steps = [f"rank {rank} has {_side(rank, first)} before {_side(rank, later)}" for rank, first, later in circle]
    rank, first, _ = circle[0]
    head = _side(rank, first)
    cell = schedule.program[rank].index(head)
    what = f"{head} waits in a circle where each rank's messages go one after another: {' and '.join(steps)}"
    return [Finding("cycle", what, rank, cell, str(head))]


def _side(rank: int, message: Message) -> Send | Receive:
    return Send(message.tensor) if message.source == rank else Receive(message.tensor)


_Row: TypeAlias = "list[tuple[Op, ...]]"
"""One rank's cells: each the ops of a task, or nothing where the cell is no task."""

_Sites: TypeAlias = "Mapping[Op, list[Site]]"


def _read(text: str) -> tuple[list[Row], list[Finding]]:
    rows: list[Row] = []
    findings: list[Finding] = []
    try:
        texts = rows_of(text)
    except ScheduleError as error:
        return [], [Finding("junk", str(error))]
    for rank, cells in enumerate(texts):
        read = [_read_cell(cell, rank, position) for position, cell in enumerate(cells)]
        findings += [cell for cell in read if isinstance(cell, Finding)]
        rows.append([None if isinstance(cell, Finding) else cell for cell in read])
        if not any(isinstance(cell, Finding) or ops_of(cell) for cell in read):
            findings.append(Finding("junk", "the row is empty; every row is a rank and needs at least one task", rank))
    return in_todays_form(rows, texts), findings


def _read_cell(cell: str, rank: int, position: int) -> Action | Finding | None:
    try:
        return parse_cell(cell)
    except ScheduleError as error:
        return Finding("junk", str(error), rank, position, cell.strip())


def _ops(rows: Sequence[_Row]) -> Iterator[tuple[Op, Site]]:
    for rank, row in enumerate(rows):
        for position, cell in enumerate(row):
            for op in cell:
                yield op, Site(rank, position)


def _check(
    rows: Sequence[_Row], placement: Placement, micro_batches_of_pipe: tuple[int, ...], slices: int, barriers: int
) -> Iterator[Finding]:
    most = [micro_batches_of_pipe[pipe] for pipe in placement.pipe_of_stage.tolist()]
    sites: defaultdict[Op, list[Site]] = defaultdict(list)
    for op, site in _ops(rows):
        if op.stage >= placement.stages:
            yield _at(op, site, "range", f"names no stage; stages go from 0 to {placement.stages - 1}")
        elif op.micro_batch >= most[op.stage]:
            yield _at(op, site, "range", f"names no micro-batch; they go from 0 to {most[op.stage] - 1}")
        elif slices > 1 and (op.slice is None or op.slice >= slices):
            yield _at(op, site, "range", f"names no slice; they go from 0 to {slices - 1}")
        else:
            sites[op].append(site)
    yield from _wrong_ranks(sites, placement)
    yield from _doubles(sites)
    yield from _incomplete(sites, placement, micro_batches_of_pipe, slices)
    first = {op: found[0] for op, found in sites.items()}
    how = vocabulary_of({op.kind for op in first}, barriers)
    if how is not None and len(placement.pipes) > 1:
        yield Finding("placement", f"{ONE_PIPE}, and there are {len(placement.pipes)}")
        how = None
    waits_for = {op: [one for one in _waits_for(op, placement, first, slices) if one in first] for op in first}
    if how is not None:
        yield from _wrong_passes(sites, placement, how)
        before = _before_passes(rows, first) if how == "together" else {}
        for op, others in waits_for.items():
            also = chain(waits_of(op, placement, how), before.get(op[2:], ()) if op.kind == S else ())
            others += [one for one in also if one in first]
    yield from _before(first, waits_for)
    yield from _cycle(rows, first, waits_for)
    yield from _losses(rows, first, placement)


def _at(op: Op, site: Site, rule: Rule, what: str) -> Finding:
    return Finding(rule, f"{op} {what}", site.rank, site.cell, str(op))


def _wrong_ranks(sites: _Sites, placement: Placement) -> Iterator[Finding]:
    rank_of_stage = placement.rank_of_stage.tolist()
    for op, found in sites.items():
        for site in found:
            if site.rank != rank_of_stage[op.stage]:
                yield _at(
                    op, site, "wrong-rank", f"is on the wrong rank; its stage sits on rank {rank_of_stage[op.stage]}"
                )


def _doubles(sites: _Sites) -> Iterator[Finding]:
    for op, found in sites.items():
        for site in found[1:]:
            yield _at(op, site, "double", f"is there already ({found[0]}); every op runs once")


def _incomplete(
    sites: _Sites, placement: Placement, micro_batches_of_pipe: tuple[int, ...], slices: int
) -> Iterator[Finding]:
    parts: Sequence[int | None] = range(slices) if slices > 1 else [None]
    rank_of_stage = placement.rank_of_stage.tolist()
    first_stage = 0
    for pipe, ranks in enumerate(placement.pipes):
        where = f" of pipe {pipe}" if len(placement.pipes) > 1 else ""
        here = range(first_stage, first_stage + len(ranks))
        first_stage += len(ranks)
        stages = {op.stage for op in sites if op.stage in here}
        micro_batches = {op.micro_batch for op in sites if op.stage in here}
        for stage in here:
            if stage not in stages:
                rank = rank_of_stage[stage]
                yield Finding("missing", f"stage {stage} has no op at all", None if rank == NOWHERE else rank)
        for begin, end in _gaps(micro_batches, micro_batches_of_pipe[pipe]):
            which = f"micro-batch {begin}{where} never runs"
            if end > begin + 1:
                which = f"micro-batches {begin} to {end - 1}{where} never run"
            yield Finding(
                "missing", f"{which}; the numbers go from 0 to {micro_batches_of_pipe[pipe] - 1} without gaps"
            )
        for stage in sorted(stages):
            for micro_batch, part in product(sorted(micro_batches), parts):
                yield from _incomplete_stage(sites, Op(F, stage, micro_batch, part), rank_of_stage[stage])


def _gaps(present: set[int], size: int) -> Iterator[tuple[int, int]]:
    """Yield the (begin, end) of each run of numbers below ``size`` that are not present."""
    begin = 0
    for number in [*sorted(present), size]:
        if number > begin:
            yield begin, number
        begin = number + 1


def _incomplete_stage(sites: _Sites, op: Op, rank: int) -> Iterator[Finding]:
    f, b, i, w, out, back = (op._replace(kind=kind) for kind in (F, B, I, W, O, L))
    if f not in sites:
        yield Finding("missing", f"{f} never runs", rank, None, str(f))
    if b in sites:
        for half in (i, w):
            if half in sites:
                yield _at(half, sites[half][0], "backward", f"is there beside {b} ({sites[b][0]}), the whole backward")
    elif i in sites and w not in sites:
        yield _at(i, sites[i][0], "backward", f"lacks its other half, {w}, which never runs")
    elif w in sites and i not in sites:
        yield _at(w, sites[w][0], "backward", f"needs {i}, which never runs")
    elif i not in sites:
        yield Finding("missing", f"{b} never runs, nor do {i} and {w}", rank, None, str(b))
    for copy, other in (out, back), (back, out):
        if copy in sites and other not in sites:
            yield _at(copy, sites[copy][0], "missing", f"lacks {other}; what goes to the host comes back")


def _wrong_passes(sites: _Sites, placement: Placement, how: Vocabulary) -> Iterator[Finding]:
    """Yield the S and T that are named by another stage than their rank's first, and those that are missing."""
    rank_of_stage = placement.rank_of_stage.tolist()
    own = [stage for stage in placement.first_stage_of_rank.tolist() if rank_of_stage[stage] != NOWHERE]
    kinds = (S,) if how == "together" else (S, T)
    for op, found in sites.items():
        if op.kind in kinds and op.stage not in own:
            first = rank_of_stage.index(rank_of_stage[op.stage])
            yield _at(op, found[0], "range", f"is named by another stage; a rank's S and T are by its first, {first}")
    for op in dict.fromkeys(op._replace(kind=F, stage=0) for op in sites):
        for kind, stage in product(kinds, own):
            wanted = op._replace(kind=kind, stage=stage)
            if wanted not in sites:
                yield Finding("missing", f"{wanted} never runs", rank_of_stage[stage], None, str(wanted))


def _before_passes(rows: Sequence[_Row], sites: Mapping[Op, Site]) -> dict[tuple[int, int | None], list[Op]]:
    """Return what ranks run before a pass of all ranks, which starts when all have come to it, by its micro-batch."""
    before: defaultdict[tuple[int, int | None], list[Op]] = defaultdict(list)
    for op, (rank, cell) in sites.items():
        if op.kind == S and cell:
            before[op[2:]] += rows[rank][cell - 1][-1:]
    return before


def _waits_for(op: Op, placement: Placement, sites: Mapping[Op, Site], slices: int) -> Iterator[Op]:
    """Yield what an op waits for; some of it may be missing."""
    for either in producers(op, placement, slices):
        yield next((one for one in either if one in sites), either[-1])
    if op.kind in (B, I):
        yield from (one for kind in (R, L) if (one := Op(kind, *op[1:])) in sites)


def _before(sites: Mapping[Op, Site], waits_for: Mapping[Op, list[Op]]) -> Iterator[Finding]:
    for op, site in sites.items():
        for producer in waits_for[op]:
            if sites[producer].rank == site.rank and sites[producer].cell >= site.cell:
                order = "overlaps" if sites[producer].cell == site.cell else "comes before"
                yield _at(op, site, "before", f"{order} {producer} (cell {sites[producer].cell}), which it needs")


def _cycle(rows: Sequence[_Row], sites: Mapping[Op, Site], waits_for: Mapping[Op, list[Op]]) -> Iterator[Finding]:
    """Run every row as far as it goes; where rows stop, the ops they stop at wait for each other."""

    def blockers(site: Site) -> Iterator[tuple[Op, Op]]:
        """Yield the cell's ops with what they need of ranks that have not come to it."""
        for op in rows[site.rank][site.cell]:
            for producer in waits_for.get(op, ()):
                other = sites[producer]
                if other.rank != site.rank and other.cell >= at[other.rank]:
                    yield op, producer

    at = [0] * len(rows)
    asleep: defaultdict[int, set[int]] = defaultdict(set)  # rank that is waited for → ranks that wait
    awake = set(range(len(rows)))
    while awake:
        rank = awake.pop()
        begun = at[rank]
        while at[rank] < len(rows[rank]):
            blocker = next(blockers(Site(rank, at[rank])), None)
            if blocker:
                asleep[sites[blocker[1]].rank].add(rank)
                break
            at[rank] += 1
        if at[rank] > begun:
            awake |= asleep.pop(rank, set())
    stuck = next((rank for rank, row in enumerate(rows) if at[rank] < len(row)), None)
    if stuck is None:
        return
    path: dict[int, tuple[Op, Op]] = {}
    while stuck not in path:
        path[stuck] = next(blockers(Site(stuck, at[stuck])))
        stuck = sites[path[stuck][1]].rank
    circle = list(path)[list(path).index(stuck) :]
    yield _at(path[stuck][0], Site(stuck, at[stuck]), "cycle", _spelled_out([path[rank] for rank in circle], sites))


def _spelled_out(circle: list[tuple[Op, Op]], sites: Mapping[Op, Site]) -> str:
    """Say a circle of waits; each step is an op and what it needs of the next step's rank."""
    steps = []
    for (_, producer), (head, _) in zip(circle, circle[1:] + circle[:1], strict=True):
        same = sites[producer].cell == sites[head].cell
        after = "" if producer == head else f", which {'overlaps' if same else 'comes after'} {head}"
        steps.append(f"for {producer} ({sites[producer]}){after}")
    return f"waits in a circle: {', which waits '.join(steps)}"


def _losses(rows: Sequence[_Row], sites: Mapping[Op, Site], placement: Placement) -> Iterator[Finding]:
    before: dict[int, Op] = {}
    for op, site in _ops(rows):
        if op.kind == F and op in sites and placement.is_last[op.stage]:
            previous = before.get(op.stage, op)
            if op[2:] < previous[2:]:
                yield _at(
                    op,
                    site,
                    "losses",
                    f"comes after {previous}; a last stage runs its forwards in micro-batch order, or torch takes "
                    "the losses of other micro-batches",
                )
            before[op.stage] = op
