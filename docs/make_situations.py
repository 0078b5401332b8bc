"""Play every schedule in every situation that its page speaks of: ``python docs/make_situations.py``.

A situation is a step of 8 ranks: how many micro-batches it has, how long a transfer takes, and what pairs gain by
overlap. Times are in units of F, with F = I = W. Three contests have costs of their own, since orders that make a
forward run again, or cut the output layer, do work that others do elsewhere:

- ``plain``: F = I = W = 1; a copy to the host, or back, takes 1 for a rank's share of a micro-batch.
- ``recompute``: every forward runs again, as an op R of 1 where a schedule has such, else in an I of 2.
- ``vocabulary``: the output layer takes as long as all else on a rank. It is on the last stage, or all ranks share it
  out: its forward, and with one barrier the gradient of its input, are S, the rest is T.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TextIO

from dualpipe_sim import UserError, simulate
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.order.ops import COPIES, I, R, S
from dualpipe_sim.order.schedule import Schedule
from dualpipe_sim.schedules.registry import ScheduleSpec, build, schedules

FILE = Path(__file__).parent / "schedules" / "situations.csv"
RANKS = 8
MICRO_BATCHES = (16, 64)
TRANSFERS = (0.0, 0.1, 0.5)
PAIRS = (1.0, 0.8)
LIMITS = (RANKS / 2, float(RANKS), 2.0 * RANKS, None)
"""The most activations that a rank may hold; None for any number."""

ALONE = UniformCosts(1.0, 1.0, 1.0, offload=1.0, unitless=True)


class Row(NamedTuple):
    """One run.

    Attributes:
        contest: whose costs.
        schedule: its name.
        options: its options, as the command line writes them.
        held: its options that keep it within a limit, likewise.
        micro_batches: of the step.
        transfer: time of a transfer.
        pair: time of an overlapped pair over that of F + B; empty where the order has none.
        makespan: time of the step.
        peak: most activations on a rank.
        copies: how often the ranks together hold the parameters.
        splits: whether it splits backwards into I and W.
        cuts: whether it cuts micro-batches, along the sequence or into halves.
        host: whether it copies activations to the host.

    """

    contest: str
    schedule: str
    options: str
    held: str
    micro_batches: int
    transfer: float
    pair: float | None
    makespan: float
    peak: float
    copies: int
    splits: bool
    cuts: bool
    host: bool


def rows() -> Iterator[Row]:
    """Yield a row for each run that a schedule's sizes and options allow."""
    for spec, micro_batches in itertools.product(schedules().values(), MICRO_BATCHES):
        for options, held in options_of(spec):
            try:
                order = build(spec.name, RANKS, micro_batches, **options, **held)
            except UserError:
                continue
            for contest, transfer, pair in itertools.product(contests_of(order), TRANSFERS, pairs_of(order)):
                if contest == "plain" or pair in (None, PAIRS[0]):
                    yield played(contest, spec.name, options, held, micro_batches, transfer, pair)


def options_of(spec: ScheduleSpec) -> Iterator[tuple[dict[str, object], dict[str, object]]]:
    """Yield every combination of options that a schedule says are worth trying, with what holds it to each limit."""
    held = [dict(spec.within(float(max(MICRO_BATCHES)) if limit is None else limit)) for limit in LIMITS]
    held = [one for place, one in enumerate(held) if one not in held[:place]]
    for values, one in itertools.product(itertools.product(*spec.tries.values()), held):
        yield dict(zip(spec.tries, values, strict=True)), one


def contests_of(order: Schedule) -> tuple[str, ...]:
    """Return the contests that an order takes part in."""
    if order.of_kinds(R).any():
        return ("recompute",)
    return ("vocabulary",) if order.of_kinds(S).any() else ("plain", "recompute", "vocabulary")


def pairs_of(order: Schedule) -> tuple[float | None, ...]:
    """Return what pairs take, where there are any."""
    return PAIRS if (order.partner >= 0).any() else (None,)


def played(
    contest: str,
    name: str,
    options: Mapping[str, object],
    held: Mapping[str, object],
    micro_batches: int,
    transfer: float,
    pair: float | None,
) -> Row:
    """Play one schedule in one situation."""
    order = build(name, RANKS, micro_batches, **options, **held)
    costs = replace(_costs(contest, order), transfer_s=transfer)
    if pair not in (None, 1.0):
        costs = replace(costs, overlapped=pair * (costs.forward + costs.backward_input + costs.backward_weight))
    result = simulate(schedule={"name": name, **options, **held}, ranks=RANKS, micro_batches=micro_batches, costs=costs)
    return Row(
        contest,
        name,
        _written(options),
        _written(held),
        micro_batches,
        transfer,
        pair,
        round(result.makespan_s, 6),
        round(max(result.peak_activations_by_rank), 6),
        len(order.placement.pipes),
        bool(order.of_kinds(I).any()),
        order.slices > 1 or order.micro_batch_share < 1,
        bool(order.of_kinds(*COPIES).any()),
    )


def _written(options: Mapping[str, object]) -> str:
    return " ".join(f"{option}={value}" for option, value in options.items())


def _costs(contest: str, order: Schedule) -> UniformCosts:
    """Return the costs of a contest, laid out for one order."""
    if contest == "recompute":
        return ALONE if order.of_kinds(R).any() else replace(ALONE, backward_input=2.0)
    if contest == "plain":
        return ALONE
    if order.of_kinds(S).any():  # of the output layer's 3, S has its forward, and I where it has one barrier
        in_s = 2.0 if order.barriers == 1 else 1.0
        return replace(ALONE, vocab_s=in_s / RANKS, vocab_t=(3.0 - in_s) / RANKS)
    stages = len(order.placement.pipes[0])
    share = RANKS / stages
    with_output = (share,) * (stages - 1) + (share + 1.0,)
    return replace(ALONE, forward=with_output, backward_input=with_output, backward_weight=with_output)


def read() -> list[Row]:
    """Return what was written."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [
            Row(
                line["contest"],
                line["schedule"],
                line["options"],
                line["held"],
                int(line["micro_batches"]),
                float(line["transfer"]),
                float(line["pair"]) if line["pair"] else None,
                float(line["makespan"]),
                float(line["peak"]),
                int(line["copies"]),
                line["splits"] == "1",
                line["cuts"] == "1",
                line["host"] == "1",
            )
            for line in csv.DictReader(file)
        ]


def write(file: TextIO, found: Iterable[Row]) -> None:
    """Write rows as CSV."""
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(Row._fields)
    lines.writerows(
        ["" if value is None else int(value) if isinstance(value, bool) else value for value in row] for row in found
    )


def main() -> None:
    """Write the file."""
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("w", encoding="utf-8", newline="") as file:
        write(file, rows())


if __name__ == "__main__":
    main()
