"""Write docs/schedules/, a page a schedule and their index, from the registry: ``python docs/make_schedules.py``.

Recipes and options are the schedules' docstrings, formulas are those of ``theory``, numbers are simulated. Who
published and who runs a schedule is in docs/schedules.yaml, with what is known of those that are not drawn. What is
fastest where is in docs/schedules/situations.csv, which make_situations.py writes.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

sys.path.append(str(Path(__file__).parent))  # what stands beside this script

import make_situations as situations
import schedule_charts as charts
import schedule_sources
from schedule_standings import HEAD, dense, link, standings, when_to_use, winners

from dualpipe_sim.analysis import metrics
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import COPIES, I, R, S
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.runtimes.registry import RUNTIMES
from dualpipe_sim.schedules.registry import ScheduleSpec, schedules
from dualpipe_sim.schedules.theory import FORMULAS, closed_form, filled

SAID = schedule_sources.SAID
PAGES = Path(__file__).parent / "schedules"
WRITTEN = "<!-- Written by docs/make_schedules.py from what its docstring names; change that, then run it again. -->\n"

_TIMES = {
    "forward": "time of F of one rank's share of the model, where there are no costs to take it from.",
    "backward_input": "that of I.",
    "backward_weight": "that of W.",
    "transfer": "that of a transfer.",
}
_LETTERS = {
    "P": "P ranks",
    "M": "M micro-batches",
    "v": "v stages a rank",
    "k": "k slices",
    "n": "n slices",
    "g": "g micro-batches of a group",
    "f": "f pairs of pipes",
    "F": "F the time of a forward",
    "I": "I that of a backward for the input",
    "W": "W that of a backward for the weights",
    "X": "X that of an overlapped pair",
    "C": "C that of a transfer",
    "B": "B = I + W",
}
_QUARTERS = " ◔◑◕"

INTRODUCTION = f"""\
# Schedules

{WRITTEN}
A page a schedule: what it looks like, what a rank does, bubble and memory by formula and simulated, where it is the
fastest, what runs it, and whom to cite. Below the table: [which is fastest where](#which-is-fastest-where), what is
[not drawn here](#not-drawn-here), and how orders compare with
[torch's](#beside-torchdistributedpipelining). In a browser the heads of columns sort.

"""

LETTERS = f"""\
Letters are the papers': P ranks, M micro-batches in all, v stages a rank; F, I and W the times of a forward, a backward
for the input and a backward for the weights of one rank's share of the model, B = I + W; X the time of an overlapped
pair, C that of a transfer. **Bubble** is the idle time of the rank that idles longest, of the makespan if nothing else
is said; it is what the simulator measures, exactly, where the formula holds. **Activations** are the most that a rank
holds, in activations of one rank's share of the model for one micro-batch. **Copies** is how often the ranks together
hold the model's parameters (2f for Chimera with f pairs of pipes). **Idle** and **peak** are the same two, simulated on
{charts.RANKS} ranks with {charts.MICRO_BATCHES} micro-batches (stp: 12), F = I = W = 1, S = T = 1/2, no transfer time
and no gain from overlap. **Run by** names frameworks; the pages say what they call it.

"""

WHO_WINS = f"""\
## Which is fastest where

On {situations.RANKS} ranks with F = I = W = 1, by what may be used and by the most activations that a rank may hold:

- **whole** backwards, or **split** ones, whose I and W run apart;
- **pairs** of a forward and a backward, which take **0.8** of F + B by their overlap;
- one copy of the parameters, or **two**;
- **slices** of sequences, or halves of micro-batches, as efficient as whole ones;
- copies to the **host**, of 1 each for a rank's share of a micro-batch.

Each schedule is played with all options that the [planner](../howto_plan.md) tries, M micro-batches and transfers of C.
`zb-auto` is told all times; where it is the fastest, the next in line is named too. Rows that say what one above says
are left out. Real layers differ in more than this: `dualpipe-sim compare` plays yours, `sweep` finds where one schedule
overtakes another.

"""

NOT_DRAWN = """\
## Not drawn here

Of these only abstracts were seen, and what was not verified is not simulated. Each page says what is known, and what
comes close here.

"""

BESIDE_TORCH = """\
## Beside torch.distributed.pipelining

Compared with torch 2.13.0, live where torch is installed and by recorded goldens without it
(`tests/schedules/test_torch_orders.py`): `gpipe`, `1f1b`, `interleaved-1f1b`, `looped-bfs`, `interleaved-zb`, `zb-v`
and `dualpipev` are torch's orders op for op at every size that both accept, with micro-batches that are no multiple of
the ranks and with fewer micro-batches than ranks too. Their pages say where they differ. Torch's files mark expected
waiting by empty cells. An order here is an order and nothing else: they are read, and left out.
"""


def pages() -> dict[Path, str]:
    """Return every page by its file."""
    rows = situations.read()
    own = {PAGES / f"{spec.name}.md": page(spec, rows) for spec in schedules().values()}
    others = {PAGES / f"{file_name(one)}.md": not_drawn(one) for one in SAID["not_drawn"]}
    return {PAGES / "index.md": index(rows), **own, **others}


def page(spec: ScheduleSpec, rows: Sequence[situations.Row]) -> str:
    """Return a schedule's page."""
    said, timeline = schedule_sources.said_of(spec.name), charts.example(spec)
    lead, recipe, arguments = docstring(spec)
    parts = [
        f"# {spec.name}\n\n{WRITTEN}\n{lead}",
        _figure(spec),
        f"## Recipe\n\n{recipe}",
        f"## Formulas\n\n{_formulas(spec, timeline)}",
        f"## Memory and idle time by rank\n\n{_by_rank(timeline)}",
        f"## When to use it\n\n{when_to_use(spec.name, standings(spec.name, rows))}",
        f"## What runs it\n\n{_frameworks(spec, timeline, said['runs'])}",
        f"## Sizes and options\n\n{_options(spec, arguments)}",
        *([f"## Beside papers and torch\n\n{_list(said['notes'])}"] if "notes" in said else []),
        f"## Citation\n\n{schedule_sources.citations(said['cites'])}",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def not_drawn(one: Mapping[str, str]) -> str:
    """Return the page of what is not drawn here."""
    return (
        f"# {one['name']}\n\n{WRITTEN}\n**Not drawn here**: only the abstract was seen, and rules that were not "
        f"verified are not simulated.\n\n{one['is']}\n\n## What is known\n\n{one['known']}\n\n"
        f"## What comes close here\n\n{one['near']}\n\n## Citation\n\n{schedule_sources.citations([one['cites']])}\n"
    )


def file_name(one: Mapping[str, str]) -> str:
    """Return the name of such a page's file."""
    return one["name"].partition(" (")[0].lower()


# What a docstring says.


def docstring(spec: ScheduleSpec) -> tuple[str, str, dict[str, str]]:
    """Return a schedule's description, its recipe, and what is said of each of its arguments, each on one line."""
    text, _, arguments = (inspect.getdoc(spec.generate) or "").partition("\n\nArgs:\n")
    lead, _, recipe = text.partition("\nRecipe, ")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE)
    return (
        _markdown(lead),
        _markdown(recipe[:1].upper() + recipe[1:]),
        {name: _markdown(" ".join(said.split())) for name, said in found},
    )


def _markdown(text: str) -> str:
    """Return a docstring's text with its addresses as links and its code as code."""
    return re.sub(r"https?://[^\s,)]+[^\s,.)]", lambda address: f"<{address[0]}>", text).replace("``", "`").strip()


def _options(spec: ScheduleSpec, arguments: Mapping[str, str]) -> str:
    lines = [f"Sizes: {spec.requires or 'any'}."]
    if spec.adapts_to_times:
        lines.append("The order adapts to the times of F, I, W and of a transfer, in a run to those of its costs.")
    lines += [_option(name, option, arguments.get(name) or _TIMES[name]) for name, option in spec.options.items()]
    return _list(lines)


def _option(name: str, option: inspect.Parameter, said: str) -> str:
    default = "" if option.default is None else f", by default {option.default}"
    return f"Option `{name}` ({_choices(option.annotation)}{default}): {said}"


def _choices(annotation: Any) -> str:  # noqa: ANN401 - a type
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    names = {int: "whole number", float: "number", bool: "true or false", str: "word"}
    return " or ".join(names[part] for part in (get_args(annotation) or (annotation,)) if part is not type(None))


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


# What the example shows.


def _figure(spec: ScheduleSpec) -> str:
    file, order = f"../images/schedules/{spec.name}", charts.drawn(spec).graph.schedule
    fewer = order.micro_batches < charts.MICRO_BATCHES
    why = f" {order.micro_batches} micro-batches, so that cells can be read." if fewer else ""
    return (
        f'<a class="chart" href="{file}.png"><picture>'
        f'<source media="(prefers-color-scheme: dark)" srcset="{file}_dark.png">'
        f'<img src="{file}.png" alt="{spec.name} as a Gantt chart, {order.size}" width="100%"></picture></a>\n\n'
        f"*{_times_of(order)}; transfers take no time.{why} Red lines: each rank's first backward, its last forward.*"
    )


def _size(timeline: Timeline) -> str:
    order = timeline.graph.schedule
    return f"{order.ranks} ranks, {order.micro_batches} micro-batches"


def _times_of(order: Schedule) -> str:
    said = {
        "F = I = W = 1": True,
        "S = T = 1/2": order.of_kinds(S).any(),
        "a forward again 1": order.of_kinds(R).any(),
        "a copy to the host, or back, 1 for a rank's share": order.of_kinds(*COPIES).any(),
    }
    return ", ".join(words for words, is_there in said.items() if is_there)


def _formulas(spec: ScheduleSpec, timeline: Timeline) -> str:
    peak, formula = metrics.peak_activations_by_rank(timeline).max(), FORMULAS.get(spec.name)
    here = closed_form(spec.name, charts.RANKS, charts.micro_batches_of(spec), offload=charts.COSTS.offload)  # type: ignore[arg-type]
    if formula is None or here is None:
        return (
            f"Nobody published a closed form. Simulated with {_size(timeline)}, the rank that idles longest idles "
            f"{idle_s(timeline, 'makespan'):.4g}, and the one that holds most holds {peak:.4g} activations."
        )
    rows = (
        (
            "idle in its span" if here.over == "span" else "idle",
            formula.bubble,
            here.bubble_s,
            idle_s(timeline, here.over),
        ),
        ("activations", formula.peak, here.peak_activations, peak),
    )
    letters, not_here = letters_of(spec), "" if here.exact else f" With {_size(timeline)} and these times it is not."
    table = dense(
        ("most on a rank", "by letters", _size(timeline), "simulated"),
        ((what, words, _value(words, value, letters), f"{found:.4g}") for what, words, value, found in rows),
    )
    return (
        f"{table}\n\nThe idle time is exactly that with {formula.holds}.{not_here} "
        f"Source: {_markdown(formula.source)}.\n\n*{'; '.join(_meanings(formula.bubble + ' ' + formula.peak))}.*"
    )


def _value(words: str, value: float | None, letters: Mapping[str, float]) -> str:
    if value is None:
        return "–"
    numbers = filled(words, letters)
    return f"{value:.4g}" if numbers in (None, f"{value:g}") else f"{numbers} = {value:.4g}"


def _meanings(formulas: str) -> Iterator[str]:
    letters = set(re.findall(r"[A-Za-z]", re.sub(r"[A-Za-z]{3,}", "", formulas)))
    letters |= {"I", "W"} if "B" in letters else set()
    return (meaning for letter, meaning in _LETTERS.items() if letter in letters)


def letters_of(spec: ScheduleSpec) -> dict[str, float]:
    """Return what a formula's letters stand for in the example."""
    options: dict[str, Any] = {name: option.default for name, option in spec.options.items()}
    ranks, micro_batches = charts.RANKS, charts.micro_batches_of(spec)
    slices = options.get("slices") or ranks
    return {
        "P": ranks,
        "M": micro_batches,
        "K": micro_batches / ranks,
        **dict.fromkeys("FIW", 1),
        "B": 2,
        "X": 3,
        "C": 0,
        **dict.fromkeys("kn", slices),
        "v": options.get("stages_per_rank", 1),
        "g": options.get("group") or ranks,
        "f": options.get("pairs", 1),
        "barriers": options.get("barriers", 1),
    }


def idle_s(timeline: Timeline, over: str) -> float:
    """Return the idle time of the rank that idles longest, of the makespan or of its span from first to last op."""
    idle = metrics.idle_s(timeline)
    if over == "span":
        causes = metrics.idle_s_by_cause(timeline)
        idle = idle - causes["warm_up"] - causes["drain"]
    return float(idle.max())


def _by_rank(timeline: Timeline) -> str:
    order = timeline.graph.schedule
    peaks, idle = metrics.peak_activations_by_rank(timeline), metrics.idle_s(timeline)
    rows = (
        (
            str(rank),
            ", ".join(map(str, order.placement.stages_of_rank(rank))),
            f"{peaks[rank]:.4g}",
            _dots(peaks[rank]),
            f"{idle[rank]:.4g}",
        )
        for rank in range(timeline.ranks)
    )
    copies = len(order.placement.pipes)
    return (
        f"{dense(('rank', 'stages', 'activations at most', '', 'idle'), rows)}\n\n"
        f"With {_size(timeline)}; an activation is that of one micro-batch through a rank's share of the model. All "
        f"ranks together hold {f'{copies} copies' if copies > 1 else 'one copy'} of the parameters."
    )


def _dots(amount: float) -> str:
    whole, quarters = divmod(round(4 * amount), 4)
    return "●" * whole + _QUARTERS[quarters].strip()


# Who runs it.


def _frameworks(spec: ScheduleSpec, timeline: Timeline, runs: Mapping[str, str]) -> str:
    lines = []
    for key, called in runs.items():
        framework = SAID["frameworks"][key]
        line = f"**{framework['name']}** ([source]({framework['source']})): {called}."
        if "runtime" in framework and spec.name in RUNTIMES.get(framework["runtime"]).schedules:
            line += f" [Its program](../runtimes.md): `{_command(spec)} --runtime {framework['runtime']}`"
        lines.append(line)
    known = _list(lines) if lines else "No framework is known here that runs it as it is."
    return f"{known}\n\n{_exported(spec, timeline.graph.schedule)}"


def _command(spec: ScheduleSpec) -> str:
    return f"dualpipe-sim schedule {spec.name} --ranks {charts.RANKS} --micro-batches {charts.micro_batches_of(spec)}"


def _exported(spec: ScheduleSpec, order: Schedule) -> str:
    foreign = {
        "slices": order.slices > 1,
        "R, a forward again": order.of_kinds(R).any(),
        "S and T, the passes of a vocabulary": order.of_kinds(S).any(),
        "O and L, copies to the host and back": order.of_kinds(*COPIES).any(),
    }
    if any(foreign.values()):
        words = " and ".join(words for words, is_there in foreign.items() if is_there)
        return f"`{_command(spec)}` prints the order. Torch has no letters for {words}: it is for this program."
    if len(order.placement.pipes) > 1:
        return (
            f"`{_command(spec)} --format compute_comms` writes the order with every send and receive, as torch's "
            "runtime loads it; torch's own lowering refuses opposed pipes ([how](../howto_pytorch.md))."
        )
    return f"`{_command(spec)}` writes the order as torch's CSV, which its runtime loads ([how](../howto_pytorch.md))."


# The index.


def index(rows: Sequence[situations.Row]) -> str:
    """Return the index."""
    head = ("schedule", "year", "bubble", "idle", "activations", "peak", "copies", "stages a rank")
    compared = _sortable((*head, "split backward", "overlapped pairs", "run by"), map(_compared, schedules().values()))
    others = (
        (f"[{one['name']}]({file_name(one)}.md)", schedule_sources.year_of(one["cites"]), one["kind"])
        for one in SAID["not_drawn"]
    )
    return "\n".join(
        [
            INTRODUCTION + compared,
            LETTERS,
            WHO_WINS + _sortable(("may be used", "at most", *HEAD), winners(rows)),
            NOT_DRAWN + _sortable(("name", "year", "what it is"), others),
            BESIDE_TORCH,
        ]
    )


def _sortable(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns docs/assets/sort.js lets readers sort."""
    return dense(head, rows, also=" sortable") + "\n"


def _compared(spec: ScheduleSpec) -> tuple[str, ...]:
    said, formula, timeline = schedule_sources.said_of(spec.name), FORMULAS.get(spec.name), charts.example(spec)
    order = timeline.graph.schedule
    of_span = " of the span" if formula and formula.over == "span" else ""
    return (
        link(spec.name),
        schedule_sources.year_of(said["cites"][0]),
        f"{formula.bubble}{of_span}" if formula else "–",
        f"{metrics.idle_s(timeline).max():.4g}",
        formula.peak if formula else "–",
        f"{metrics.peak_activations_by_rank(timeline).max():.4g}",
        str(len(order.placement.pipes)),
        str(len(order.placement.stages_of_rank(0))),
        "yes" if order.of_kinds(I).any() else "no",
        "yes" if (order.partner >= 0).any() else "no",
        ", ".join(SAID["frameworks"][key].get("short", SAID["frameworks"][key]["name"]) for key in said["runs"]) or "–",
    )


def main() -> None:
    """Write situations, pages and charts, and remove pages that are no more."""
    situations.main()
    found = pages()
    for path, text in found.items():
        path.write_text(text, encoding="utf-8")
    for path in set(PAGES.glob("*.md")) - set(found):
        path.unlink()
    charts.write()


if __name__ == "__main__":
    main()
