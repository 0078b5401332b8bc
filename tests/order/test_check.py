"""`check`: what breaks a rule is named, what breaks none passes, and nothing crashes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualpipe_sim import DeadlockError, Schedule, ScheduleError, build, format_order, parse_order
from dualpipe_sim.costs.uniform import UniformCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.order.check import check_all, check_order, check_schedule, read_order
from dualpipe_sim.order.finding import Finding
from dualpipe_sim.order.placement import PlacementName

if TYPE_CHECKING:
    from tests.conftest import Calls


class Sample(NamedTuple):
    """An order that is right, cell by cell."""

    name: str
    schedule: Schedule
    placement: PlacementName

    @property
    def rows(self) -> list[list[str]]:
        return [row.split(",") for row in format_order(self.schedule).splitlines()]


def text_of(rows: list[list[str]]) -> str:
    return "".join(",".join(row) + "\n" for row in rows)


def samples() -> Iterator[Sample]:
    placements: dict[str, PlacementName] = {"dualpipe": "bidirectional", "chimera": "bidirectional"}
    placements |= dict.fromkeys(("zb-v", "dualpipev", "hanayo"), "v")
    sizes = {"dualpipe": (4, 10), "chimera": (4, 8), "dualpipev": (3, 7), "zb-v": (3, 6), "hanayo": (2, 4)}
    for name in (
        *("1f1b", "1f1b-overlap", "chimera", "dualpipe", "dualpipev", "gpipe", "hanayo", "interleaved-1f1b"),
        *("interleaved-1f1b-overlap", "interleaved-zb", "looped-bfs", "zb-h1", "zb-h2", "zb-v"),
    ):
        yield Sample(name, build(name, *sizes.get(name, (3, 6))), placements.get(name, "loop"))


SAMPLES = list(samples())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_an_order_that_is_right_passes(sample: Sample) -> None:
    text = text_of(sample.rows)
    assert check_order(text, sample.placement) == []
    assert check_order(text, sample.placement, micro_batches=sample.schedule.micro_batches) == []
    assert check_schedule(sample.schedule) == []
    assert read_order(text, sample.placement, name=sample.name).schedule == parse_order(
        text, sample.placement, sample.name
    )


# Each corruption changes some cells and says what a finding must then say. Cells of overlapped pairs stay whole.


class Broken(NamedTuple):
    rows: list[list[str]]
    says: list[tuple[str, str]]
    """Of these (rule, words in the message), at least one must be found."""


def drop(rows: list[list[str]], rng: random.Random) -> Broken | None:
    rank, cell = _any_cell(rows, rng)
    if len(rows[rank]) == 1:
        return None
    gone = rows[rank].pop(cell)
    return Broken(rows, [(rule, op) for op in _ops(gone) for rule in ("missing", "backward")])


def double(rows: list[list[str]], rng: random.Random) -> Broken:
    rank, cell = _any_cell(rows, rng)
    again = rows[rank][cell]
    rows[rank].insert(rng.randrange(len(rows[rank]) + 1), again)
    return Broken(rows, [("double", op) for op in _ops(again)])


def to_a_wrong_rank(rows: list[list[str]], rng: random.Random) -> Broken | None:
    rank, cell = _any_cell(rows, rng)
    if len(rows[rank]) == 1:
        return None
    op = rows[rank].pop(cell)
    other = rng.choice([r for r in range(len(rows)) if r != rank])
    rows[other].insert(rng.randrange(len(rows[other]) + 1), op)
    return Broken(rows, [("wrong-rank", one) for one in _ops(op)])


def weights_first(rows: list[list[str]], rng: random.Random) -> Broken | None:
    places = [(rank, cell) for rank, row in enumerate(rows) for cell, text in enumerate(row) if _is(text, "W")]
    if not places:
        return None
    rank, cell = rng.choice(places)
    row, op = rows[rank], rows[rank][cell]
    at = row.index(op.replace("W", "I"))
    row[cell], row[at] = row[at], row[cell]
    return Broken(rows, [("before", f"{op} comes before {op.replace('W', 'I')}")])


def backward_first(rows: list[list[str]], rng: random.Random) -> Broken | None:
    places = [(rank, cell) for rank, row in enumerate(rows) for cell, text in enumerate(row) if _is(text, "F")]
    rank, cell = rng.choice(places)
    row, op = rows[rank], rows[rank][cell]
    backward = next((b for b in row if _is(b, "BI") and b.translate(_AS_FORWARD) == op), None)
    if backward is None:
        return None
    row.remove(backward)
    row.insert(cell, backward)
    return Broken(rows, [("before", f"{backward} comes before {op}")])


def half_a_backward(rows: list[list[str]], rng: random.Random) -> Broken | None:
    places = [(rank, cell) for rank, row in enumerate(rows) for cell, text in enumerate(row) if _is(text, "BIW")]
    rank, cell = rng.choice(places)
    op = rows[rank][cell]
    kind = rng.choice([letter for letter in "BIW" if letter not in op])
    rows[rank][cell] = op.translate(str.maketrans("BIW", kind * 3))
    return Broken(rows, [("backward", rows[rank][cell]), ("double", rows[rank][cell])])


def junk(rows: list[list[str]], rng: random.Random) -> Broken:
    rank, cell = _any_cell(rows, rng)
    whole = rows[rank][cell]
    rubbish = ["x", "0f0", "F0", "0F", "0F-1", "0F0B0", whole + "x", "x" + whole, "٣F1", "0 F0", "9" * 50 + "F0"]
    rubbish += [
        "(0F0;1B0)",
        "(0F0;1I0)OVERLAP_F_B",
        "(1B0;0F0)OVERLAP_F_B",
        "(0F0)OVERLAP_F_B",
        "nan",
        "0SEND_W0",
        "\0",
    ]
    rows[rank][cell] = rng.choice(rubbish)
    return Broken(rows, [("junk", f"rank {rank}, cell {cell}: ")])


def no_such_stage(rows: list[list[str]], rng: random.Random) -> Broken:
    rank, cell = _any_cell(rows, rng)
    op = f"{rng.randrange(100, 10**6)}{rng.choice('FBIW')}0"
    rows[rank].insert(cell, op)
    return Broken(rows, [("range", f"rank {rank}, cell {cell}: {op} ")])


def no_such_micro_batch(rows: list[list[str]], rng: random.Random) -> Broken:
    rank, cell = _any_cell(rows, rng)
    (stage, kind, _), *_ = _parsed(rows[rank][cell])
    op = f"{stage}{kind}{rng.randrange(100, 10**9)}"
    rows[rank].insert(cell, op)
    return Broken(rows, [("range", f"rank {rank}, cell {cell}: {op} ")])


def another_micro_batch(rows: list[list[str]], rng: random.Random) -> Broken | None:
    rank, cell = _any_cell(rows, rng)
    (stage, kind, micro_batch), *pair = _parsed(rows[rank][cell])
    if pair:
        return None
    op = f"{stage}{kind}{micro_batch - 1 if micro_batch else 1}"
    gone, rows[rank][cell] = rows[rank][cell], op
    rules = ("double", "missing", "backward")
    return Broken(rows, [(rule, name) for name in (gone, op) for rule in rules])


def a_gap_in_the_micro_batches(rows: list[list[str]], rng: random.Random) -> Broken:
    micro_batch = rng.randrange(0, 2)
    kept = [[cell for cell in row if all(m != micro_batch for *_, m in _parsed(cell))] for row in rows]
    return Broken(kept, [("missing", f"micro-batch {micro_batch}"), ("missing", "never runs, nor do")])


CORRUPTIONS: list[Callable[[list[list[str]], random.Random], Broken | None]] = [
    drop,
    double,
    to_a_wrong_rank,
    weights_first,
    backward_first,
    half_a_backward,
    junk,
    no_such_stage,
    no_such_micro_batch,
    another_micro_batch,
    a_gap_in_the_micro_batches,
]

_AS_FORWARD = str.maketrans("BI", "FF")


def _any_cell(rows: list[list[str]], rng: random.Random) -> tuple[int, int]:
    rank = rng.randrange(len(rows))
    return rank, rng.randrange(len(rows[rank]))


def _is(cell: str, kinds: str) -> bool:
    return cell[0] != "(" and any(kind in cell for kind in kinds)


def _ops(cell: str) -> list[str]:
    return cell.removesuffix("OVERLAP_F_B").strip("()").split(";")


def _parsed(cell: str) -> list[tuple[int, str, int]]:
    found = []
    for op in _ops(cell):
        kind = next(letter for letter in "FBIW" if letter in op)
        stage, micro_batch = op.split(kind)
        found.append((int(stage), kind, int(micro_batch)))
    return found


def corrupted(count: int) -> Iterator[tuple[Sample, str, Broken]]:
    rng = random.Random(20240615)  # noqa: S311 - not for secrets
    while count:
        sample, corruption = rng.choice(SAMPLES), rng.choice(CORRUPTIONS)
        broken = corruption(sample.rows, rng)
        if broken:
            count -= 1
            yield sample, corruption.__name__, broken


def test_a_thousand_corruptions_are_each_named() -> None:
    seen = set()
    for sample, corruption, broken in corrupted(1000):
        findings = check_order(text_of(broken.rows), sample.placement)
        named = any(
            finding.rule == rule and words in str(finding) for finding in findings for rule, words in broken.says
        )
        assert named, (sample.name, corruption, broken.says, [str(finding) for finding in findings])
        seen.add((corruption, sample.name))
    assert {corruption for corruption, _ in seen} == {corruption.__name__ for corruption in CORRUPTIONS}


def test_swapped_cells_are_found_exactly_where_the_simulator_deadlocks() -> None:
    rng = random.Random(7)  # noqa: S311
    deadlocks = plays = 0
    for _ in range(300):
        sample = rng.choice(SAMPLES)
        rows = sample.rows
        row = rows[rng.randrange(len(rows))]
        i, j = rng.randrange(len(row)), rng.randrange(len(row))
        row[i], row[j] = row[j], row[i]
        text = text_of(rows)
        rules = {finding.rule for finding in check_order(text, sample.placement)}
        try:
            play(lower(parse_order(text, sample.schedule.placement), UniformCosts(1, 1, 1)))
        except DeadlockError:
            deadlocks += 1
            assert rules & {"before", "cycle"}, text
        else:
            plays += 1
            assert rules <= {"losses"}, text
    assert min(deadlocks, plays) > 50


@given(
    st.text(alphabet="0123456789FBIW,;()OVERLAP_\n x", max_size=120),
    st.sampled_from(["loop", "v", "bidirectional", "explicit"]),
)
def test_no_text_crashes_it_and_what_passes_runs(text: str, placement: PlacementName) -> None:
    if not check_order(text, placement):
        assert play(lower(parse_order(text, placement), UniformCosts(1, 1, 1))).makespan_s > 0


@given(st.lists(st.lists(st.from_regex(r"\A[0-2][FBIW][0-2]\Z"), min_size=1, max_size=8), min_size=1, max_size=3))
def test_what_passes_runs_and_what_runs_has_no_finding_but_losses(rows: list[list[str]]) -> None:
    text = text_of(rows)
    findings = check_order(text)
    try:
        makespan_s = play(lower(parse_order(text), UniformCosts(1, 1, 1))).makespan_s
    except ScheduleError:
        assert findings
    else:
        assert makespan_s > 0
        assert {finding.rule for finding in findings} <= {"losses"}


# What users read, word for word


def said(text: str, **options: object) -> list[str]:
    return [str(finding) for finding in check_order(text, **options)]  # type: ignore[arg-type]


def test_a_circle_is_spelled_out() -> None:
    assert said("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n") == [
        "rank 0, cell 1: 0B0 waits in a circle: for 1B0 (rank 1, cell 2), which comes after 1F1, "
        "which waits for 0F1 (rank 0, cell 2), which comes after 0B0"
    ]


ISSUED = "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0\n"


def test_messages_that_wait_for_each_other_where_each_ranks_go_one_after_another() -> None:
    """Rank 0 waits for the gradient before it sends the activation that the gradient is made of."""
    circled = ISSUED.replace("0SEND_F0,0RECV_B0", "0RECV_B0,0SEND_F0")
    assert read_order(circled).findings == []  # where messages wait for nobody it runs
    checked = check_all(circled)
    what = (
        "1RECV_F0 waits in a circle where each rank's messages go one after another: rank 1 has 1RECV_F0 before "
        "1SEND_B0 and rank 0 has 0RECV_B0 before 0SEND_F0"
    )
    assert checked.findings == [Finding("cycle", what, rank=1, cell=0, op="1RECV_F0")]
    assert checked.schedule is None


@pytest.mark.parametrize("text", [ISSUED, "0F0,0B0\n1F0,1B0\n"])
def test_what_is_right_with_its_messages_is_the_schedule_and_its_sizes(text: str) -> None:
    checked = check_all(text)
    assert checked.schedule == parse_order(text)
    sizes = {"ranks": 2, "stages": 2, "micro_batches": 1}
    assert checked.to_dict() == {"legal": True, "findings": [], **sizes}


def test_what_is_wrong_is_told_as_plain_values() -> None:
    finding = {
        "rule": "before",
        "what": "1B0 comes before 1F0 (cell 1), which it needs",
        "rank": 1,
        "cell": 0,
        "op": "1B0",
    }
    sizes = {"ranks": None, "stages": None, "micro_batches": None}
    assert check_all("0F0,0B0\n1B0,1F0\n").to_dict() == {"legal": False, "findings": [finding], **sizes}


def test_a_pair_with_a_forward_that_its_own_backward_waits_for() -> None:
    rank_0 = "0F0,(0F1;0B0)OVERLAP_F_B,0B1"
    assert said(f"{rank_0}\n1F0,1B0,1F1,1B1\n") == []
    assert said(f"{rank_0}\n(1F0;1B0)OVERLAP_F_B,1F1,1B1\n") == [
        "rank 1, cell 0: 1B0 overlaps 1F0 (cell 0), which it needs"
    ]
    assert said(f"{rank_0}\n1F0,(1F1;1B0)OVERLAP_F_B,1B1\n") == [
        "rank 0, cell 1: 0B0 waits in a circle: for 1B0 (rank 1, cell 1), which overlaps 1F1, "
        "which waits for 0F1 (rank 0, cell 1), which overlaps 0B0"
    ]


def test_losses_out_of_order_are_found_though_torch_runs_them() -> None:
    assert said("0F0,0F1,0B1,0B0\n1F1,1B1,1F0,1B0\n") == [
        "rank 1, cell 2: 1F0 comes after 1F1; a last stage runs its forwards in micro-batch order, "
        "or torch takes the losses of other micro-batches"
    ]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("0F0,0B0,0F0", "rank 0, cell 2: 0F0 is there already (rank 0, cell 0); every op runs once"),
        ("0F0,0B0,0F1", "rank 0: 0B1 never runs, nor do 0I1 and 0W1"),
        ("0F0,0B0,0B1", "rank 0: 0F1 never runs"),
        ("0F0,0I0", "rank 0, cell 1: 0I0 lacks its other half, 0W0, which never runs"),
        ("0F0,0W0", "rank 0, cell 1: 0W0 needs 0I0, which never runs"),
        ("0F0,0B0,0W0,0F1,0I1,0W1", "rank 0, cell 2: 0W0 is there beside 0B0 (rank 0, cell 1), the whole backward"),
        ("0F0,0W0,0I0", "rank 0, cell 1: 0W0 comes before 0I0 (cell 2), which it needs"),
        ("0B0,0F0", "rank 0, cell 0: 0B0 comes before 0F0 (cell 1), which it needs"),
        ("0F0,0B0,0F2,0B2", "micro-batch 1 never runs; the numbers go from 0 to 2 without gaps"),
        ("0F0,0B0,0F9", "rank 0, cell 2: 0F9 names no micro-batch; they go from 0 to 0"),
        ("0F0,0B0,9F0", "rank 0, cell 2: 9F0 names no stage; stages go from 0 to 0"),
        ("0F0,,0X0", "rank 0: 0B0 never runs, nor do 0I0 and 0W0"),
        ("0F0,0B0\n,,\n", "rank 1: the row is empty; every row is a rank and needs at least one task"),
        ("", "rank 0: the row is empty; every row is a rank and needs at least one task"),
        (
            "0F0,0B0x",
            "rank 0, cell 1: '0B0x' is no task; write an op as 5F3 (stage, F, B, I or W, micro-batch), of a slice as "
            "5F3.1, or a pair as (0F7;7B3)OVERLAP_F_B",
        ),
    ],
)
def test_each_finding_in_words(text: str, finding: str) -> None:
    assert finding in said(text)


def test_a_stage_on_two_ranks() -> None:
    assert "rank 1, cell 0: 0F0 is on the wrong rank; its stage sits on rank 0" in said(
        "0F1,0B0,0B1\n0F0,1F0,1B0,1F1,1B1"
    )


def test_an_op_without_a_slice_among_sliced_ones() -> None:
    found = check_order("0F0,0F0.1,0B0.1,0B0.0\n")
    assert found[0] == Finding("range", "0F0 names no slice; they go from 0 to 1", rank=0, cell=0, op="0F0")
    assert str(found[1]) == "rank 0: 0F0.0 never runs"


def test_micro_batches_that_the_user_expects() -> None:
    assert said("0F0,0B0", micro_batches=3) == [
        "micro-batches 1 to 2 never run; the numbers go from 0 to 2 without gaps"
    ]
    assert said("0F0,0B0", micro_batches=10**12)  # no time is spent on each
    with pytest.raises(ScheduleError, match="positive multiple of the 2 pipes, got 3"):
        check_order(format_order(build("dualpipe", 2, 4)), "bidirectional", micro_batches=3)


def test_opposed_pipes_read_as_one_are_told_apart() -> None:
    findings = check_order(format_order(build("dualpipe", 2, 4)))
    assert findings[0] == Finding(
        "placement", "read as pipes in opposite directions nothing is wrong; choose placement 'bidirectional'"
    )


@pytest.mark.parametrize(
    ("text", "first", "needed"),
    [("0F0.1,0F0.0,0B0.1,0B0.0\n", "0F0.1", "0F0.0"), ("0F0.0,0F0.1,0B0.0,0B0.1\n", "0B0.0", "0B0.1")],
)
def test_slices_attend_to_those_before_so_their_gradients_come_from_those_behind(
    text: str, first: str, needed: str
) -> None:
    assert f"{first} comes before {needed}" in str(check_order(text)[0])


def test_a_stage_that_nobody_names_is_missing_on_no_rank_in_particular() -> None:
    assert Finding("missing", "stage 1 has no op at all") in check_order("0F0,0B0\n2F0,2B0\n")


def test_stages_that_no_placement_of_this_name_can_have() -> None:
    assert said(format_order(build("1f1b", 2, 2)), placement="v") == [
        "rank 1: stage 2 has no op at all",
        "rank 0: stage 3 has no op at all",
    ]


def test_it_takes_as_many_calls_an_op_at_the_sizes_people_use(calls: Calls) -> None:
    for ranks, micro_batches in ((8, 32), (32, 256)):
        schedule = build("dualpipe", ranks, micro_batches)
        assert check_schedule(schedule) == []
        assert calls(partial(check_schedule, schedule)) < 60 * len(schedule.kind)
