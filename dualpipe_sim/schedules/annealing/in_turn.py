"""From an answer to its order: each rank runs whatever is there, the op whose turn is earliest first.

A rank never waits while it could run an op, unless it is to run its forwards strictly in turn. With a limit on
activations, a forward that does not fit stands back, and weights run to make room. A forward stands back as well where
it would leave a micro-batch that is under way without room to end: rooms are given as a banker lends money, to the
oldest micro-batch first (Dijkstra's algorithm against deadlock). A stage whose forward runs again keeps its input alone
until then, and does so right before its backward.

A search plays millions of orders, so what is played is compiled (:mod:`dualpipe_sim.base.compiled`): flat rows of
numbers, made once for a walk. Rows of ops have one for each stage and what it does, ``3 * stage + does``; rows of
micro-batches ``stage * micro_batches + micro_batch``, or by rank.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from dualpipe_sim.base.compiled import Floats, Ints, compiled, floats, ints
from dualpipe_sim.schedules.annealing.problem import AGAIN, FORWARD, INPUT, WEIGHT, Answer, Lines, Problem

_IDLE_COUNTS = 0.5
"""What a second adds that all ranks idle: so that an order gets better before its makespan does."""

_ROUNDING = 1e-9


class Asked(NamedTuple):
    """A problem as compiled functions read it.

    Attributes:
        ranks, micro_batches, layers, hop_s: as the problem has them.
        most: most activations of a rank; infinite for any number.
        input_share: activations that the input of one layer is.
        split: whether W is an op of its own.
        until_s: seconds of all layers before each: of F, of I, of W, one row after the other.

    """

    ranks: int
    micro_batches: int
    layers: int
    hop_s: float
    most: float
    input_share: float
    split: bool
    until_s: Floats


class Slate(NamedTuple):
    """An answer as a walk changes it, with room for the most stages.

    Attributes:
        stages: how many there are, and 1 where ranks wait for forwards in turn, else 0.
        cuts: the first layer of each stage and, last, the number of layers.
        rank_of: the rank of each stage.
        again: 1 for a stage whose forward runs again, else 0.
        turn: the turn of each stage's F, I and W of micro-batch 0.

    """

    stages: Ints
    cuts: Ints
    rank_of: Ints
    again: Ints
    turn: Floats


class Desk(NamedTuple):
    """Where things stand while an order is played.

    Attributes:
        first_of_rank, of_rank: the stages of each rank: from where on, and which.
        lasts_s: seconds of each stage's ops; of an input, what runs again left out.
        again_s: seconds of a forward that runs again, by stage.
        done: how many micro-batches each stage's ops have done.
        comes_s: when what a forward, and behind all of them what a backward needs is there, by stage and micro-batch.
        free_s, next_s: when each rank is done with what it runs, and may run the next.
        until_s: each rank's work and what it was idle.
        left: activations that a stage's forward leaves, by stage.
        size: activations of a stage from when its forward last ran, by stage.
        whole: what all forwards of a micro-batch leave on a rank.
        deepest: the most that a forward run again adds on a rank.
        held: activations held on a rank, those that wait for W too.
        lent: of these, what waits for an I.
        to_come, kept: of a micro-batch on a rank: what its forwards will still leave, and what waits for its I.
        oldest, newest: the first micro-batch on a rank that is not done, and the last one that began.
        line: where it has room, ops as they start: the rank of each, and ``4 * (stage * micro_batches + micro_batch) +
            does``.

    """

    first_of_rank: Ints
    of_rank: Ints
    lasts_s: Floats
    again_s: Floats
    done: Ints
    comes_s: Floats
    free_s: Floats
    next_s: Floats
    until_s: Floats
    left: Floats
    size: Floats
    whole: Floats
    deepest: Floats
    held: Floats
    lent: Floats
    to_come: Floats
    kept: Floats
    oldest: Ints
    newest: Ints
    line: Ints


class Played(NamedTuple):
    """An answer's order, and how long it takes.

    Attributes:
        cost_s: what a search makes small: the makespan, and what ranks idle at the mean.
        makespan_s: seconds from the first op to the end of the last.
        lines: the order.

    """

    cost_s: float
    makespan_s: float
    lines: Lines


def asked_of(problem: Problem) -> Asked:
    """Return a problem as compiled functions read it."""
    return Asked(
        problem.ranks,
        problem.micro_batches,
        problem.layers,
        float(problem.hop_s),
        inf if problem.most_activations is None else float(problem.most_activations),
        problem.input_share,
        problem.split,
        floats(seconds for until in problem.until_s for seconds in until),
    )


def slate_of(problem: Problem, answer: Answer) -> Slate:
    """Return an answer as a walk changes it."""
    room = max(problem.most_stages, answer.stages) - answer.stages
    turns = (turn for of_stage in zip(*answer.turn, strict=True) for turn in of_stage)
    return Slate(
        ints([answer.stages, int(answer.waits)]),
        ints([*answer.cuts, *[0] * room]),
        ints([*answer.rank_of_stage, *[0] * room]),
        ints([*map(int, answer.again), *[0] * room]),
        floats([*turns, *[0.0] * 3 * room]),
    )


def answer_on(slate: Slate) -> Answer:
    """Return the answer that stands on a slate."""
    stages = int(slate.stages[0])
    return Answer(
        tuple(int(cut) for cut in slate.cuts[: stages + 1]),
        tuple(int(rank) for rank in slate.rank_of[:stages]),
        tuple(bool(again) for again in slate.again[:stages]),
        tuple(tuple(float(turn) for turn in slate.turn[does : 3 * stages : 3]) for does in range(3)),
        bool(slate.stages[1]),
    )


def desk_for(problem: Problem, stages: int, *, written: bool = False) -> Desk:
    """Return room to play orders of at most so many stages, and to write one down."""
    ranks, micro_batches = problem.ranks, problem.micro_batches

    def whole(count: int) -> Ints:
        return ints([0] * count)

    def real(count: int) -> Floats:
        return floats([0.0] * count)

    return Desk(
        first_of_rank=whole(ranks + 1),
        of_rank=whole(stages),
        lasts_s=real(3 * stages),
        again_s=real(stages),
        done=whole(3 * stages),
        comes_s=real(2 * stages * micro_batches),
        free_s=real(ranks),
        next_s=real(ranks),
        until_s=real(ranks),
        left=real(stages),
        size=real(stages),
        whole=real(ranks),
        deepest=real(ranks),
        held=real(ranks),
        lent=real(ranks),
        to_come=real(ranks * micro_batches),
        kept=real(ranks * micro_batches),
        oldest=whole(ranks),
        newest=whole(ranks),
        line=ints([-1] * (2 * 4 * stages * micro_batches if written else 0)),
    )


def play(problem: Problem, answer: Answer, worst_s: float = inf) -> Played | None:
    """Return the order of an answer with its times; None where its cost is above ``worst_s``, or nothing fits."""
    desk = desk_for(problem, answer.stages, written=True)
    cost_s, makespan_s = played(asked_of(problem), slate_of(problem, answer), desk, worst_s)
    if cost_s == inf:
        return None
    lines: Lines = [[] for _ in range(problem.ranks)]
    for rank, code in zip(desk.line[::2], desk.line[1::2], strict=True):
        if rank >= 0:
            stage, micro_batch = divmod(int(code) // 4, problem.micro_batches)
            lines[rank].append((int(code) % 4, stage, micro_batch))
    return Played(cost_s, makespan_s, lines)


@compiled
def played(asked: Asked, slate: Slate, desk: Desk, worst_s: float) -> tuple[float, float]:
    """Play the order of a slate, and return its cost and its makespan; infinite where the cost is above ``worst_s``.

    The cost so far only grows, so that most answers end early.
    """
    makespan_s, line = _begun(asked, slate, desk), desk.line
    if makespan_s > worst_s:
        return inf, inf
    cost_s, of_idle, at = 0.0, _IDLE_COUNTS / asked.ranks, 0
    left = slate.stages[0] * asked.micro_batches * (3 if asked.split else 2)
    while left > 0:
        rank = 0
        for other in range(1, asked.ranks):
            if desk.next_s[other] < desk.next_s[rank]:
                rank = other
        now_s = desk.next_s[rank]
        if now_s == inf:
            return inf, inf
        op = _chosen(asked, slate, desk, rank, now_s)
        if op < 0:  # what is there does not fit: a backward must come first
            desk.next_s[rank] = _comes_next_s(asked, desk, rank, now_s)
            continue
        stage, does = op // 3, op % 3
        micro_batch = desk.done[op]
        again_s = desk.again_s[stage] if does == INPUT else 0.0
        start_s = max(desk.free_s[rank], now_s - again_s)  # (a forward runs again while its gradient is on its way)
        idle_s = start_s - desk.free_s[rank]
        if len(line) > 0:
            code = 4 * (stage * asked.micro_batches + micro_batch)
            if does == INPUT and slate.again[stage]:
                line[at], line[at + 1] = rank, code + AGAIN
                at += 2
            line[at], line[at + 1] = rank, code + does
            at += 2
        left -= 1
        if idle_s > 0.0:
            desk.until_s[rank] += idle_s
            cost_s += of_idle * idle_s
            makespan_s = max(makespan_s, desk.until_s[rank])
            if makespan_s + cost_s > worst_s:
                return inf, inf
        _run(asked, slate, desk, rank, op, start_s + again_s + desk.lasts_s[op])
    makespan_s = 0.0
    for rank in range(asked.ranks):
        makespan_s = max(makespan_s, desk.free_s[rank])
    return makespan_s + cost_s, makespan_s


@compiled
def _begun(asked: Asked, slate: Slate, desk: Desk) -> float:
    """Set the desk up, and return the work of the busiest rank; infinite where one micro-batch does not fit."""
    stages, ranks, micro_batches = slate.stages[0], asked.ranks, asked.micro_batches
    for rank in range(ranks):
        desk.first_of_rank[rank + 1] = 0
        desk.until_s[rank] = desk.whole[rank] = desk.deepest[rank] = desk.held[rank] = desk.lent[rank] = 0.0
        desk.oldest[rank], desk.newest[rank] = 0, -1
        desk.free_s[rank], desk.next_s[rank] = 0.0, inf
    for stage in range(stages):
        desk.first_of_rank[slate.rank_of[stage] + 1] += 1
    for rank in range(ranks):
        desk.first_of_rank[rank + 1] += desk.first_of_rank[rank]
    for stage in range(stages - 1, -1, -1):  # (from the last on, so that each rank's place counts down to its first)
        rank = slate.rank_of[stage]
        desk.first_of_rank[rank + 1] -= 1
        desk.of_rank[desk.first_of_rank[rank + 1]] = stage
    for rank in range(ranks):  # and up again
        desk.first_of_rank[rank] = desk.first_of_rank[rank + 1]
    desk.first_of_rank[ranks] = stages
    for stage in range(stages):
        rank, begin, end = slate.rank_of[stage], slate.cuts[stage], slate.cuts[stage + 1]
        work_s = 0.0
        for does in range(3):
            row = does * (asked.layers + 1)
            desk.lasts_s[3 * stage + does] = asked.until_s[row + end] - asked.until_s[row + begin]
            desk.done[3 * stage + does] = 0
            work_s += desk.lasts_s[3 * stage + does]
        desk.again_s[stage] = desk.lasts_s[3 * stage] if slate.again[stage] else 0.0
        desk.until_s[rank] += micro_batches * (work_s + desk.again_s[stage])
        desk.size[stage] = (end - begin) * ranks / asked.layers
        desk.left[stage] = asked.input_share if slate.again[stage] else desk.size[stage]
        desk.whole[rank] += desk.left[stage]
        desk.deepest[rank] = max(desk.deepest[rank], desk.size[stage] - desk.left[stage])
    backwards = len(desk.comes_s) // 2
    for place in range(stages * micro_batches):
        desk.comes_s[place] = 0.0 if place < micro_batches else inf
        desk.comes_s[backwards + place] = inf
    busiest_s = 0.0
    for rank in range(ranks):
        busiest_s = max(busiest_s, desk.until_s[rank])
        if desk.whole[rank] + desk.deepest[rank] > asked.most + _ROUNDING:
            return inf
        for micro_batch in range(micro_batches):
            desk.to_come[rank * micro_batches + micro_batch] = desk.whole[rank]
            desk.kept[rank * micro_batches + micro_batch] = 0.0
    desk.next_s[slate.rank_of[0]] = 0.0
    return busiest_s


@compiled
def _chosen(asked: Asked, slate: Slate, desk: Desk, rank: int, now_s: float) -> int:
    """Return the op that a rank runs now, ``3 * stage + does``, or -1 where nothing may run.

    Of equal turns a forward comes before an input, and that before a weight.
    """
    micro_batches, backwards = asked.micro_batches, len(desk.comes_s) // 2
    limited, waits = asked.most < inf, slate.stages[1] == 1
    forward, forward_turn, chosen, turn = -1, inf, -1, inf
    for place in range(desk.first_of_rank[rank], desk.first_of_rank[rank + 1]):
        stage = desk.of_rank[place]
        micro_batch = desk.done[3 * stage]
        if micro_batch < micro_batches:
            its_turn = slate.turn[3 * stage] + micro_batch
            here = desk.comes_s[stage * micro_batches + micro_batch] <= now_s
            fits = here and (not limited or _is_safe(asked, desk, rank, stage, micro_batch))
            if its_turn < forward_turn and (waits or fits):
                forward, forward_turn = stage if fits else -1, its_turn
        micro_batch = desk.done[3 * stage + INPUT]
        if micro_batch < micro_batches and desk.comes_s[backwards + stage * micro_batches + micro_batch] <= now_s:
            its_turn = slate.turn[3 * stage + INPUT] + micro_batch
            more = desk.size[stage] - desk.left[stage]
            if its_turn < turn and desk.held[rank] + more <= asked.most + _ROUNDING:
                chosen, turn = 3 * stage + INPUT, its_turn
    if forward >= 0 and forward_turn <= turn and desk.held[rank] + desk.left[forward] <= asked.most + _ROUNDING:
        chosen, turn = 3 * forward, forward_turn
    if asked.split:
        for place in range(desk.first_of_rank[rank], desk.first_of_rank[rank + 1]):
            stage = desk.of_rank[place]
            micro_batch = desk.done[3 * stage + WEIGHT]
            if micro_batch < desk.done[3 * stage + INPUT]:
                its_turn = slate.turn[3 * stage + WEIGHT] + micro_batch
                if its_turn < turn:
                    chosen, turn = 3 * stage + WEIGHT, its_turn
    return chosen


@compiled
def _is_safe(asked: Asked, desk: Desk, rank: int, stage: int, micro_batch: int) -> bool:
    """Return whether all micro-batches of a rank can end one after the other if a forward takes its room."""
    size = desk.left[stage]
    free = asked.most + _ROUNDING - desk.lent[rank] - size
    if free < 0.0:
        return False
    for one in range(desk.oldest[rank], max(desk.newest[rank], micro_batch) + 1):
        place = rank * asked.micro_batches + one
        own = size if one == micro_batch else 0.0
        if own > 0.0 or desk.to_come[place] < desk.whole[rank]:
            if desk.to_come[place] - own + desk.deepest[rank] > free:
                return False
            free += desk.kept[place] + own
    return True


@compiled
def _comes_next_s(asked: Asked, desk: Desk, rank: int, after_s: float) -> float:
    """Return when the next thing comes to a rank, later than a moment."""
    micro_batches, next_s = asked.micro_batches, inf
    backwards = len(desk.comes_s) // 2
    for place in range(desk.first_of_rank[rank], desk.first_of_rank[rank + 1]):
        stage = desk.of_rank[place]
        for does in range(2):
            micro_batch = desk.done[3 * stage + does]
            if micro_batch < micro_batches:
                comes_s = desk.comes_s[does * backwards + stage * micro_batches + micro_batch]
                if after_s < comes_s < next_s:
                    next_s = comes_s
    return next_s


@compiled
def _run(asked: Asked, slate: Slate, desk: Desk, rank: int, op: int, end_s: float) -> None:
    """Take note of an op: what it holds and frees, whom it lets go on, and when its rank may go on."""
    stage, does, micro_batches = op // 3, op % 3, asked.micro_batches
    micro_batch = desk.done[op]
    desk.done[op] += 1
    desk.free_s[rank] = end_s
    place = rank * micro_batches + micro_batch
    if does == FORWARD:
        left = desk.left[stage]
        desk.held[rank] += left
        desk.lent[rank] += left
        desk.kept[place] += left
        desk.to_come[place] -= left
        desk.newest[rank] = max(desk.newest[rank], micro_batch)
    elif does == INPUT:
        desk.held[rank] += desk.size[stage] - desk.left[stage]
        desk.lent[rank] -= desk.left[stage]
        desk.kept[place] -= desk.left[stage]
        oldest = rank * micro_batches + desk.oldest[rank]
        while desk.oldest[rank] < micro_batches and desk.kept[oldest] < _ROUNDING and desk.to_come[oldest] < _ROUNDING:
            desk.oldest[rank] += 1
            oldest += 1
    if does == WEIGHT or (does == INPUT and not asked.split):
        desk.held[rank] -= desk.size[stage]
    _hand_on(asked, slate, desk, rank, op, micro_batch, end_s)


@compiled
def _hand_on(asked: Asked, slate: Slate, desk: Desk, rank: int, op: int, micro_batch: int, end_s: float) -> None:
    """Hand what an op made to the next stage's rank, and set when that and the op's own rank may go on."""
    micro_batches, backwards = asked.micro_batches, len(desk.comes_s) // 2
    stage, does, to, row = op // 3, op % 3, -1, 0
    if does == FORWARD:
        last = stage == slate.stages[0] - 1
        to, row = (stage, backwards) if last else (stage + 1, 0)
    elif does == INPUT and stage > 0:
        to, row = stage - 1, backwards
    if to >= 0:
        other = slate.rank_of[to]
        comes_s = end_s if other == rank else end_s + asked.hop_s
        desk.comes_s[row + to * micro_batches + micro_batch] = comes_s
        if other != rank:
            desk.next_s[other] = min(desk.next_s[other], max(desk.free_s[other], comes_s))
    next_s = inf
    for place in range(desk.first_of_rank[rank], desk.first_of_rank[rank + 1]):
        here = desk.of_rank[place]
        if asked.split and desk.done[3 * here + WEIGHT] < desk.done[3 * here + INPUT]:
            next_s = end_s
    next_s = min(next_s, _comes_next_s(asked, desk, rank, -1.0))
    desk.next_s[rank] = max(end_s, next_s)
