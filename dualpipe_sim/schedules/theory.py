"""What papers say: closed forms of bubble and memory by schedule, each with its source and where it holds.

Letters are the papers': P ranks, M micro-batches in all, F, I and W the times of one rank's share of the model for
one micro-batch, B = I + W, X the time of an overlapped pair, C the time of a transfer, O that of a copy of a rank's
share to the host or back, v the stages of a rank.
Memory counts activations of one rank's share of the model for one micro-batch.

A bubble is the idle time of the rank that idles longest, as published; where the simulated one must be exactly that is
said beside it. A schedule for which nobody published one has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, cast

from dualpipe_sim.schedules.registry import spec

ZERO_BUBBLE = "Qi et al., ICLR 2024, https://arxiv.org/abs/2401.10241"
CONTROLLABLE_MEMORY = "Qi et al., NeurIPS 2024, https://arxiv.org/abs/2405.15362"
MEGATRON = "Narayanan et al. 2021, https://arxiv.org/abs/2104.04473"
CHIMERA = "Li & Hoefler, SC'21, https://arxiv.org/abs/2107.06925, table 2"
BREADTH_FIRST = "Lamy-Poirier, MLSys 2023, https://arxiv.org/abs/2211.05953"
SEQ1F1B = "Ao et al., NAACL 2025, https://arxiv.org/abs/2406.03488"
TERAPIPE = "Li et al., ICML 2021, https://arxiv.org/abs/2102.07988"
PIPE_OFFLOAD = "Wan et al., ICML 2025, https://arxiv.org/abs/2503.01328, table 1"
SLIMPIPE = "Li et al., SC'25, https://arxiv.org/abs/2504.14519"
VOCABULARY = "Yeung et al., MLSys 2025, https://arxiv.org/abs/2411.05288"
STP = "Qi et al. 2025, https://arxiv.org/abs/2510.27257"
DEEPSEEK = "DeepSeek-V3 report, https://arxiv.org/abs/2412.19437, table 2"

_ROUNDING = 1e-9


@dataclass(frozen=True)
class ClosedForm:
    """A schedule's formulas at one setting.

    Attributes:
        bubble_s: idle seconds of the rank that idles longest, as published, or None where nobody gives them and where
            the formula is below 0.
        exact: whether the simulated idle time is exactly that at this setting.
        holds: where it is, in words.
        over: what the bubble is a part of: the ``makespan``, or the ``span`` from a rank's first op to its last.
        peak_activations: most activations on a rank, in whole-rank activations, or None outside the formula's range.
        source: who published it.
        formula: the bubble by the papers' letters.
        numbers: the formula with numbers for its letters; None where it is in words.
        is_beyond: whether the formula is below 0, as no idle time is: nobody meant it for such times.

    """

    bubble_s: float | None
    exact: bool
    holds: str
    over: Literal["makespan", "span"]
    peak_activations: float | None
    source: str
    formula: str = ""
    numbers: str | None = None
    is_beyond: bool = False


class Setting(NamedTuple):
    """What formulas are functions of, by the papers' letters; ``options`` are the schedule's own, all of them."""

    P: int
    M: int
    F: float
    I: float
    W: float
    X: float
    C: float
    O: float
    options: Mapping[str, object]

    @property
    def backward(self) -> float:
        """B, the time of a full backward."""
        return self.I + self.W

    @property
    def stages_per_rank(self) -> int:
        """The letter v."""
        return cast("int", self.options["stages_per_rank"])

    @property
    def slices(self) -> int:
        """The number of slices of a micro-batch, k in Seq1F1B and n in SlimPipe."""
        return cast("int", self.options["slices"] or self.P)

    @property
    def barriers(self) -> int:
        """How many barriers ranks share the output layer out with."""
        return cast("int", self.options["barriers"])

    @property
    def letters(self) -> dict[str, float]:
        """What the letters of formulas in words stand for."""
        options = self.options
        slices = cast("int", options.get("slices") or self.P)
        return {
            **{letter: getattr(self, letter) for letter in "PMFIWXCO"},
            "B": self.backward,
            "K": self.M / self.P,
            **dict.fromkeys("kn", slices),
            "v": cast("int", options.get("stages_per_rank", 1)),
            "g": cast("int", options.get("group") or self.P),
            "f": cast("int", options.get("pairs", 1)),
            "barriers": cast("int", options.get("barriers", 1)),
        }

    @property
    def immediate(self) -> bool:
        """Whether transfers take no time."""
        return self.C == 0

    @property
    def overlaps(self) -> bool:
        """Whether a pair lasts at least as long as either half and no longer than both, one after the other."""
        longest = self.F + self.backward
        return max(self.F, self.backward) - _ROUNDING <= self.X <= longest + _ROUNDING


Value = Callable[[Setting], "float | None"]
Condition = Callable[[Setting], bool]


@dataclass(frozen=True)
class Formula:
    """A schedule's formulas: in words for readers, as functions for numbers.

    Attributes:
        bubble: the idle time of the rank that idles longest, as published, or an empty string.
        holds: where the simulated idle time is exactly that, in words.
        peak: the most activations on a rank, or an empty string.
        source: who published it.
        bubble_s: the bubble as a function.
        exact: ``holds`` as a function.
        peak_activations: the peak as a function, None outside its range.
        over: what the bubble is a part of.

    """

    bubble: str
    holds: str
    peak: str
    source: str
    bubble_s: Value
    exact: Condition
    peak_activations: Value
    over: Literal["makespan", "span"] = "makespan"


def closed_form(  # noqa: PLR0913 - the letters of the formulas
    name: str,
    ranks: int,
    micro_batches: int,
    *,
    forward: float = 1.0,
    backward_input: float = 1.0,
    backward_weight: float = 1.0,
    overlapped: float | None = None,
    transfer_s: float = 0.0,
    offload: float = 0.0,
    options: Mapping[str, object] = MappingProxyType({}),
) -> ClosedForm | None:
    """Return a schedule's published bubble and memory at one setting, or None if it has no published formula.

    Args:
        name: the registered schedule.
        ranks: pipeline ranks.
        micro_batches: micro-batches of the step, all pipes together.
        forward: seconds of F for one rank's share of the model.
        backward_input: seconds of I, likewise.
        backward_weight: seconds of W, likewise.
        overlapped: seconds of an overlapped pair; None for F + B.
        transfer_s: seconds of a transfer.
        offload: seconds of a copy of a rank's share to the host, and of that back.
        options: the schedule's own options; those left out have their defaults.

    Raises:
        ScheduleError: an unknown schedule.

    """
    defaults = {option: parameter.default for option, parameter in spec(name).options.items()}
    if name not in FORMULAS:
        return None
    formula = FORMULAS[name]
    pair = forward + backward_input + backward_weight if overlapped is None else overlapped
    setting = Setting(
        ranks,
        micro_batches,
        forward,
        backward_input,
        backward_weight,
        pair,
        transfer_s,
        offload,
        {**defaults, **options},
    )
    bubble_s = formula.bubble_s(setting)
    beyond = bubble_s is not None and bubble_s < 0
    return ClosedForm(
        None if beyond else bubble_s,
        formula.exact(setting) and not beyond,
        formula.holds,
        formula.over,
        formula.peak_activations(setting),
        formula.source,
        formula.bubble,
        filled(formula.bubble, setting.letters),
        beyond,
    )


def filled(formula: str, letters: Mapping[str, float]) -> str | None:
    """Return a formula, up to a comma or semicolon, with numbers for its letters; None where it is in words.

    >>> filled("(P-1)(F+B)/(kv)", {"P": 4, "F": 1, "B": 2, "k": 4, "v": 1})
    '(4-1)(1+2)/(4·1)'
    """
    alone = re.split(r"[;,]", formula)[0]
    words = re.findall(r"[A-Za-z]{3,}|[A-Za-z]['.]", alone)
    if set(words) - set(letters):
        return None
    name = re.compile("|".join(sorted(letters, key=len, reverse=True)))
    apart = re.sub(r"(?<=\d)(?=[A-Za-z])|(?<=[A-Za-z])(?=[A-Z])|(?<=[knv])(?=[knv])", "·", alone)
    return name.sub(lambda letter: f"{letters[letter[0]]:.4g}", apart)


def _one_wave(s: Setting) -> float:
    """(P-1)(F+B): the pipe fills once and drains once."""
    return (s.P - 1) * (s.F + s.backward)


def _looped(s: Setting) -> float:
    """A v-th of that: the pipe fills with stages v times as short."""
    return _one_wave(s) / s.stages_per_rank


def _sliced(s: Setting) -> float:
    """A k-th of it: the pipe fills with slices k times as short."""
    return _one_wave(s) / s.slices


def _immediate(s: Setting) -> bool:
    return s.immediate


def _immediate_rounds(s: Setting) -> bool:
    return s.immediate and s.M >= s.P


def _with_pairs(exact: Condition) -> Condition:
    return lambda s: exact(s) and s.overlaps


def _interleaved_peak(more_warm_up: int) -> Value:
    """Rank 0's warm-up, and the forward that follows it; a stage is a v-th of a whole-rank activation."""

    def peak(s: Setting) -> float | None:
        if s.options["group"] is not None or s.M % s.P:
            return None
        warm_up = 2 * (s.P - 1) + (s.stages_per_rank - 1) * s.P + more_warm_up
        return min(warm_up + 1, s.stages_per_rank * s.M) / s.stages_per_rank

    return peak


def _seq1f1b_peak(s: Setting) -> float:
    """Rank 0's warm-up, and the forward that follows it; a slice is a k-th of a micro-batch, a stage a v-th."""
    v, k = s.stages_per_rank, s.slices
    ahead = s.P - 1 if v == 1 else 2 * (s.P - 1) + (v - 1) * s.P
    return min((ahead + k) / (k * v), s.M)


def _zb_h1(s: Setting) -> float:
    return (s.P - 1) * (s.F + s.I - s.W)


def _zb_h2(s: Setting) -> float:
    return (s.P - 1) * (s.F + s.I + 2 * s.C - 2 * s.W)


def _short_weights(s: Setting) -> bool:
    return min(s.F, s.I) >= s.W


def _vocabulary(s: Setting) -> bool:
    whole = s.F > 0 and abs(s.backward / s.F - round(s.backward / s.F)) < _ROUNDING
    return _immediate_rounds(s) and s.backward >= s.F and (s.barriers == 1 or whole)


def _unit(s: Setting) -> bool:
    return s.immediate and s.F == s.I == s.W and s.M >= 2 * s.P


def _v_half(s: Setting) -> float | None:
    return (1.5 * s.P - 3.5) * s.F if s.P in (4, 6, 8, 10) else None


def _group(s: Setting) -> int:
    """The letter g: micro-batches of a group."""
    return cast("int", s.options["group"] or s.P)


def _half(s: Setting) -> int:
    """The same where groups are of half the ranks by default."""
    return cast("int", s.options.get("group")) or -(-s.P // 2)


def _gis(group: Callable[[Setting], int]) -> Value:
    """((P-1)(F+I) + (P-g)(v-1)(F+I-W))/v; a stage takes a v-th of a rank's share."""

    def bubble(s: Setting) -> float | None:
        if not -(-s.P // 2) <= group(s) <= s.P:
            return None
        short = (s.P - group(s)) * (s.stages_per_rank - 1)
        return ((s.P - 1) * (s.F + s.I) + short * (s.F + s.I - s.W)) / s.stages_per_rank

    return bubble


def _gis_exact(group: Callable[[Setting], int]) -> Condition:
    return lambda s: s.immediate and s.M % group(s) == 0 and (group(s) == s.P or s.F == s.I == s.W)


def _gis_peak(group: Callable[[Setting], int]) -> Value:
    def peak(s: Setting) -> float | None:
        v, g = s.stages_per_rank, group(s)
        whole = s.M % g == 0 and 2 * g >= s.P
        return min(g * (v - 1) + s.P, v * s.M) / v if whole else None

    return peak


def _copies_hidden(s: Setting) -> bool:
    """One turn is long enough for a copy out and back; a rank alone has nothing to hide them behind."""
    hidden = 2 * s.O <= s.F + s.I + s.W + _ROUNDING and s.options["apart"] == 1 and s.P > 1
    return hidden and _half(s) == -(-s.P // 2) and _gis_exact(_half)(s)


def _bidirectional(half: Callable[[Setting], int], share: float) -> Value:
    """DualPipe's bubble on a middle rank, half of the pipe's stages from each end of it."""
    return lambda s: share * (half(s) - 1) * (s.X + s.backward - 3 * s.W)


def _dualpipe_exact(s: Setting) -> bool:
    return s.immediate and s.I == s.F >= s.W and s.overlaps


def _direct(s: Setting) -> bool:
    return s.options["concatenation"] == "direct"


def _chimera(s: Setting) -> float | None:
    pairs, blocks = cast("int", s.options["pairs"]), s.M // s.P
    return (s.P / pairs - 2) * (s.F + blocks * (s.backward - s.F)) if _direct(s) else None


def _approximate(_: Setting) -> None:
    """No exact number: what is published is about so much, or grows so."""


_GIS_H = "((P-1)(F+I) + ⌊P/2⌋(v-1)(F+I-W))/v"
_HALVES = "F = I = W, groups of ⌈P/2⌉ that come out whole"
_HIDDEN = "P ≥ 2, a copy out and back no longer than F+I+W, no transfer time"
_ANY_TIMES = "no transfer time"
_LOOPED = "M ≥ P, no transfer time"
_PAIRS = "max(F, B) ≤ X ≤ F+B"
_UNIT = "F = I = W, no transfer time"
_DUALPIPE = "I = F ≥ W, B ≤ X ≤ F+B, no transfer time; with I > F it is max[(h-1)(X+F-2W), (h-1)(X+B-3W)-F]"

FORMULAS: Mapping[str, Formula] = {
    "gpipe": Formula("(P-1)(F+B)", _ANY_TIMES, "M", CHIMERA, _one_wave, _immediate, lambda s: s.M),
    "1f1b": Formula("(P-1)(F+B)", _ANY_TIMES, "P", DEEPSEEK, _one_wave, _immediate, lambda s: min(s.P, s.M)),
    "1f1b-overlap": Formula(
        "(P-1)(F+B)",
        f"{_PAIRS}, {_ANY_TIMES}",
        "2P",
        "1F1B's, which pairing leaves as it is",
        _one_wave,
        _with_pairs(_immediate),
        lambda s: min(2 * s.P, s.M),
    ),
    "interleaved-1f1b": Formula(
        "(P-1)(F+B)/v", _LOOPED, "P+(P-1)/v", MEGATRON, _looped, _immediate_rounds, _interleaved_peak(0)
    ),
    "interleaved-1f1b-overlap": Formula(
        "(P-1)(F+B)/v",
        f"{_PAIRS}, {_LOOPED}",
        "P+P/v",
        "interleaved 1F1B's, which pairing leaves as it is",
        _looped,
        _with_pairs(_immediate_rounds),
        _interleaved_peak(1),
    ),
    "looped-bfs": Formula("(P-1)(F+B)/v", _LOOPED, "M", BREADTH_FIRST, _looped, _immediate_rounds, lambda s: s.M),
    "seq1f1b": Formula(
        "(P-1)(F+B)/(kv)",
        f"k slices that take as long, {_ANY_TIMES}",
        "(k+P-1)/k; (2(P-1)+(v-1)P+k)/(kv) with v ≥ 2",
        SEQ1F1B,
        lambda s: _sliced(s) / s.stages_per_rank,
        _immediate,
        _seq1f1b_peak,
    ),
    "terapipe": Formula(
        "(P-1)(F+B)/k", f"k slices that take as long, {_ANY_TIMES}", "M", TERAPIPE, _sliced, _immediate, lambda s: s.M
    ),
    "slimpipe": Formula(
        "(P-1)(F+B)/(nv)",
        f"n slices, {_ANY_TIMES}",
        "1+2(P-1)/(nv)",
        SLIMPIPE,
        lambda s: _sliced(s) / s.stages_per_rank,
        _immediate,
        lambda s: min(1 + 2 * (s.P - 1) / (s.slices * s.stages_per_rank), s.M),
    ),
    "vocab-1f1b": Formula(
        "(P-1)(F+B)",
        "M ≥ P, B ≥ F, with 2 barriers a whole multiple of it, no transfer time",
        "P+barriers",
        f"1F1B's; peak: {VOCABULARY}",
        _one_wave,
        _vocabulary,
        lambda s: min(s.P + s.barriers, s.M),
    ),
    "interlaced": Formula(
        "(P-1)(F+B)",
        "B = 2F, no transfer time",
        "⌊3P/2⌋",
        f"as it is described by {VOCABULARY}",
        _one_wave,
        lambda s: s.immediate and abs(s.backward - 2 * s.F) < _ROUNDING,
        lambda s: min(3 * s.P // 2, s.M),
    ),
    "gis": Formula(
        "((P-1)(F+I) + (P-g)(v-1)(F+I-W))/v",
        "P/2 ≤ g, groups that come out whole, g = P or F = I = W, no transfer time",
        "(g(v-1)+P)/v",
        PIPE_OFFLOAD,
        _gis(_group),
        _gis_exact(_group),
        _gis_peak(_group),
    ),
    "gis-h": Formula(
        _GIS_H,
        f"{_HALVES}, no transfer time",
        "(⌈P/2⌉(v-1)+P)/v",
        PIPE_OFFLOAD,
        _gis(_half),
        _gis_exact(_half),
        _gis_peak(_half),
    ),
    "po-h": Formula(
        _GIS_H,
        f"{_HALVES}, {_HIDDEN}",
        "about (v+2)P/(8v) in groups of 1",
        PIPE_OFFLOAD,
        _gis(_half),
        _copies_hidden,
        _approximate,
    ),
    "po-f": Formula(
        _GIS_H,
        f"{_HALVES}, {_HIDDEN}",
        "a few stages', O(1/v)",
        PIPE_OFFLOAD,
        _gis(_half),
        _copies_hidden,
        _approximate,
    ),
    "zb-h1": Formula(
        "(P-1)(F+I-W)",
        "M ≥ P, W ≤ F, W ≤ I, no transfer time",
        "P",
        ZERO_BUBBLE,
        _zb_h1,
        lambda s: _immediate_rounds(s) and _short_weights(s),
        lambda s: min(s.P, s.M),
    ),
    "zb-h2": Formula(
        "(P-1)(F+I+2C-2W)",
        "M ≥ 2P-1, W ≤ F, W ≤ I, 2C ≤ F+I",
        "2P-1",
        ZERO_BUBBLE,
        _zb_h2,
        lambda s: s.M >= 2 * s.P - 1 and _short_weights(s) and 2 * s.C <= s.F + s.I,
        lambda s: min(2 * s.P - 1, s.M),
        over="span",
    ),
    "zb-v": Formula(
        "0",
        f"M ≥ 2P, {_UNIT}",
        "P",
        ZERO_BUBBLE,
        lambda s: 0.0,  # noqa: ARG005 - the same at every setting
        _unit,
        lambda s: min(s.P, s.M),
        over="span",
    ),
    "v-half": Formula(
        "(3P-7)/2 · F",
        f"P = 4, 6, 8, 10, M ≥ 2P, {_UNIT}",
        "⌊(P+2)/2⌋",
        CONTROLLABLE_MEMORY,
        _v_half,
        _unit,
        lambda s: (s.P + 2) // 2 if s.M >= 2 * s.P else None,
    ),
    "v-min": Formula(
        "(2P-5/2) · F",
        f"P ≥ 4, M ≥ 2P, {_UNIT}",
        "⌊(P+4)/3⌋",
        CONTROLLABLE_MEMORY,
        lambda s: (2 * s.P - 2.5) * s.F if s.P >= 4 else None,
        _unit,
        lambda s: (s.P + 4) // 3 if s.M >= 2 * s.P else None,
    ),
    "chimera": Formula(
        "(P/f-2)(F+K(B-F)), K = M/P",
        "B ≥ F, direct concatenation, no transfer time",
        "P",
        CHIMERA,
        _chimera,
        lambda s: s.immediate and s.backward >= s.F and _direct(s),
        lambda s: 2 * s.P if s.options["concatenation"] == "forward-doubling" else s.P,
    ),
    "dualpipe": Formula(
        "(P/2-1)(X+B-3W)",
        f"{_DUALPIPE}, h = P/2",
        "P+1",
        DEEPSEEK,
        _bidirectional(lambda s: s.P // 2, share=1.0),
        _dualpipe_exact,
        lambda s: s.P + 1,
    ),
    "dualpipev": Formula(
        "(P-1)(X+B-3W)/2",
        f"{_DUALPIPE}, half of it, h = P",
        "P+1/2",
        DEEPSEEK,
        _bidirectional(lambda s: s.P, share=0.5),
        _dualpipe_exact,
        lambda s: s.P + 0.5,
    ),
    "stp": Formula(
        "(P-1)(F+I-W)/2",
        f"M ≥ 3P-1, {_UNIT}",
        "3P/2 published, up to 2P-1/2 until the end of W",
        STP,
        lambda s: (s.P - 1) * (s.F + s.I - s.W) / 2,
        lambda s: s.M >= 3 * s.P - 1 and _unit(s),
        lambda _: None,
    ),
}
"""The schedules that have a published formula."""
