"""Our orders are those of torch.distributed.pipelining: recorded goldens always, torch itself where installed.

``python tests/schedules/test_torch_orders.py`` records the goldens anew with the torch that runs it.
"""

import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from dualpipe_sim import ScheduleError, build, format_order, parse_order
from dualpipe_sim.order.check import check_order

GOLDENS = Path(__file__).parent / "goldens" / "torch-2.13.0.txt"


class Case(NamedTuple):
    """One order: torch's class, our name for it, sizes, and stages a rank."""

    torch_class: str
    name: str
    ranks: int
    micro_batches: int
    stages_per_rank: int

    def __str__(self) -> str:
        return " ".join(map(str, self))

    @property
    def options(self) -> dict[str, object]:
        fixed = {"gpipe": 1, "1f1b": 1, "zb-h1": 1, "zb-v": 2, "dualpipev": 2}
        return {} if self.name in fixed else {"stages_per_rank": self.stages_per_rank}

    def ours(self) -> str:
        return format_order(build(self.name, self.ranks, self.micro_batches, **self.options))


SCHEDULES = [
    ("ScheduleGPipe", "gpipe", 1),
    ("Schedule1F1B", "1f1b", 1),
    ("ScheduleInterleaved1F1B", "interleaved-1f1b", 2),
    ("ScheduleInterleaved1F1B", "interleaved-1f1b", 3),
    ("ScheduleLoopedBFS", "looped-bfs", 1),
    ("ScheduleLoopedBFS", "looped-bfs", 2),
    ("ScheduleLoopedBFS", "looped-bfs", 3),
    ("ScheduleInterleavedZeroBubble", "interleaved-zb", 2),
    ("ScheduleInterleavedZeroBubble", "interleaved-zb", 3),
    ("ScheduleInterleavedZeroBubble", "zb-h1", 1),
    ("ScheduleZBVZeroBubble", "zb-v", 2),
    ("ScheduleDualPipeV", "dualpipev", 2),
]

# M below P, between P and 2P, no multiple of P, and well above
GOLDEN_SIZES = [(1, 2), (2, 1), (2, 5), (3, 4), (3, 7), (4, 2), (4, 8), (4, 10), (5, 15)]


def goldens() -> Iterator[tuple[Case, str]]:
    for block in GOLDENS.read_text().split("# ")[1:]:
        title, _, text = block.partition("\n")
        torch_class, name, *sizes = title.split()
        yield Case(torch_class, name, *map(int, sizes)), text


@pytest.mark.parametrize(("case", "text"), [pytest.param(*golden, id=str(golden[0])) for golden in goldens()])
def test_our_order_is_the_one_recorded_from_torch(case: Case, text: str) -> None:
    assert case.ours() == text
    assert check_order(text) == []
    assert format_order(parse_order(text)) == text


def test_every_schedule_has_goldens_at_uneven_sizes() -> None:
    recorded = {case for case, _ in goldens()}
    for torch_class, name, stages_per_rank in SCHEDULES:
        sizes = {case[2:4] for case in recorded if (case[0], case[1], case[4]) == (torch_class, name, stages_per_rank)}
        assert any(micro_batches % ranks for ranks, micro_batches in sizes), name


def test_dualpipe_is_two_of_torchs_dualpipev_mirrored() -> None:
    # DualPipeV is half of DualPipe, folded: rank r of 2h ranks with 2M micro-batches does what rank r of h ranks with M
    # does, its second stage in pipe 1; the other half of the ranks is the mirror image.
    folded = [(case, text) for case, text in goldens() if case.name == "dualpipev"]
    assert folded
    for case, text in folded:
        half, ranks = case.ranks, 2 * case.ranks
        stage_of = {f"{r}": f"{r}" for r in range(half)} | {
            f"{ranks - 1 - r}": f"{2 * ranks - 1 - r}" for r in range(half)
        }
        first = [_renamed(row, stage_of) for row in text.splitlines()]
        mirror = {f"{stage}": f"{(stage + ranks) % (2 * ranks)}" for stage in range(2 * ranks)}
        second = [_renamed(row, mirror) for row in reversed(first)]
        assert format_order(build("dualpipe", ranks, 2 * case.micro_batches)).splitlines() == first + second


def _renamed(row: str, stage_of: dict[str, str]) -> str:
    return re.sub(r"(\d+)(?=[FBIW]\d)", lambda match: stage_of[match[1]], row)


def torch_order(case: Case) -> str:
    """Build the order with torch itself; its constructors check and lower it.

    Raises:
        ValueError: torch refuses the sizes.

    """
    pipelining = importlib.import_module("torch.distributed.pipelining.schedules")
    make = getattr(pipelining, case.torch_class)
    if issubclass(make, pipelining.PipelineScheduleSingle):
        rows = [_run_single(make, case, rank) for rank in range(case.ranks)]
    else:
        stages = [_stage(case, 0, [])] * case.stages_per_rank
        order = make(stages, case.micro_batches, loss_fn=None).pipeline_order
        rows = [[str(action) for action in order[rank] if action is not None] for rank in range(case.ranks)]
    return "".join(",".join(row) + "\n" for row in rows)


def _run_single(make: Callable[..., Any], case: Case, rank: int) -> list[str]:
    """Run a single-stage schedule on a stage that only writes down what it is told to do."""
    row: list[str] = []
    schedule = make(_stage(case, rank, row), case.micro_batches)
    schedule._check_inputs = lambda *_: ([()] * case.micro_batches, [{}] * case.micro_batches)
    schedule._initialize_stage = lambda *_: None
    schedule._step_microbatches()
    return row


def _stage(case: Case, rank: int, row: list[str]) -> SimpleNamespace:
    def forward(micro_batch: int, *_: object, **__: object) -> None:
        row.append(f"{rank}F{micro_batch}")

    def backward(micro_batch: int, **_: object) -> None:
        row.append(f"{rank}B{micro_batch}")

    return SimpleNamespace(
        stage_index=rank,
        num_stages=case.ranks * case.stages_per_rank,
        group_size=case.ranks,
        group_rank=rank,
        submod=None,
        is_last=rank == case.ranks - 1,
        forward_one_chunk=forward,
        backward_one_chunk=backward,
        get_fwd_recv_ops=lambda _: [],
        get_fwd_send_ops=lambda _: [],
        get_bwd_recv_ops=lambda _: [],
        get_bwd_send_ops=lambda _: [],
        perform_reduce_grad=lambda _: None,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("torch_class", "name", "stages_per_rank"), SCHEDULES)
def test_our_order_is_torchs(torch_class: str, name: str, stages_per_rank: int) -> None:
    pytest.importorskip("torch.distributed.pipelining", reason="torch is not installed; the goldens stand in for it")
    compared = 0
    for ranks in range(1, 6):
        for micro_batches in (*range(1, 13), 16, 20):
            case = Case(torch_class, name, ranks, micro_batches, stages_per_rank)
            try:
                theirs = torch_order(case)
            except ValueError:
                # Torch refuses what we refuse; and 1F1B with fewer micro-batches than ranks and ZB-H1 (to torch a
                # case of interleaving) with ragged groups, both of which are well defined.
                if name not in ("1f1b", "zb-h1"):
                    with pytest.raises(ScheduleError):
                        case.ours()
                continue
            assert case.ours() == theirs, str(case)
            compared += 1
    assert compared >= 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["1f1b-overlap", "hanayo", "interleaved-1f1b-overlap", "v-half", "zb-h2", "zb-v"])
def test_torch_loads_our_text_and_finds_an_order_of_sends_for_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip("torch.distributed.pipelining", reason="torch is not installed")
    pipelining = importlib.import_module("torch.distributed.pipelining.schedules")
    for ranks, micro_batches in ((2, 4), (3, 6), (4, 8)):
        schedule = build(name, ranks, micro_batches)
        path = tmp_path / f"{ranks}.csv"
        path.write_text(format_order(schedule))
        stages_per_rank = schedule.placement.stages // ranks
        stages = [_stage(Case("", name, ranks, micro_batches, stages_per_rank), 0, [])] * stages_per_rank
        runtime = pipelining._PipelineScheduleRuntime(stages, micro_batches, loss_fn=None)
        runtime._load_csv(str(path), format="compute_only")
        rows = [",".join(map(str, runtime.pipeline_order[rank])) for rank in range(ranks)]
        assert rows == path.read_text().splitlines()


def record() -> None:
    """Write the goldens with the torch that is installed."""
    torch = importlib.import_module("torch")
    blocks = []
    for torch_class, name, stages_per_rank in SCHEDULES:
        for ranks, micro_batches in GOLDEN_SIZES:
            case = Case(torch_class, name, ranks, micro_batches, stages_per_rank)
            try:
                blocks.append(f"# {case}\n{torch_order(case)}")
            except ValueError:
                continue
    path = GOLDENS.with_name(f"torch-{torch.__version__.partition('+')[0]}.txt")
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(blocks))


if __name__ == "__main__":
    record()
