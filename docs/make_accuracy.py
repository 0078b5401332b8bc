"""Write docs/accuracy.md, its pictures and the package's accuracy.yaml: ``make board``.

All runs of validation/published are predicted. Those that a constant was set from are shown and do not count. How far
one schedule is off against another is read from what validation/torch_runs holds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "validation"))

import fit
import predict_torch
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from dualpipe_sim.base.units import format_seconds, number_of
from dualpipe_sim.config.yaml_text import as_yaml, read_yaml
from dualpipe_sim.pictures.palette import THEMES
from dualpipe_sim.pictures.plot import save
from dualpipe_sim.pictures.plot.files import new_axes
from dualpipe_sim.pictures.plot.series import finish, marker
from dualpipe_sim.pictures.plot.style import style
from dualpipe_sim.scoring import Board, Errors, Prediction, score
from dualpipe_sim.scoring.board import errors_of
from dualpipe_sim.scoring.rows import CLASSES
from dualpipe_sim.scoring.scatter import MARKS

HERE = Path(__file__).parent
PAGE = HERE / "accuracy.md"
SCATTER, CUMULATIVE = (HERE / "images" / f"accuracy_{name}.png" for name in ("scatter", "cumulative"))
PUBLISHED = HERE.parent / "validation" / "published"
PROVENANCE = PUBLISHED / "provenance.yaml"
PRESET = HERE.parent / "dualpipe_sim" / "scoring" / "accuracy.yaml"
BAND = 0.1

WORDS = {kind: mark.words for kind, mark in MARKS.items()}
"""What pictures call the classes, where each run is of one."""

# Median and p90 of errors in percent and, in brackets, how many runs a predictor could state, where that were not all:
# 260 dense ones of Megatron's kind, 428 dense ones, 55 with experts.
PEERS_BY_CLASS = (
    ("hardware FLOPs at one efficiency × bubble formula", "21.8 / 74", "20.1 / 67", "34.3 / 65"),
    ("[Calculon](https://github.com/calculon-ai/calculon)", "26.3 / 55 (194)", "24.4 / 49 (278)", "–"),
    (
        "[SimuMax](https://github.com/MooreThreads/SimuMax), its tables of A100",
        "26.2 / 66 (172)",
        "24.8 / 59 (256)",
        "–",
    ),
    ("SimuMax, its tables of B200", "5.0 / 7 (15)", "5.0 / 7 (15)", "3.6 / 7 (6)"),
    ("a roofline with kernel tables, unfitted", "12.5 / 40", "14.0 / 39", "–"),
)
PEERS = (
    ("a repeat of the same published setting", "about 4 %"),
    ("Calculon; on the runs of Korthikanti et al. alone", "21.1 %; 2.8 %"),
    ("SimuMax, its tables of A100; on its own runs on B200", "22.4 %; 5.5 %, peak memory 0.4 %"),
    ("[llm-analysis](https://github.com/cli99/llm-analysis)", "20 %"),
    ("one fitted efficiency a kind of hardware × bubble formula", "16.4 %"),
    ("kernel tables and collectives by size, unfitted", "13.4 %"),
)

BARS = """\
## Error bars

Every step that is predicted from a model's shapes and a GPU is shown with the p90 of its class above. A p90 of 25 % is
`step 10 s, 8 to 13.3 s`: a prediction of a measured step M lies between 0.75 M and 1.25 M nine times in ten, so that M
is between 10 s / 1.25 and 10 s / 0.75. Costs that are given, or calibrated from a run, have no bar. No run here is of
DeepSeek's own software (`stack: deepseek`, the usual one), whose times are fitted to one trace of one layer. Its steps
are taken to be no further off than those of their class; DeepSeek-V3's own step, which was measured, is not.

Settings that `plan` ranks differ in how a model is cut and in what is recomputed, not in the order of ops alone. What
is wrong with their costs is in part the same for two of them, and nothing measured says in how large a part: all of it
would tell any two apart, none of it hardly any. Those that are slower than the first by no more than the class's
median error are said to be too close to call.
"""

SCHEDULES = """\
## Schedules against each other

Schedules of one comparison share model, GPUs and costs. What is wrong with those is wrong for all of them; only what
they do not share can turn their order. How far one schedule is off against another on the same costs was measured with
torch's own runtime on two H100: each run was calibrated alone, and its costs predict all runs of other schedules of
its model ([every one of them](validation_torch.md)).
"""

SCHEDULES_IN_WORDS = """\
A host is the limit of a run if, by the run's own costs, one that issues ops in no time would make its step over 1 %
shorter. Such a run is as far from itself, made again, as from its prediction, which is no error of a schedule; and
costs of kind `layers` are of GPUs that large layers keep busy, with a host that is as fast in one schedule as in the
other. So `compare` takes the p90 of the first row, {p90}: schedules that are slower than the fastest by no more are
said to be too close to call. What these runs cannot say: all are on two GPUs, and those of the first row have no
collectives inside their ops. Where one schedule hides all-to-alls, or collectives of tensor parallelism, and another
does not, what these are off by comes on top. The runs of a [plain runtime](validation_runs.md) were each predicted
from the same schedule.
"""

FIT = """\
No constant was fitted to a published step. `python validation/fit.py` says what that would gain: a factor on each of
these parts of every step, such that the mean error (of logarithms) is least: {values}. `fitted` is on the very runs
that they were fitted to, `left out` predicts each of {sources} sources with factors fitted to all others; median / p90
in percent (runs):
"""

INTRODUCTION = """\
# How far from published runs

<!-- Written by docs/make_accuracy.py (`make board`); change that, or validation/published, then run it again. -->

Training steps that others measured and published: {runs} of {sources} sources, each predicted from its model, GPUs,
parallel degrees, sizes, precision and software. An error is predicted over measured step time, less one: median and
p90 (nine of ten are no larger) are of errors without signs, bias is the median with signs. Of each source the runs are
a sample, spread over its models, GPUs, precisions and schedules, and taken by a rule that looks at no error. They stand
in `validation/published`, a file a source, in the format of [howto_score.md](howto_score.md#rows), each with the table
that it comes from and what the source leaves open; `dualpipe-sim score` takes such a file. {aside} are shown and do not
count, since their source leaves too much open or [set a constant](#where-constants-come-from).
"""

CLASSES_IN_WORDS = """\
`moe` has experts; `megatron-dense` has none and runs on Megatron-LM, MegaScale or NeMo without shared weights; `dense`
is all without experts.
"""

BESIDE_OTHERS = """\
## Beside other predictors

Other predictors were scored on runs of the same sources: median / p90 in percent, in brackets how many runs one could
state. Theirs are not the same runs, but 483 that count, of which those here are about a third: 428 dense ones, 260 of
them of Megatron's kind, and 55 with experts.
"""

PEERS_OVER_ALL = """\
Over all classes, on more runs of the same sources, median errors are:
"""

CONSTANTS = """\
## Where constants come from

What predictions are made of, as comments of the presets say. Runs of a source that a constant was set from do not
count.
"""


def rows() -> list[dict[str, Any]]:
    """Return the published runs, source by source; those that a constant was set from with ``score: false``."""
    taken = set_constants()
    found = [run for source in published().values() for run in source["runs"]]
    return [{**run, "score": False} if {run["source"], run["id"]} & taken else run for run in found]


def published() -> dict[str, Any]:
    """Return the files of published runs by their sources' names: each has ``about`` and ``runs``."""
    found: dict[str, Any] = {}
    for path in sorted(PUBLISHED.glob("*.yaml")):
        if path != PROVENANCE:
            data: Any = read_yaml(path)
            found[path.stem] = {"about": data["sources"][path.stem], "runs": data["runs"]}
    return found


def constants() -> list[dict[str, Any]]:
    """Return what constants were set from."""
    data: Any = read_yaml(PROVENANCE)
    return list(data["constants"])


def set_constants() -> set[str]:
    """Return the sources, and ids of single runs, that a constant was set from."""
    return {name for one in constants() for name in one["runs"]}


def schedules() -> dict[str, Errors]:
    """Return how far off steps are that another schedule's run predicts, by what limits the two; ``all`` last."""
    runs = {run.name: run for run in predict_torch.read_runs()}
    limited = predict_torch.limited_by_hosts(list(runs.values()))
    stored = json.loads((predict_torch.FOLDER / "predicted.json").read_text(encoding="utf-8"))
    others = [row for row in stored if predict_torch.kind_of(row, runs) == "other schedules"]
    by_gpus = [row for row in others if not {row["run"], row["from"]} & limited]
    by_hosts = [row for row in others if {row["run"], row["from"]} & limited]
    groups = {"GPUs are the limit of both": by_gpus, "a host is the limit of one of the two": by_hosts, "all": others}
    return {name: Errors.of(map(predict_torch.error_of, rows)) for name, rows in groups.items()}


def page(board: Board, of_schedules: Mapping[str, Errors]) -> str:
    """Return the whole page."""
    sources = published()
    predictions = {one.id: one for one in board.predictions}
    aside = sum(not one.counts for one in board.predictions)
    introduction = INTRODUCTION.format(runs=len(predictions), sources=len(sources), aside=aside)
    parts = [introduction, *_errors(board), BARS, *_schedules(of_schedules)]
    parts += [*_beside_others(board), *_fit(board), *_constants()]
    parts += ["## Every run", "In brackets: does not count."]
    parts += [_source(name, source, predictions) for name, source in sorted(sources.items())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _errors(board: Board) -> Iterator[str]:
    yield "## Errors"
    classes = {f"`{name}`": runs for name, runs in board.classes.items()} | {"all": list(board.predictions)}
    yield _error_table("class", classes)
    yield CLASSES_IN_WORDS
    yield from _pictures()
    memory = board.memory
    if memory.median is not None and memory.p90 is not None:
        yield (
            f"Peak memory, of the {number_of(memory.rows, 'run')} whose source has it as the allocator sees it: "
            f"{_percent(memory.median)} off at the median, {_percent(memory.p90)} p90."
        )
    yield _error_table("GPU", dict(sorted(board.gpus.items())))
    yield _error_table("precision", dict(sorted(board.precisions.items())))
    yield _error_table("source", {f"[{name}](#{name})": runs for name, runs in sorted(board.sources.items())})


def _error_table(what: str, groups: Mapping[str, Sequence[Prediction]]) -> str:
    head = (what, "runs", "count", "median", "p90", "bias")
    return _table(head, ((name, f"{len(runs)}", *_cells(errors_of(runs))) for name, runs in groups.items()), numbers=5)


def _cells(errors: Errors) -> tuple[str, ...]:
    return f"{errors.rows}", _percent(errors.median), _percent(errors.p90), _signed(errors.bias)


def _pictures() -> Iterator[str]:
    yield f"![Predicted against measured step time of every run, with a band of ±10 %](images/{SCATTER.name})"
    yield f"![Share of runs whose error is no larger than so much, by class](images/{CUMULATIVE.name})"


def _beside_others(board: Board) -> Iterator[str]:
    yield BESIDE_OTHERS
    own = (_both(errors_of(board.classes[kind])) for kind in CLASSES)
    rows = (*PEERS_BY_CLASS, ("**dualpipe-sim, runs here**", *own))
    yield _table(("predictor", *(f"`{kind}`" for kind in CLASSES)), rows, numbers=3)
    yield PEERS_OVER_ALL
    errors = errors_of(board.predictions)
    yield _table(("predictor", "median"), (*PEERS, ("**dualpipe-sim, runs here**", _percent(errors.median))), numbers=1)


def _both(errors: Errors) -> str:
    if errors.median is None or errors.p90 is None:
        return "–"
    return f"{errors.median * 100:.1f} / {errors.p90 * 100:.0f} ({errors.rows})"


def _schedules(found: Mapping[str, Errors]) -> Iterator[str]:
    yield SCHEDULES
    rows = ((name, f"{one.rows}", *map(_percent, (one.median, one.p90))) for name, one in found.items())
    yield _table(("predicted from another schedule's run", "steps", "median", "p90"), rows, numbers=3)
    yield SCHEDULES_IN_WORDS.format(p90=_percent(next(iter(found.values())).p90))


def _fit(board: Board) -> Iterator[str]:
    found = fit.what_a_fit_gains(board)
    values = "; ".join(f"{name}: {factor:.2f}" for name, factor in found.factors.items())
    yield "## What a fit would gain"
    yield _filled(FIT.format(values=values, sources=found.sources))
    every = (found.before, found.fitted, found.left_out)
    rows = ((name if name == "all" else f"`{name}`", *(_both(one[name]) for one in every)) for name in found.before)
    yield _table(("class", "unfitted", "fitted", "left out"), rows, numbers=3)
    yield _filled(f"{found.verdict} {fit.NOTHING}")


def _constants() -> Iterator[str]:
    yield CONSTANTS
    told = ((one["constant"], one["set_from"], one["how"], ", ".join(one["runs"]) or "–") for one in constants())
    yield _table(("constant", "set from", "how", "runs that do not count"), told)


def _source(name: str, source: Mapping[str, Any], predictions: Mapping[str, Prediction]) -> str:
    about, runs = source["about"], source["runs"]
    lines = [
        f'<details id="{name}" markdown="1">',
        f"<summary><b>{name}</b>: {escape(about['title'], quote=False)}, {number_of(len(runs), 'run')}</summary>",
        "",
        f"<{about['url']}>, {about['table']}. Step time: {about['step_time']}."
        + (f" Left open: {', '.join(about['not_stated'])}." if about.get("not_stated") else ""),
        "",
        _table(
            ("run", "model", "GPUs", "parallel", "precision", "measured", "predicted", "error"),
            (_run(run, predictions[run["id"]]) for run in sorted(runs, key=lambda run: str(run["id"]))),
            numbers=3,
        ),
    ]
    for what, told in (("Left open", "not_stated"), ("Noted", "notes")):
        if said := _said(runs, told):
            lines += ["", f"{what}: {said}."]
    if {name, *(run["id"] for run in runs)} & set_constants():
        lines += ["", "A constant was set from this source, so it does not count."]
    return "\n".join([*lines, "", "</details>"])


def _run(run: Mapping[str, Any], predicted: Prediction) -> tuple[str, ...]:
    error = _signed(predicted.error)
    return (
        run["id"],
        run["model_name"],
        f"{run['cluster']['gpus']:,} × {predicted.gpu}",
        _parallel(run),
        run["precision"],
        format_seconds(predicted.measured_step_time_s),
        format_seconds(predicted.step_time_s),
        error if predicted.counts else f"({error})",
    )


def _parallel(run: Mapping[str, Any]) -> str:
    """Return how a run is cut, in short; sizes of one are left out: ``TP8 PP16×2 DP4``, two stages on each rank."""
    cut, words = run["parallel"], []
    for key in ("tp", "cp", "pp", "ep", "etp", "dp"):
        size = cut.get(key, 1)
        chunks = cut.get("vpp") if key == "pp" else None
        if size > 1 or (key == "etp" and "etp" in cut and cut.get("tp", 1) > 1):
            words.append(f"{key.upper()}{size}" + (f"×{chunks}" if chunks and chunks > 1 else ""))
    if cut.get("fsdp", 0) > 1:
        words.append("FSDP")
    return " ".join(words) or "one GPU"


def _said(runs: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return what runs say under a key, each with the numbers of the runs that say it."""
    who: dict[str, list[str]] = {}
    for run in runs:
        told = run.get(key, [])
        for words in [told] if isinstance(told, str) else told:
            who.setdefault(words, []).append(run["id"].rpartition("-")[2])
    return "; ".join(f"{words} ({', '.join(numbers)})" for words, numbers in who.items())


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]], *, numbers: int = 0) -> str:
    """Return a table whose last so many columns are numbers."""
    sides = ["---"] * (len(headings) - numbers) + ["--:"] * numbers
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, sides, *lines))


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.1f} %"


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:+.1f} %"


def scatter(board: Board) -> Axes:
    """Draw predicted against measured steps, both axes logarithmic; what does not count is hollow."""
    theme = THEMES["light"]
    with style(theme, 1.3):
        axes = new_axes((9.5, 6.5))
        both = [one for one in board.predictions if one.measured_step_time_s and one.step_time_s]
        times_s = [time_s for one in both for time_s in (one.measured_step_time_s, one.step_time_s) if time_s]
        ends = min(times_s) / 1.5, max(times_s) * 1.5
        axes.fill_between(
            ends,
            [(1 - BAND) * end for end in ends],
            [(1 + BAND) * end for end in ends],
            color=theme.row_line,
            label="±10 %",
            zorder=1,
        )
        axes.plot(ends, ends, color=theme.faint_ink, linewidth=1, zorder=1)
        for place, (kind, words) in enumerate(WORDS.items()):
            look = marker(place, theme) | {"markersize": 6.5, "markeredgewidth": 0.6, "alpha": 0.85}
            hollow = look | {"markerfacecolor": "none", "markeredgecolor": look["color"], "markeredgewidth": 1.1}
            shown = [one for one in both if one.kind == kind]
            counted, aside = ([one for one in shown if one.counts is counts] for counts in (True, False))
            axes.plot(*_spots(counted), linestyle="none", label=f"{words}, {len(counted)}", **look)
            axes.plot(*_spots(aside), linestyle="none", **hollow)
        aside_at_all = sum(not one.counts for one in both)
        if aside_at_all:
            look = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": theme.faint_ink}
            axes.plot([], [], linestyle="none", label=f"hollow: does not count, {aside_at_all}", **look)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda time_s, _: format_seconds(time_s)))
        axes.set(xlabel="measured step", ylabel="predicted step")
        errors = errors_of(board.predictions)
        axes.set_title(f"{errors.rows} published steps, median error {_percent(errors.median)}")
        finish(axes, theme)
    return axes


def _spots(runs: Sequence[Prediction]) -> tuple[list[float], list[float]]:
    return [one.measured_step_time_s or 0.0 for one in runs], [one.step_time_s or 0.0 for one in runs]


def cumulative(board: Board) -> Axes:
    """Draw the share of runs whose error, without its sign, is no larger than so much, a curve for each class."""
    theme = THEMES["light"]
    with style(theme, 1.3):
        axes = new_axes((9.5, 5.0))
        for place, (kind, words) in enumerate((WORDS | {"dense": "all dense"}).items()):
            sizes = sorted(abs(one.error) for one in board.classes[kind] if one.error is not None and one.counts)
            shares = [100 * rank / max(len(sizes), 1) for rank in range(len(sizes) + 1)]
            label = f"{words}, {len(sizes)}:\nmedian {_percent(errors_of(board.classes[kind]).median)}"
            look = {"color": marker(place, theme)["color"], "linewidth": 2.2}
            axes.step([0, *(100 * size for size in sizes)], shares, where="post", label=label, **look)
        for share in (50, 90):
            axes.axhline(share, color=theme.faint_ink, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        axes.set(xlabel="error of at most (%)", ylabel="share of published steps (%)")
        axes.set(xlim=(0, 100 * _nearly_all(board)), ylim=(0, 100), yticks=(0, 25, 50, 75, 90, 100))
        finish(axes, theme)
    return axes


def _nearly_all(board: Board) -> float:
    """Return an error that 95 of 100 runs keep within: a few that are far off would leave no place for the others."""
    sizes = sorted(abs(one.error) for one in board.predictions if one.error is not None and one.counts)
    return max(0.2, sizes[int(0.95 * len(sizes))] if sizes else 0.0)


def preset(board: Board, of_schedules: Mapping[str, Errors]) -> str:
    """Return the text of the package's own file of errors."""
    lines = [
        "# How far predicted steps are from published ones, by class; written by docs/make_accuracy.py, with its page.",
        "# Errors are predicted over measured, less one: median and p90 of those without signs, bias with them.",
        *(f"{kind}: {_rounded(errors_of(board.classes[kind])._asdict())}" for kind in CLASSES),
        "# Steps of torch's runtime, predicted from another schedule's run, where GPUs are the limit of both.",
    ]
    by_gpus = next(iter(of_schedules.values()))._asdict()
    lines.append(f"schedules: {_rounded({key: by_gpus[key] for key in ('rows', 'median', 'p90')})}")
    return "\n".join(lines) + "\n"


def _rounded(errors: Mapping[str, Any]) -> str:
    return as_yaml({key: round(value, 4) if isinstance(value, float) else value for key, value in errors.items()})


def main() -> None:
    """Predict all runs, then write page, pictures and preset; nothing where a run cannot be predicted."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes on this machine")
    board = score(rows(), source="validation/published", workers=arguments.parse_args().workers)
    lost = [one.unsupported for one in board.predictions if one.unsupported is not None]
    if lost:
        raise SystemExit("\n".join([f"{number_of(len(lost), 'run')} cannot be predicted:", *lost]))
    of_schedules = schedules()
    PAGE.write_text(page(board, of_schedules), encoding="utf-8")
    PRESET.write_text(preset(board, of_schedules), encoding="utf-8")
    for path, axes in ((SCATTER, scatter(board)), (CUMULATIVE, cumulative(board))):
        save(axes.figure, path)


if __name__ == "__main__":
    main()
