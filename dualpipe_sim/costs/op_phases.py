"""The phases of a stage's ops and of overlapped pairs: which part comes after which, and on which lane.

An op that runs alone takes its parts one after the other. In an overlapped pair a layer of the forward meets a layer of
the backward, in the order of DeepSeek's published training trace (https://github.com/deepseek-ai/profile-data)::

    compute     attn F     mlp I       mlp W        mlp F  attn I   attn W
    alltoall    combine I  dispatch F  dispatch I          combine F

Megatron-Core's combined 1F1B (``combined_1f1b.py``) has the same order; without ``--delay-wgrad-compute`` what follows
an I there waits for its W, too. The forward's first layer meets the backward's last, and so on; one such meeting is a
*slot*. Layers left over,
embedding, head and multi-token prediction run as they do alone. A dense layer leaves its all-to-alls out.

Where whole layers are recomputed, a layer's backward begins with its forward, whose phases are of kind F there too. In
a slot they take turns with the other layer's forward::

    compute     attn F  attn F      mlp F       mlp I  ...
    alltoall    combine I  dispatch F  dispatch F  combine F  ...

In STP's other pairs (https://arxiv.org/abs/2510.27257) a forward's blocks take turns with those of an I, of a W or of a
second forward, so that collectives of the one go beside the other's compute. With tensor parallelism, F beside I::

    compute             attn F    mlp I               mlp F               attn I
    alltoall  gather F  gather I  scatter F  gather F  scatter I  gather I  scatter F  ...

A phase names those that it waits for by their place in the list of phases (``after``), and only where they are on the
other lane: on each lane, phases run in the order listed. So the order in which parts are appended is the schedule of
the two lanes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.base.lanes import Lane
from dualpipe_sim.costs.parts import Part, Parts, Shared
from dualpipe_sim.costs.phases import Phase
from dualpipe_sim.costs.workload import Work
from dualpipe_sim.errors import UnfitCostsError
from dualpipe_sim.model.layout import StageLayers
from dualpipe_sim.order.ops import COPIES, B, F, I, Kind, O, R, S, T, Vocabulary, W

FORWARD, BACKWARD = range(2)
"""The halves of a pair."""

NO_LAYER = -1

Places: TypeAlias = tuple[int, ...]
"""Places of phases in the list."""

Works: TypeAlias = tuple[Work, ...]
WORKS: dict[int, Works] = {F: ("F",), B: ("I", "W"), I: ("I",), W: ("W",), R: ("F",)}
"""What each kind of op works on; a full backward does both of its parts layer by layer, a forward again what it did."""


class Placed(NamedTuple):
    """Parts of one block.

    Attributes:
        parts: an I with its W where both are to be done.
        layer: the layer that they belong to, or NO_LAYER.
        brought: what comes from when it may begin on: the number of the unit that waits for it, the part, its layer.
        needs: the number of the unit that it begins, if that waits for something; else None.
        taken: what goes when it is done, each with its layer.

    """

    parts: tuple[Part, ...]
    layer: int
    brought: tuple[tuple[int, Part, int], ...] = ()
    needs: int | None = None
    taken: tuple[tuple[Part, int], ...] = ()


class LayerForward(NamedTuple):
    """A layer's parts in F; without all-to-alls where it is dense."""

    attn: Part
    dispatch: Part | None
    mlp: Part
    combine: Part | None


class LayerAgain(NamedTuple):
    """What of a layer's forward runs again in its backward."""

    attn: Part | None = None
    dispatch: Part | None = None
    mlp: Part | None = None
    combine: Part | None = None


class LayerBackward(NamedTuple):
    """A layer's parts in B, in the order in which a lone B takes them; without all-to-alls where it is dense."""

    combine: Part | None
    mlp: Part
    mlp_weight: Part
    dispatch: Part | None
    attn: Part
    attn_weight: Part


class Turn(NamedTuple):
    """A block of one half of a pair whose halves take turns.

    Attributes:
        half: which half.
        ahead: the all-to-alls since the half's last block, each with its layer.
        block: attention or FFN.
        layer: its layer.

    """

    half: int
    ahead: tuple[tuple[Part, int], ...]
    block: Part
    layer: int


def layer_again(parts: Parts, stage: StageLayers, layer: int) -> LayerAgain:
    """Return what runs again before a layer's backward: all of it, its FFN, or nothing."""
    whole = _whole(parts, stage, layer)
    if not whole and parts.ffn(layer) not in parts.load.recipe.recompute.blocks:
        return LayerAgain()
    forward = layer_forward(parts, layer)._replace(mlp=parts.mlp_again(layer))
    return LayerAgain(*forward) if whole else LayerAgain(None, *forward[1:])


def _score(parts: Parts) -> _Score:
    tensor, overlap = parts.groups.tensor, parts.overlap
    in_turn = tensor is not None and tensor.in_turn
    return _Score(on_demand=overlap.on_demand, in_turn=in_turn, at_once=overlap.delay_wgrad is False)


def _whole(parts: Parts, stage: StageLayers, layer: int) -> bool:
    """Return whether a layer is recomputed whole; one of multi-token prediction comes behind its stage's layers."""
    place = layer - stage.layers[0] if layer in stage.layers else len(stage.layers)
    return parts.load.recipe.recompute.whole(place)


def layer_forward(parts: Parts, layer: int) -> LayerForward:
    """Return what a layer does in F."""
    compute, exchange = parts.layer(layer), parts.exchanges(layer)
    return LayerForward(
        compute["attn", "F"], exchange.get("dispatch F"), compute["mlp", "F"], exchange.get("combine F")
    )


def layer_backward(parts: Parts, layer: int) -> LayerBackward:
    """Return what a layer does in B."""
    compute, exchange = parts.layer(layer), parts.exchanges(layer)
    return LayerBackward(
        exchange.get("combine I"),
        compute["mlp", "I"],
        compute["mlp", "W"],
        exchange.get("dispatch I"),
        compute["attn", "I"],
        compute["attn", "W"],
    )


def op_phases(parts: Parts, stage: StageLayers, kind: int) -> tuple[Phase, ...]:
    """Return the phases of an op that runs alone, all of them in half 0.

    A backward goes through the stage the other way: from what is after the layers, over the last layer to the first.
    """
    if kind in COPIES:
        return tuple(_copies(parts, stage, kind))
    works = WORKS[kind]
    if kind == R:
        return _again(parts, stage)
    begin, end = (_before_layers, _after_layers) if kind == F else (_after_layers, _before_layers)
    score = _score(parts)
    steps = chain(
        begin(parts, stage, works),
        _layers(parts, stage, stage.layers if kind == F else stage.layers[::-1], works),
        end(parts, stage, works),
    )
    score.chain(_with_moves(parts, stage, steps, works), FORWARD)
    return _sent_early(parts, stage, score.phases, kind, FORWARD)


def _sent_early(parts: Parts, stage: StageLayers, phases: Sequence[Phase], kind: int, half: int) -> tuple[Phase, ...]:
    """Return phases of a stage's op of which the gradient leaves before the first attention's weights have theirs."""
    if kind == B and parts.overlap.delay_wgrad and stage.layers:
        first = stage.layers[0]
        mine = [one.half == half and one.layer == first and one.name == "attn" and one.kind == W for one in phases]
        return tuple(one._replace(late=late) for one, late in zip(phases, mine, strict=True))
    return tuple(phases)


def _copies(parts: Parts, stage: StageLayers, kind: int) -> Iterator[Phase]:
    """Yield the copies of what a stage's layers keep, to the host or back from it, in the order that makes or needs it.

    Raises:
        UnfitCostsError: layers of each stage are copied out anyway.

    """
    if parts.load.recipe.offload.layers:
        raise UnfitCostsError("training.offload.layers: the order says what is copied to the host (O, L); take 0")
    direction: Literal["to host", "from host"] = "to host" if kind == O else "from host"
    for layer in stage.layers if kind == O else stage.layers[::-1]:
        part = parts.copy(layer, direction, whole=_whole(parts, stage, layer))
        yield Phase(part.lane, part.alone_s, kind, part.name, layer)
    if not stage.layers:
        yield Phase(Lane.COPY, 0.0, kind, "pass")


def _again(parts: Parts, stage: StageLayers) -> tuple[Phase, ...]:
    """Return the phases of a forward that runs again: that of whole layers, which is what is recomputed."""
    score = _score(parts)
    layers = (*stage.layers, *(parts.model.layers + module for module in range(stage.mtp)))
    score.chain(_with_moves(parts, stage, _layers(parts, stage, layers, WORKS[R]), WORKS[R]), FORWARD)
    if not score.phases:
        score.chain([_pass_on(WORKS[R])], FORWARD)
    return tuple(phase._replace(kind=R) for phase in score.phases)


PASSES: dict[Vocabulary, dict[int, Works]] = {
    "one barrier": {S: ("F", "I"), T: ("W",)},
    "two barriers": {S: ("F",), T: ("I", "W")},
    "together": {S: ("F", "I", "W")},
}
"""What S and T work on of the head."""


def pass_phases(parts: Parts, stage: StageLayers, works: Works) -> tuple[Phase, ...]:
    """Return the phases of a rank's pass through its share of the head, ``parts`` those of the share."""
    score, back = _score(parts), tuple(work for work in works if work != "F")
    apart = [one for one in (works[: len(works) - len(back)], back) if one]  # F first, then I with its W
    steps = [
        Placed(tuple(parts.head[work]._replace(name=name) for work in one), NO_LAYER)
        for name in stage.passes
        for one in apart
    ]
    score.chain(_with_moves(parts, stage, steps, works) or [_pass_on(works)], FORWARD)
    return tuple(score.phases)


def pair_phases(parts: Parts, forward: StageLayers, backward: StageLayers, kind: int = B) -> tuple[Phase, ...]:
    """Return the phases of an overlapped pair of two stages' ops, a forward and an op of some kind beside it.

    First comes what each half does before its layers, then the slots, then the layers that one half has more than the
    other, then what each does behind its layers.
    """
    if parts.groups.weights is not None:
        raise UnfitCostsError(
            "parallel.gathers: an overlapped pair has no place for weights that are gathered for each op; take once"
        )
    if parts.load.recipe.offload.layers:
        raise UnfitCostsError("training.offload.layers: an overlapped pair has no place for copies to the host; take 0")
    works = WORKS[kind]
    down, up = forward.layers, backward.layers if kind == F else backward.layers[::-1]
    begin, end = (_before_layers, _after_layers) if kind == F else (_after_layers, _before_layers)
    met = min(len(down), len(up))
    score = _score(parts)
    score.chain(_before_layers(parts, forward, WORKS[F]), FORWARD)
    score.chain(begin(parts, backward, works), BACKWARD)
    if kind == B:
        for layer, other in zip(down, up, strict=False):
            of_backward = parts.without_recompute if _whole(parts, backward, other) else parts
            score.slot(
                layer_forward(parts, layer), layer, layer_backward(of_backward, other), other,
                layer_again(parts, backward, other),
            )  # fmt: skip
    else:
        score.braid(_layers(parts, forward, down[:met], WORKS[F]), _layers(parts, backward, up[:met], works))
    score.chain(_layers(parts, forward, down[met:], WORKS[F]), FORWARD)
    score.chain(_layers(parts, backward, up[met:], works), BACKWARD)
    score.chain(_after_layers(parts, forward, WORKS[F]), FORWARD)
    score.chain(end(parts, backward, works), BACKWARD)
    return _sent_early(parts, backward, score.phases, kind, BACKWARD)


def slot_phases(forward: LayerForward, backward: LayerBackward, *, on_demand: bool) -> tuple[Phase, ...]:
    """Return the phases of one layer's forward beside one layer's backward.

    Args:
        forward: the forward's parts.
        backward: the backward's parts.
        on_demand: whether compute is slower only while an all-to-all runs.

    """
    score = _Score(on_demand=on_demand)
    score.slot(forward, 0, backward, 0, LayerAgain())
    return tuple(score.phases)


def _with_moves(parts: Parts, stage: StageLayers, steps: Iterable[Placed], works: Works) -> list[Placed]:
    """Return steps with what is brought for each unit, and taken away behind it.

    Weights that GPUs share out are gathered, gradients scattered; what a layer keeps is copied to the host behind F and
    back before the backward. The first unit's are brought before anything runs, each other one's while the unit before
    it does. A W needs none.
    """
    placed = list(steps)
    if parts.groups.weights is None and not parts.load.recipe.offload.layers:
        return placed
    begins = [place for place, one in enumerate(placed) if not place or _unit(one) != _unit(placed[place - 1])]
    away = stage.layers[: parts.load.recipe.offload.layers]
    for number, place in enumerate(begins):
        layer, last = placed[place].layer, (*begins, len(placed))[number + 1] - 1
        brought, taken = [], []
        shared = parts.shared(layer, placed[place].parts[0].name)
        if shared is not None:
            shared = _paying_toll(shared, placed, range(place, last + 1), works)
        if shared is not None and works != WORKS[W]:
            brought.append((shared.gather._replace(kind=Kind[works[0]]), NO_LAYER))
        if shared is not None and "W" in works:
            taken.append((shared.scatter, NO_LAYER))
        if layer in away and works == WORKS[F]:
            taken.append((parts.copy(layer, "to host", whole=_whole(parts, stage, layer)), layer))
        if layer in away and "I" in works:
            brought.append((parts.copy(layer, "from host", whole=_whole(parts, stage, layer)), layer))
        if brought:
            placed[place] = placed[place]._replace(needs=number)
            beside = begins[max(0, number - 1)]
            more = tuple((number, *one) for one in brought)
            placed[beside] = placed[beside]._replace(brought=placed[beside].brought + more)
        placed[last] = placed[last]._replace(taken=tuple(taken))
    return placed


def _paying_toll(shared: Shared, placed: list[Placed], places: range, works: Works) -> Shared:
    """Return what is gathered and scattered beside a unit's compute, both as much longer as they lose to each other.

    What stands beside a unit is another one's; units in a row are mostly alike, so that it pays for its own.
    """
    moved = [(shared.gather, shared.gather_toll_s)] if works != WORKS[W] else []
    moved += [(shared.scatter, shared.scatter_toll_s)] if "W" in works else []
    sent_s, toll_s = sum(part.alone_s for part, _ in moved), sum(toll for _, toll in moved)
    computed_s = sum(part.alone_s for place in places for part in placed[place].parts)
    if not toll_s or not computed_s:
        return shared
    toll_s *= min(1.0, computed_s / sent_s)
    *others, last = placed[places[-1]].parts
    placed[places[-1]] = placed[places[-1]]._replace(parts=(*others, last.longer(toll_s)))
    gather, scatter = (one.longer(toll_s * one.alone_s / sent_s) for one in (shared.gather, shared.scatter))
    return shared._replace(gather=gather, scatter=scatter)


def _unit(one: Placed) -> tuple[int, bool | str]:
    """Return what tells a step's unit from others: its layer, or its name where it has none."""
    return one.layer, one.layer < 0 and one.parts[0].name


def _before_layers(parts: Parts, stage: StageLayers, works: Works) -> Iterator[Placed]:
    """Yield what is before a stage's layers in F, and so behind them in a backward: the embedding."""
    # An op is one phase at least; in a stage that holds nothing it passes its tensor on in no time.
    if stage.empty and "F" in works:
        yield _pass_on(works)
    if stage.embedding:
        share = parts.with_vocabulary_over(stage.vocabulary_over) if stage.vocabulary_over else parts
        yield Placed(tuple(share.embedding[work] for work in works), NO_LAYER)


def _after_layers(parts: Parts, stage: StageLayers, works: Works) -> Iterator[Placed]:
    """Yield what is after a stage's layers in F: multi-token prediction, then the passes through the head."""
    if stage.empty and "F" not in works:
        yield _pass_on(works)
    modules = [_module(parts, stage, parts.model.layers + module, works) for module in range(stage.mtp)]
    heads = [Placed(tuple(parts.head[work]._replace(name=name) for work in works), NO_LAYER) for name in stage.heads]
    for steps in [*modules, heads] if "F" in works else [heads, *modules[::-1]]:
        yield from steps


def _module(parts: Parts, stage: StageLayers, layer: int, works: Works) -> list[Placed]:
    """Return what a multi-token prediction module does: in F its projection, then its layer."""
    projection = [Placed(tuple(parts.mtp[work] for work in works), layer)]
    block = list(_layers(parts, stage, (layer,), works))
    return projection + block if "F" in works else block + projection


def _layers(parts: Parts, stage: StageLayers, layers: Iterable[int], works: Works) -> Iterator[Placed]:
    """Yield the parts of layers, one layer after the other; of a backward only those of its works, I or W or both."""
    for layer in layers:
        if "F" in works:
            yield from (Placed((part,), layer) for part in layer_forward(parts, layer) if part is not None)
        elif "I" in works:
            yield from (Placed((part,), layer) for part in layer_again(parts, stage, layer) if part is not None)
        if "F" not in works:
            back = layer_backward(parts.without_recompute if _whole(parts, stage, layer) else parts, layer)
            for block in (back.combine,), (back.mlp, back.mlp_weight), (back.dispatch,), (back.attn, back.attn_weight):
                done = tuple(part for part in block if part is not None and str(Kind(part.kind)) in works)
                if done:
                    yield Placed(done, layer)


def _pass_on(works: Works) -> Placed:
    """Return the part of a stage that holds nothing: it takes no time."""
    return Placed((Part(Lane.COMPUTE, "pass", Kind[works[0]], 0.0, 0.0),), NO_LAYER)


def _turns(steps: Iterable[Placed], half: int) -> tuple[list[Turn], list[tuple[Part, int]]]:
    """Return a half's blocks, each with the all-to-alls ahead of it, and the all-to-alls behind the last one."""
    turns: list[Turn] = []
    ahead: list[tuple[Part, int]] = []
    for (part,), layer, *_ in steps:
        if part.lane == Lane.COMPUTE:
            turns.append(Turn(half, tuple(ahead), part, layer))
            ahead = []
        else:
            ahead.append((part, layer))
    return turns, ahead


class _Score:
    """Phases while they are written down.

    Each half of a pair is a chain: its next part waits for its last ones. Only the weights' parts (``mlp W`` and
    ``attn W``) are not on the way, since the next layer's backward needs no more than the gradient from ``attn I``.
    """

    def __init__(self, *, on_demand: bool = False, in_turn: bool = False, at_once: bool = False) -> None:
        self.phases: list[Phase] = []
        self._on_demand = on_demand
        self._in_turn = in_turn
        self._at_once = at_once  # weights' gradients, with those of inputs
        self._ended: list[Places] = [(), ()]  # of each half, its last phases so far
        self._gradient: Places = ()  # what the next slot's backward waits for: what made its gradient

    def chain(self, steps: Iterable[Placed], half: int) -> None:
        """Append blocks that run one after the other, with the GPU to themselves.

        Of an I and its W, the collectives of a tensor-parallel group run beside the other's compute, as in Megatron-LM:
        what W reads is gathered during I, the gradient that I made is summed during W. In turn, nothing is beside.
        """
        there: dict[int | None, Places] = {None: ()}
        for block, layer, brought, needs, taken in steps:
            main, weights, begun = block[0], block[1:], self._ended[half]
            for unit, part, owner in brought:
                there[unit] = (*there.get(unit, ()), self._append(part, owner, half, begun))
            begun += there[needs]
            ended: Places = (self._append(main, layer, half, self._before(main, layer, half, begun)),)
            if self._in_turn:
                for part in weights:
                    ended = (self._append(part, layer, half, self._before(part, layer, half, ended)),)
                ended = self._after(main, layer, half, ended)
            else:  # on its lane W follows I; what it gathers waits for no more than I did
                waiting = [self._before(part, layer, half, begun) if part.before else () for part in weights]
                ended = self._after(main, layer, half, ended)
                for part, waits in zip(weights, waiting, strict=True):
                    ended += (self._append(part, layer, half, waits),)
            for part, owner in taken:
                self._append(part, owner, half, ended)
            self._ended[half] = ended
        self._gradient = self._ended[BACKWARD]

    def slot(self, forward: LayerForward, layer: int, backward: LayerBackward, other: int, again: LayerAgain) -> None:
        """Append a layer of the forward and one of the backward, overlapped.

        Where neither layer has an all-to-all, all parts take as long as they do alone.

        Args:
            forward: the forward's layer.
            layer: its number.
            backward: the backward's layer.
            other: its number.
            again: what of the backward's layer runs again.

        """
        beside = forward.dispatch is not None or backward.combine is not None

        def before(part: Part, half: int, waits: Places) -> Places:
            return self._before(part, (layer, other)[half], half, waits)

        def after(part: Part, half: int, computed: Places) -> Places:
            return self._after(part, (layer, other)[half], half, computed)

        def play(part: Part | None, half: int, waits: Places) -> Places:
            if part is None:
                return waits  # without this part, what follows waits for what is before
            return (self._append(part, (layer, other)[half], half, waits, beside=beside),)

        def block(part: Part | None, half: int, waits: Places) -> Places:
            return waits if part is None else after(part, half, play(part, half, before(part, half, waits)))

        # Left to right as in the table above: on each lane this is the order in which phases run. A collective of a
        # tensor-parallel group stands where compute of the other half can hide it.
        combined = play(backward.combine, BACKWARD, self._gradient)
        sent_again = play(again.dispatch, BACKWARD, block(again.attn, BACKWARD, self._gradient))
        to_attend = before(forward.attn, FORWARD, self._ended[FORWARD])
        to_pass = combined if any(again) else before(backward.mlp, BACKWARD, combined)
        attended = after(forward.attn, FORWARD, play(forward.attn, FORWARD, to_attend))
        dispatched = play(forward.dispatch, FORWARD, attended)
        if any(again):
            play(again.combine, BACKWARD, block(again.mlp, BACKWARD, sent_again))
            to_pass = before(backward.mlp, BACKWARD, combined)
        passed = play(backward.mlp, BACKWARD, to_pass)
        to_weigh = before(backward.mlp_weight, BACKWARD, combined)
        passed = after(backward.mlp, BACKWARD, passed)
        if self._at_once:
            passed += play(backward.mlp_weight, BACKWARD, to_weigh)
        returned = play(backward.dispatch, BACKWARD, passed)
        to_compute = before(forward.mlp, FORWARD, dispatched)
        if not self._at_once:
            play(backward.mlp_weight, BACKWARD, to_weigh)
        to_return = before(backward.attn, BACKWARD, returned)
        computed = after(forward.mlp, FORWARD, play(forward.mlp, FORWARD, to_compute))
        self._ended[FORWARD] = play(forward.combine, FORWARD, computed)
        turned = play(backward.attn, BACKWARD, to_return)
        to_weigh = before(backward.attn_weight, BACKWARD, returned)
        self._gradient = after(backward.attn, BACKWARD, turned)
        weighed = play(backward.attn_weight, BACKWARD, to_weigh)
        self._ended[BACKWARD] = self._gradient + weighed
        if self._at_once:
            self._gradient = self._ended[BACKWARD]

    def braid(self, first: Iterable[Placed], second: Iterable[Placed]) -> None:
        """Append blocks of both halves in turn, each half a chain whose collectives go beside the other's blocks.

        So what a block waits for stands ahead of what the block before it, of the other half, sends.
        """
        halves = [list(first), list(second)]
        beside = any(one.parts[0].lane == Lane.ALLTOALL for steps in halves for one in steps)
        turns, left = zip(*(_turns(steps, half) for half, steps in enumerate(halves)), strict=True)
        in_turn: list[Turn] = [turn for both in zip_longest(*turns) for turn in both if turn is not None]

        def sent(parts: Iterable[tuple[Part, int]], half: int) -> Places:
            for part, layer in parts:
                self._ended[half] = (self._append(part, layer, half, self._ended[half], beside=beside),)
            return self._ended[half]

        def begun(turn: Turn) -> Places:
            return self._before(turn.block, turn.layer, turn.half, sent(turn.ahead, turn.half))

        waits: Places | None = None
        for turn, upcoming in zip(in_turn, (*in_turn[1:], *in_turn[-1:]), strict=True):
            half, _, block, layer = turn
            mine = begun(turn) if waits is None else waits
            done = (self._append(block, layer, half, mine, beside=beside),)
            waits = begun(upcoming) if upcoming.half != half else None
            self._ended[half] = self._after(block, layer, half, done)
        for half, parts in enumerate(left):
            sent(parts, half)
        self._gradient = self._ended[BACKWARD]

    def _before(self, part: Part, layer: int, half: int, waits: Places) -> Places:
        """Append the collectives that a part waits for, and return what it then waits for."""
        for collective in part.before:
            waits = (self._append(collective, layer, half, waits),)
        return waits

    def _after(self, part: Part, layer: int, half: int, computed: Places) -> Places:
        """Append the collectives that wait for a part, and return what others then wait for."""
        for collective in part.after:
            computed = (self._append(collective, layer, half, computed),)
        return computed

    def _append(self, part: Part, layer: int, half: int, waits: Places, *, beside: bool = False) -> int:
        """Append a part and return its place; the order of its own lane needs no ``after``."""
        after = tuple([place for place in waits if self.phases[place].lane != part.lane])
        seconds, flows = (part.beside_s, part.beside_flows) if beside else (part.alone_s, part.alone_flows)
        gains = beside and self._on_demand and part.lane == Lane.COMPUTE
        own = (part.alone_s, part.kernels) if gains else ()
        self.phases.append(Phase(part.lane, seconds, part.kind, part.name, layer, half, after, flows, *own))
        return len(self.phases) - 1
