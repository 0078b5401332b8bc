"""Programs are the ones that torch, Megatron-Core and DeepSeek's DualPipe issue, cell for cell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dualpipe_sim import ScheduleError, build, runtime_program
from dualpipe_sim.order.ops import Op, Pair
from dualpipe_sim.runtimes.registry import runtimes

if TYPE_CHECKING:
    from tests.conftest import CommandLine

GOLDENS = Path(__file__).parent / "goldens"


class Case(NamedTuple):
    """A recorded program: of which runtime, of what, with which options."""

    runtime: str
    schedule: str
    ranks: int
    micro_batches: int
    options: dict[str, object]
    runtime_options: dict[str, object]

    @classmethod
    def of(cls, title: str) -> Case:
        runtime, schedule, ranks, micro_batches, *rest = title.split()
        given = [word.removeprefix("--").split("=") for word in rest]
        options = {key: int(value) for (key, value), word in zip(given, rest, strict=True) if word[:2] != "--"}
        runtime_options = {key: value for (key, value), word in zip(given, rest, strict=True) if word[:2] == "--"}
        return cls(runtime, schedule, int(ranks), int(micro_batches), dict(options), dict(runtime_options))

    @property
    def way(self) -> str:
        return " ".join(
            [self.runtime, self.schedule, *(f"{key}={value}" for key, value in self.runtime_options.items())]
        )

    def ours(self) -> str:
        return runtime_program(
            self.schedule,
            self.ranks,
            self.micro_batches,
            runtime=self.runtime,
            runtime_options=self.runtime_options,
            **self.options,
        )


def programs() -> Iterator[tuple[Case, str]]:
    for block in (GOLDENS / "programs.txt").read_text().split("# ")[1:]:
        title, _, text = block.partition("\n")
        yield Case.of(title), text


def digests() -> dict[str, list[tuple[Case, str]]]:
    ways: dict[str, list[tuple[Case, str]]] = {}
    for line in (GOLDENS / "digests.txt").read_text().partition("\n\n")[2].splitlines():
        title, _, digest = line.rpartition(" ")
        case = Case.of(title)
        ways.setdefault(case.way, []).append((case, digest))
    return ways


RECORDED = digests()


@pytest.mark.parametrize(("case", "text"), [pytest.param(*one, id=one[0].way) for one in programs()])
def test_a_program_is_the_recorded_one(case: Case, text: str) -> None:
    assert case.ours() == text


@pytest.mark.parametrize("way", RECORDED)
def test_at_every_recorded_size_the_program_is_the_recorded_one(way: str) -> None:
    other = [case for case, digest in RECORDED[way] if hashlib.sha256(case.ours().encode()).hexdigest()[:16] != digest]
    assert other == []


def test_every_runtime_and_each_of_its_schedules_was_recorded() -> None:
    recorded = {(case.runtime, case.schedule) for cases in RECORDED.values() for case, _ in cases}
    assert recorded == {(name, schedule) for name, one in runtimes().items() for schedule in one.schedules}
    assert sum(map(len, RECORDED.values())) == 1350


@given(st.data())
def test_what_is_left_of_a_program_without_its_messages_is_the_order(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(runtimes())))
    runtime = runtimes()[name]
    schedule = data.draw(st.sampled_from(runtime.schedules))
    try:
        order = build(schedule, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 16)))
        rows = runtime.with_options({}).rows(order)
    except ScheduleError:
        assume(False)
        raise
    assert [[cell for cell in row if isinstance(cell, (Op, Pair))] for row in rows] == [
        list(row) for row in order.order
    ]
    sent = [str(cell) for row in rows for cell in _moved(row) if "SEND" in str(cell)]
    received = [str(cell) for row in rows for cell in _moved(row) if "RECV" in str(cell)]
    assert len(set(sent)) == len(sent) == len(received) == len(set(received))


def _moved(row: Iterable[object]) -> Iterator[object]:
    for cell in row:
        text = str(cell)
        if text.startswith("{"):
            yield from text[1:-1].split(";")
        elif not text.startswith("WAIT") and ("SEND_" in text or "RECV_" in text):
            yield text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"runtime": "torhc"}, r"unknown runtime 'torhc'; did you mean 'torch'\? \(known: deepseek, megatron, torch\)"),
        ({"runtime": "deepseek"}, r"runtime deepseek has no schedule 1f1b \(it has: dualpipe, dualpipev\)"),
        ({"runtime": "torch", "runtime_options": {"versoin": "2.11"}},
         r"runtime torch has no option 'versoin'; did you mean 'version'\? \(options: version, loaded, "),
        ({"runtime": "torch", "runtime_options": {"version": "2.12"}},
         r"runtime torch: version must be 2\.13 or 2\.11, not '2\.12'"),
        ({"runtime": "torch", "runtime_options": {"loaded": "maybe"}},
         r"runtime torch: loaded must be true or false, not 'maybe'"),
        ({"runtime": "torch", "micro_batches": 3},
         r"runtime torch: its 1F1B needs as many micro-batches as ranks, 4, not 3"),
        ({"runtime": "megatron", "runtime_options": {"overlap_p2p_comm": True}},
         r"runtime megatron: overlap_p2p_comm needs an interleaved schedule"),
        ({"runtime": "megatron", "schedule": "interleaved-1f1b", "ranks": 2,
          "runtime_options": {"overlap_p2p_comm": False}},
         r"runtime megatron: with 2 ranks an interleaved batch swaps tensors"),
        ({"runtime": "megatron", "schedule": "interleaved-1f1b", "runtime_options": {"batch_p2p_comm": True}},
         r"runtime megatron: batch_p2p_comm does not go with overlap_p2p_comm"),
        ({"runtime": "megatron", "schedule": "interleaved-1f1b", "runtime_options": {"delay_wgrad_compute": "true"}},
         r"runtime megatron: delay_wgrad_compute needs interleaved-1f1b-overlap"),
    ],
)  # fmt: skip
def test_what_a_runtime_does_not_do_is_refused_in_one_sentence(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        runtime_program(**{"schedule": "1f1b", "ranks": 4, "micro_batches": 8, **asked})  # type: ignore[arg-type]


def test_megatrons_groups_are_as_large_as_there_are_ranks() -> None:
    """Its own default; torch's would be five of ten micro-batches on four ranks, which Megatron refuses."""
    own = runtime_program("interleaved-1f1b", 4, 8, runtime="megatron")
    assert own == runtime_program("interleaved-1f1b", 4, 8, runtime="megatron", group=4)
    with pytest.raises(ScheduleError, match="group 4 leaves a last group of 2, less than 4 ranks"):
        runtime_program("interleaved-1f1b", 4, 10, runtime="megatron")
    with pytest.raises(ScheduleError, match="groups of 2 micro-batches are less than 4 ranks; take more of them"):
        runtimes()["megatron"].with_options({}).rows(build("interleaved-1f1b", 4, 2))


def test_the_command_prints_a_runtimes_program(command_line: CommandLine) -> None:
    words = ("schedule", "interleaved-1f1b", "--ranks", "4", "--micro-batches", "8", "-O", "stages_per_rank=2")
    done = command_line(*words, "--runtime", "megatron", "--runtime-option", "overlap_p2p_comm=false")
    assert done.stdout == runtime_program(
        "interleaved-1f1b", 4, 8, runtime="megatron", runtime_options={"overlap_p2p_comm": False}, stages_per_rank=2
    )
    assert command_line(*words, "--runtime", "torch", "--format", "compute_comms").returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runtime", "megatron", "--format", "compute_only"], "a runtime's program has its messages"),
        (["--runtime-option", "loaded=true"], "--runtime-option needs --runtime"),
        (["--runtime", "torch", "--runtime-option", "loaded"], "--runtime-option loaded: must be key=value, like"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(
    command_line: CommandLine, words: list[str], message: str
) -> None:
    done = command_line("schedule", "1f1b", "--ranks", "4", "--micro-batches", "8", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""
