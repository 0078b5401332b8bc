"""Write docs/schedules.md and its charts from the registry: ``python docs/make_schedules.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from dualpipe_sim.analysis import metrics
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.schedules.registry import ScheduleSpec, schedules
from dualpipe_sim.schedules.theory import FORMULAS
from dualpipe_sim.simulation import play

HERE = Path(__file__).parent
PAGE = HERE / "schedules.md"
IMAGES = HERE / "images" / "schedules"
RANKS, MICRO_BATCHES = 4, 8

_TIMES = {
    "forward": "time of F of one rank's share of the model, where there are no costs to take it from.",
    "backward_input": "that of I.",
    "backward_weight": "that of W.",
    "transfer": "that of a transfer.",
}

INTRODUCTION = f"""\
# Schedules

<!-- Written by docs/make_schedules.py from the schedules themselves; change those, then run it again. -->

Letters are the papers': P ranks, M micro-batches in all, v stages a rank; F, I and W the times of a forward, a backward
for the input and a backward for the weights of one rank's share of the model, B = I + W; X the time of an overlapped
pair, C that of a transfer. **Bubble** is the idle time of the rank that idles longest, of the makespan if nothing else
is said; it is what the simulator measures, exactly, where the formula holds. **Activations** are the most that a rank
holds, in activations of one rank's share of the model for one micro-batch. **Copies** is how often the ranks together
hold the model's parameters (2f for Chimera with f pairs of pipes). The last two columns and the charts are simulated on
{RANKS} ranks with {MICRO_BATCHES} micro-batches, F = I = W = 1, S = T = 1/2, no transfer time and no gain from
overlap; **idle** is again that of the rank that idles longest, of the makespan.

"""

BESIDE_OTHERS = """\
## Beside torch.distributed.pipelining

Compared with torch 2.13.0, live where torch is installed and by recorded goldens without it
(`tests/schedules/test_torch_orders.py`): `gpipe`, `1f1b`, `interleaved-1f1b`, `looped-bfs`, `interleaved-zb`, `zb-v`
and `dualpipev` are torch's orders op for op at every size that both accept, with micro-batches that are no multiple of
the ranks and with fewer micro-batches than ranks too. Where they differ:

- `1f1b`: torch refuses fewer micro-batches than ranks; the order is well defined, so it runs here. The comparison is
  with what torch runs. The order that torch 2.13.0 *describes* (`Schedule1F1B._get_pipeline_order`) begins the last
  rank at micro-batch 1 and ends at one that does not exist.
- `interleaved-1f1b` and `interleaved-zb` refuse micro-batches that do not split into whole groups, as torch does.
  Option `group` goes beyond torch: any group of at least P micro-batches whose ragged rest is none or at least P too.
- `zb-h1` is torch's interleaved zero bubble with one stage a rank, and takes any number of micro-batches.
- `zb-v`: with fewer than 2P-1 micro-batches torch writes the order for 2P-1 and leaves out the others; so does this.
- `zb-h2`, `hanayo`, `chimera` and `dualpipe` are not in torch. Two opposed pipes do not fit its runtime as they are.
- Torch's files mark expected waiting by empty cells. An order here is an order and nothing else: they are read, and
  left out.

`dualpipe` is held to the released code in two ways: by the counts of its eight steps, and through torch's DualPipeV,
since rank r of 2h ranks with 2M micro-batches does what DualPipeV's rank r of h ranks does with M.

## Beside the papers

- **Zero Bubble** (tables 5 and 6, 6.2B model): the rates of 1F1B and ZB-H1 count from time 0, those of ZB-H2 and ZB-V
  over a rank's own span. Taken so, all of 1F1B, ZB-H1 and ZB-H2 come out to four decimals. The interleaved column
  leaves out the transfers from the last rank back to the first; with all of them it is 0.001 to 0.005 higher (0.0827
  at M = 24, v = 4). ZB-V's published rates belong to an order adapted to the times; the static order here is within
  0.002 of the one at 16 ranks (0.0712 for 0.0697).
- **DualPipe**: the report's formula is exact where I = F. With I > F the middle ranks wait less than it says.
- **Chimera**, forward doubling: the paper draws two forwards as one slot of twice the length. Here the first of the
  two is handed on when it is done, so the idle time is (P/f-2)(F+B)/2 where F ≤ B ≤ 2F, less than whole slots would
  give; like the paper's, it does not grow with the number of blocks.
- **Hanayo** gives a bubble ratio of about (2P-2)/(3Pw+P-1) for w waves, M = P and B = 2F: an approximation.
- **Vocabulary parallelism**: no paper says the makespan; M(F+B+S+T) + (P-1)(F+B) is what replaying the authors' order
  gives (`tests/schedules/test_vocab.py`). With two barriers and B no whole multiple of F it is in a few of a hundred
  settings longer, by up to 0.7 F; with M < P and one barrier up to T shorter. `vocab-v-half` holds ⌊(P+2)/2⌋ + barriers
  activations at 4 to 8 ranks. Played with measured ops, orders take from 1.8 % less to 0.4 % more than the measured
  iteration ([validation](validation.md#orders-with-measured-ops)).
- **1F1B and interleaved 1F1B with overlap** have no paper: the bubble is that of the schedule without pairs, the
  price is the warm-up.
"""


def page() -> str:
    """Return the whole page."""
    specs = schedules().values()
    rows = "".join(_row(spec) for spec in specs)
    head = "| schedule | bubble | activations | copies | idle | peak |\n|---|---|---|---|---|---|\n"
    return INTRODUCTION + head + rows + "\n" + "\n".join(map(_section, specs)) + "\n" + BESIDE_OTHERS


def example(spec: ScheduleSpec) -> Timeline:
    """Play a schedule with its defaults at the size of the charts."""
    return play(lower(spec.build(RANKS, MICRO_BATCHES, {}), UniformCosts(1.0, 1.0, 1.0, vocab_s=0.5, vocab_t=0.5)))


def _row(spec: ScheduleSpec) -> str:
    formula, timeline = FORMULAS.get(spec.name), example(spec)
    bubble = f"{formula.bubble}{' of the span' if formula.over == 'span' else ''}" if formula else "–"
    cells = (
        f"[`{spec.name}`](#{spec.name})",
        bubble,
        formula.peak if formula else "–",
        str(len(timeline.graph.schedule.placement.pipes)),
        f"{metrics.idle_s(timeline).max():.4g}",
        f"{metrics.peak_activations_by_rank(timeline).max():.4g}",
    )
    return f"| {' | '.join(cells)} |\n"


def _section(spec: ScheduleSpec) -> str:
    text, arguments = _docstring(spec)
    formula = FORMULAS.get(spec.name)
    lines = [f"## {spec.name}\n", f"{text}\n", f"- Sizes: {spec.requires or 'any'}."]
    if spec.adapts_to_times:
        lines.append("- The order adapts to the times of F, I, W and of a transfer, in a run to those of its costs.")
    lines += [_option(name, option, arguments.get(name) or _TIMES[name]) for name, option in spec.options.items()]
    if formula:
        over = ", of the span from a rank's first op to its last" if formula.over == "span" else ""
        lines.append(f"- Bubble {formula.bubble}{over}; exact with {formula.holds}.")
        lines.append(f"- At most {formula.peak} activations on a rank. Both: {formula.source}.")
    lines.append(f"\n![{spec.name} as a Gantt chart](images/schedules/{spec.name}.png)\n")
    return "\n".join(lines)


def _docstring(spec: ScheduleSpec) -> tuple[str, dict[str, str]]:
    """Return a schedule's description, and that of each of its arguments, each on one line."""
    text, _, arguments = (inspect.getdoc(spec.generate) or "").partition("\n\nArgs:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return text.replace("``", "`"), {name: " ".join(said.split()).replace("``", "`") for name, said in found}


def _option(name: str, option: inspect.Parameter, said: str) -> str:
    default = "" if option.default is None else f", by default {option.default}"
    return f"- Option `{name}` ({_choices(option.annotation)}{default}): {said}"


def _choices(annotation: Any) -> str:  # noqa: ANN401 - a type
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    names = {int: "whole number", float: "number", bool: "true or false", str: "word"}
    return " or ".join(names[part] for part in (get_args(annotation) or (annotation,)) if part is not type(None))


def charts() -> Iterator[tuple[Path, Timeline]]:
    """Yield the file of each schedule's chart and what it shows."""
    for spec in schedules().values():
        yield IMAGES / f"{spec.name}.png", example(spec)


def main() -> None:
    """Write the page and its charts, and remove charts of schedules that are no more."""
    from dualpipe_sim.pictures.plot import gantt, save

    IMAGES.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    drawn = set()
    for path, timeline in charts():
        save(gantt(timeline).figure, path)
        drawn.add(path)
    for path in set(IMAGES.iterdir()) - drawn:
        path.unlink()


if __name__ == "__main__":
    main()
