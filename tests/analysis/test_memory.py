"""Memory of every rank over time, against sums worked by hand, papers' bytes, and what holds of any schedule."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import Collection

from dualpipe_sim import compare, simulate
from dualpipe_sim.analysis import metrics
from dualpipe_sim.analysis.memory import COMPONENTS, Memory, memory_of
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.config import load_experiment
from dualpipe_sim.costs.layers import LayerCosts
from dualpipe_sim.engine.play import play
from dualpipe_sim.errors import UserError
from dualpipe_sim.graph.lowering import lower
from dualpipe_sim.model.footprint import bytes_by_unit, rank_parameters
from dualpipe_sim.order.text import parse_order
from dualpipe_sim.pictures.plot import memory_stack
from dualpipe_sim.result import Result
from dualpipe_sim.schedules.registry import build, schedules
from tests.plays import asked_by

CommandLine: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

WEIGHTS, GRADIENTS, OPTIMIZER, COMMUNICATION, DEFERRED, ACTIVATIONS = range(len(COMPONENTS))
KEEP_ALL = {"norms": False, "up_projections": False, "activation": False}
S, H, A, V = 1024, 4096, 32, 32000  # sequence, width, heads and vocabulary of gpt-6.2b
M_B = S * (34 * H + 5 * A * S)
"""Bytes that a layer keeps for one sequence (https://arxiv.org/abs/2401.10241, table 1)."""
M_W = 32 * S * H
"""Bytes of them that W needs."""
TENSOR = S * H * 2
"""A stage boundary's tensor in BF16."""


def gpt(layout: str | list[int], schedule: str = "1f1b", micro_batches: int = 2, **more: object) -> dict[str, Any]:
    """Return a configuration of a few layers of the Zero Bubble paper's 6.2B GPT, one sequence a micro-batch."""
    stages, layers = (
        (layout.count("|") + 1, layout.count("t")) if isinstance(layout, str) else (len(layout), sum(layout))
    )
    return {
        "pipeline": {"ranks": stages, "micro_batches": micro_batches, "layout": layout},
        "schedule": schedule,
        "costs": {"kind": "layers", "transfer": "0 s"},
        "model": {"preset": "gpt-6.2b", "layers": layers},
        "gpu": "a100",
        "cluster": "a100-ib",
        "parallel": {"data": 16},
        "training": {"sequence_length": S, "precision": "bf16", "recompute": KEEP_ALL},
        **more,
    }


def memory(config: object, **overrides: object) -> Memory:
    found = simulate(config, **overrides).memory  # type: ignore[arg-type]
    assert found is not None
    return found


def peaks_of(memory: Memory, component: int) -> list[int]:
    """Most bytes of one component on each rank."""
    return [int(memory.over_time(rank)[1][:, component].max()) for rank in range(memory.ranks)]


def played(order: str, config: dict[str, Any]) -> Memory:
    """Return the memory of an order in text."""
    experiment = load_experiment(config)
    assert isinstance(experiment.costs, LayerCosts)
    topology = experiment.topology(experiment.choice.ranks)
    return memory_of(play(lower(parse_order(order), experiment.costs, topology)))


def test_1f1b_keeps_as_many_layers_and_micro_batches_as_the_paper_counts() -> None:
    # Rank 0 runs F0 F1 B0 B1 of two layers, rank 1 F0 B0 F1 B1 of two others; no embedding, no head.
    found = memory(gpt("tt|tt"))
    assert peaks_of(found, ACTIVATIONS) == [2 * 2 * M_B, 2 * M_B]
    assert peaks_of(found, DEFERRED) == [0, 0]


def test_the_last_stage_keeps_the_logits_of_its_loss() -> None:
    # Beside its two layers: logits in FP32 while the loss runs, their gradient, the final norm's input and output.
    found = memory(gpt([2, 2]))
    assert peaks_of(found, ACTIVATIONS)[1] == 2 * M_B + 4 * S * V + 2 * S * V + 2 * 2 * S * H
    _, size_bytes = found.over_time(1)
    levels = set(size_bytes[:, ACTIVATIONS].tolist())
    assert 2 * M_B + 2 * S * V + 2 * 2 * S * H in levels  # the loss is done


def test_layers_come_with_f_and_a_deferred_w_keeps_what_the_paper_says() -> None:
    config = gpt("tt", micro_batches=1)
    time_s, size_bytes = played("0F0,0I0,0W0\n", config).over_time(0)
    live = size_bytes[:, [ACTIVATIONS, DEFERRED]].tolist()
    assert live == [
        [M_B, 0],  # F of layer 0
        [2 * M_B, 0],  # F of layer 1
        [M_B, M_W],  # I of layer 1 is done
        [0, 2 * M_W],  # I of layer 0
        [0, M_W],  # W of layer 1
        [0, 0],  # W of layer 0
    ]
    assert np.all(np.diff(time_s) > 0)
    assert time_s[0] == 0


def test_a_full_backward_defers_nothing() -> None:
    _, size_bytes = played("0F0,0B0\n", gpt("tt", micro_batches=1)).over_time(0)
    assert size_bytes[:, [ACTIVATIONS, DEFERRED]].tolist() == [[M_B, 0], [2 * M_B, 0], [M_B, 0], [0, 0]]


def test_a_deferred_w_of_the_ends_keeps_the_gradient_of_logits_and_of_the_embeddings_output() -> None:
    _, size_bytes = played("0F0,0I0,0W0\n", gpt([1], micro_batches=1)).over_time(0)
    head = 2 * S * H + 2 * S * V
    # Embedding, layer, head and loss; then I of the head, I of the layer and of the embedding, which takes no time.
    deferred = [head, head + M_W + TENSOR, M_W + TENSOR, TENSOR, 0]
    assert size_bytes[:, DEFERRED].tolist() == [0, 0, 0, 0, *deferred]


def test_tensors_that_arrive_early_wait_in_buffers() -> None:
    # A stage of one layer before one of three, and all forwards first: after 3 f rank 0 is done, and rank 1, which
    # began at f, still runs the first of its forwards, of 3 f each; the other two tensors wait for it.
    found = memory(gpt("t|ttt", "gpipe", micro_batches=3))
    time_s, size_bytes = found.over_time(1)
    f = float(time_s[size_bytes[:, ACTIVATIONS] > 0][0])
    arrivals = size_bytes[(time_s > 0.5 * f) & (time_s < 3.5 * f), COMMUNICATION]
    assert arrivals.max() == 2 * TENSOR
    assert size_bytes[0, COMMUNICATION] == size_bytes[-1, COMMUNICATION] == 0


def test_a_tensor_on_its_way_is_in_the_senders_and_the_receivers_buffer() -> None:
    config = gpt("t|t", micro_batches=1)
    config["costs"] = {"kind": "layers", "transfer": "1 s"}
    found = memory(config)
    for rank in (0, 1):
        time_s, size_bytes = found.over_time(rank)
        present_s = np.diff(time_s) * (size_bytes[:-1, COMMUNICATION] == TENSOR)
        assert present_s.sum() == pytest.approx(2.0)  # the activation's second, and the gradient's
        assert size_bytes[:, COMMUNICATION].max() == TENSOR


def test_a_v_hands_over_to_itself_without_a_transfer() -> None:
    # Rank 1 holds stages 1 and 2; what is handed over waits there whenever the next op is another's.
    found = memory(gpt("t|t|t|t", "zb-v", micro_batches=8, pipeline={"ranks": 2, "micro_batches": 8, "layout": "even"}))
    for rank in (0, 1):
        _, size_bytes = found.over_time(rank)
        assert size_bytes[-1, COMMUNICATION] == 0
        assert not np.any(size_bytes[:, COMMUNICATION] % TENSOR)


def test_state_by_hand() -> None:
    # One dense layer: attention 4 h^2, FFN 8 h^2, two norms; BF16 weights, FP32 gradients, 8 bytes of states over 16.
    layer = 12 * H * H + 2 * H
    found = memory(gpt("t|t"))
    for rank in (0, 1):
        assert found.size_bytes[found.peak_by_rank[rank], :3].tolist() == [2 * layer, 4 * layer, layer // 2]


def test_a_tied_head_needs_a_copy_of_the_embedding_unless_both_are_on_one_rank() -> None:
    apart = memory(gpt([1, 1]))
    whole = memory(gpt([2], micro_batches=1))
    layer, matrix, norm = 12 * H * H + 2 * H, V * H, H
    assert apart.size_bytes[0, WEIGHTS] == 2 * (layer + matrix)
    assert apart.over_time(1)[1][0, WEIGHTS] == 2 * (layer + matrix + norm)
    assert whole.size_bytes[0, WEIGHTS] == 2 * (2 * layer + matrix + norm)
    # Optimizer states of the matrix are shared with the other rank that has it.
    assert apart.size_bytes[0, OPTIMIZER] == 8 * layer // 16 + 8 * matrix // 32


@pytest.fixture(scope="module")
def v3() -> Result:
    return simulate("deepseek_v3")


def parameters_of_ranks(name: str) -> list[int]:
    """Parameters on each rank, all experts counted."""
    experiment = load_experiment("deepseek_v3", settings=[f"schedule={name}"])
    assert isinstance(experiment.costs, LayerCosts)
    placement = build(name, 16, 32).placement
    costs = experiment.costs.on(placement)
    return [
        sum(one.total for one in rank_parameters(costs.job, costs.stage_layers, placement, rank).values())
        for rank in range(16)
    ]


def test_a_bidirectional_schedule_holds_the_model_twice_and_shares_both_ends() -> None:
    # 671.0B, and a prediction module of 11.6B that looks up the embedding; 1F1B's last rank needs a copy of that.
    model, module, embedding = 671.03e9, 11.6e9, 129280 * 7168
    assert sum(parameters_of_ranks("dualpipe")) == pytest.approx(2 * (model + module), rel=0.0005)
    assert sum(parameters_of_ranks("1f1b")) == pytest.approx(model + module + embedding, rel=0.0005)


def test_v3_sits_where_the_formulas_by_hand_put_it(v3: Result) -> None:
    assert v3.memory is not None
    inner = v3.memory.over_time(5)[1][0]
    static = inner[[WEIGHTS, GRADIENTS, OPTIMIZER]].sum()
    assert 18e9 < static < 23e9  # two stages of four MoE layers
    one_copy = memory("deepseek_v3", schedule="1f1b").over_time(5)[1][0]
    assert one_copy[[WEIGHTS, GRADIENTS, OPTIMIZER]].sum() == pytest.approx(10.5e9, rel=0.1)
    # 17 micro-batches of four layers of 624 MB
    assert peaks_of(v3.memory, ACTIVATIONS)[7] == pytest.approx(42.5e9, rel=0.003)


def test_v3_fits_80_gb_in_fp8_and_not_in_bf16_without_recompute(v3: Result) -> None:
    assert v3.memory is not None
    assert v3.memory.gpu_bytes == 84_943_110_144
    assert v3.over_memory == []
    assert v3.peak_memory_bytes_by_rank is not None
    assert max(v3.peak_memory_bytes_by_rank) < 84_943_110_144
    wide = simulate("deepseek_v3", **{"training.precision": "bf16", "training.recompute": KEEP_ALL})
    assert wide.over_memory is not None
    assert len(wide.over_memory) == 16
    assert wide.peak_memory_bytes_by_rank is not None
    for over in wide.over_memory:
        assert over["excess_bytes"] == wide.peak_memory_bytes_by_rank[over["rank"]] - 84_943_110_144
    assert wide.memory is not None
    assert peaks_of(wide.memory, ACTIVATIONS)[7] == pytest.approx(125e9, rel=0.003)


def test_dualpipes_peak_does_not_grow_with_micro_batches(v3: Result) -> None:
    for micro_batches in (32, 48, 240):
        # (`balanced` is of a schedule, whose micro-batches count there)
        other = simulate("deepseek_v3", micro_batches=micro_batches, **{"pipeline.layout": [3, *[4] * 14, 2]})
        assert other.peak_memory_bytes_by_rank == v3.peak_memory_bytes_by_rank
    # GPipe's does, by what each further micro-batch keeps.
    some, more = (memory(gpt("tt|tt", "gpipe", micro_batches=count)) for count in (4, 6))
    assert peaks_of(more, ACTIVATIONS)[0] - peaks_of(some, ACTIVATIONS)[0] == 2 * 2 * M_B


def test_deferring_w_costs_memory_in_fp8_and_saves_none() -> None:
    """A deferred W of V3 needs 1172 MB a MoE layer, more than the 624 MB stored from F to I."""
    experiment = load_experiment("deepseek_v3")
    assert isinstance(experiment.costs, LayerCosts)
    stored = bytes_by_unit(experiment.costs.job)[10]
    assert stored.activations == pytest.approx(624e6, rel=0.001)
    assert stored.weight_gradient_inputs == pytest.approx(1172e6, rel=0.001)
    split, whole = (simulate("deepseek_v3", schedule=name) for name in ("zb-h1", "1f1b"))
    assert split.peak_memory_bytes_by_rank is not None
    assert whole.peak_memory_bytes_by_rank is not None
    assert np.all(np.array(split.peak_memory_bytes_by_rank) > whole.peak_memory_bytes_by_rank)


def test_recomputing_whole_layers_turns_zero_bubbles_memory_around() -> None:
    """Of a forward 7 layer inputs are left (235 MB), of a deferred W all that it reads (3.75 GB); r wait on rank r.

    So the question of https://github.com/sail-sg/zero-bubble-pipeline-parallelism/issues/74 has the answer yes: about
    4.7, 8.2, 11.7 and 15.2 GB of activations on ranks 0 to 3 of ZB-H1, its first stage now the leanest.
    """
    gpt_28 = {"preset": "gpt-6.2b", "layers": 28, "tied_embedding": False, "attention": {"stored_scores": False}}
    run = {"sequence_length": 4096, "micro_batch_size": 1, "precision": "bf16", "recompute": "full"}
    config = gpt([7, 7, 7, 7], "zb-h1", 16, model=gpt_28, gpu="h800", training=run, parallel={"data": 1})
    found = memory(config)
    inputs, deferred = 7 * 4096 * H * 2, 7 * 32 * 4096 * H
    of_micro_batches = found.size_bytes[found.peak_by_rank][:, [DEFERRED, ACTIVATIONS]].sum(axis=1)
    head = 4096 * (V + 2 * H) * 2  # what the last rank has more for each: logits' gradient and the norm's two
    for rank, size in enumerate(of_micro_batches.tolist()):
        expected = (4 - rank) * inputs + (rank + 1) * (deferred + (head if rank == 3 else 0))
        # Of the micro-batch on its way back the layers that are done hold no input, and one the rest of a forward.
        assert size == pytest.approx(expected, abs=inputs + 34 * 4096 * H)
    layer = load_experiment(config).costs
    assert isinstance(layer, LayerCosts)
    assert (
        bytes_by_unit(layer.job)[3].while_backward == 34 * 4096 * H - 2 * 4096 * H + 4096 * 32 * 4
    )  # softmax statistics


def test_skewed_routing_brings_the_busiest_gpu_more_tokens() -> None:
    even, skewed = (
        load_experiment("deepseek_v3", settings=[f"training.routing_skew={skew}"]).costs for skew in (1.0, 1.12)
    )
    assert isinstance(even, LayerCosts)
    assert isinstance(skewed, LayerCosts)
    more = bytes_by_unit(skewed.job)[10].activations - bytes_by_unit(even.job)[10].activations
    assert more == pytest.approx(0.12 * (226.5e6 + 138.4e6), rel=0.003)  # dispatched tokens and routed SwiGLU inputs
    assert bytes_by_unit(skewed.job)[0] == bytes_by_unit(even.job)[0]  # a dense layer


def test_both_engines_peak_alike() -> None:
    fast, slow = (simulate("deepseek_v3_pair", engine=engine) for engine in ("longest-path", "simpy"))
    assert fast.peak_memory_bytes_by_rank == slow.peak_memory_bytes_by_rank


MOE = {
    "name": "small",
    "hidden": 64,
    "layers": 9,
    "vocabulary": 512,
    "ffn": 256,
    "dense_layers": 1,
    "mtp_depth": 1,
    "attention": {"heads": 4, "qk_head": 16, "v_head": 16, "rope_head": 8, "q_lora": 24, "kv_lora": 16},
    "experts": {"routed": 8, "active": 2, "ffn": 32, "shared": 1},
}


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    schedule = draw(st.sampled_from(sorted(schedules())))
    full = bool(asked_by(schedule)) or draw(st.booleans())
    recompute = {name: draw(st.booleans()) for name in KEEP_ALL} | {"full": full}
    experts = draw(st.sampled_from([1, 2, 8]))
    schedule = draw(st.sampled_from(sorted(schedules())))
    asked = asked_by(schedule)
    recompute["full"] |= "training.recompute" in asked
    return {
        "pipeline": {"ranks": 4, "micro_batches": draw(st.sampled_from([8, 16]))},
        "schedule": schedule,
        "costs": {"kind": "layers"},
        "model": {**MOE, "layers": draw(st.integers(8, 20))},
        "gpu": "h800",
        "cluster": "h800-ib",
        "parallel": {"expert": experts, "data": 8},
        "training": {
            "sequence_length": draw(st.sampled_from([128, 1024])),
            "precision": draw(st.sampled_from(["bf16", "fp8"])),
            "recompute": recompute,
            "routing_skew": draw(st.sampled_from([1.0, 1.3])),
        },
    }


@settings(max_examples=40)
@given(configurations())
def test_what_holds_of_any_schedule(config: dict[str, Any]) -> None:
    result = simulate(config)
    found = result.memory
    assert found is not None
    assert result.timeline is not None
    experiment = load_experiment(config)
    assert isinstance(experiment.costs, LayerCosts)
    stage_costs = experiment.costs.on(result.timeline.graph.schedule.placement)
    units = bytes_by_unit(experiment.costs.job)
    most = max(
        sum(units[unit].activations + units[unit].while_backward for unit in stage_costs.job.parameters(stage))
        for stage in stage_costs.stage_layers
    )
    in_flight = metrics.peak_in_flight_by_rank(result.timeline)
    heads = 4 * (units["head"].activations + units["head"].while_forward)
    for rank in range(4):
        time_s, size_bytes = found.over_time(rank)
        assert np.all(size_bytes >= 0)
        assert np.all(size_bytes[:, :COMMUNICATION] == size_bytes[0, :COMMUNICATION])  # state stays
        assert size_bytes[-1, [DEFERRED, ACTIVATIONS]].tolist() == [0, 0]  # what came has gone
        assert size_bytes[-1, COMMUNICATION] == size_bytes[:, COMMUNICATION].min()
        assert np.all(found.peak_bytes_by_rank[rank] >= size_bytes.max(axis=0))
        assert time_s[0] == 0
        assert np.all(np.diff(time_s) > 0)
        assert size_bytes[:, ACTIVATIONS].max() <= in_flight[rank] * (most + heads)


def test_the_run_says_which_rank_does_not_fit_and_by_how_much(command_line: CommandLine) -> None:
    done = command_line("run", "deepseek_v3", "--set", "schedule=zb-h1")
    assert "memory does not fit: rank 15 needs 95.3 GB, 10.3 GB more than its GPU has" in done.stdout
    done = command_line("compare", "deepseek_v3", "--set", "compare=[dualpipe, zb-h1]")
    assert done.stderr == ""
    assert "\nzb-h1 does not fit: rank 15 needs 95.3 GB, 10.3 GB more than its GPU has\n" in done.stdout
    assert "dualpipe does not fit" not in done.stdout
    assert all(len(line.rstrip()) <= 80 for line in done.stdout.splitlines())


def test_memory_command_prints_a_table_whose_rows_sum_up(command_line: CommandLine) -> None:
    done = command_line("memory", "deepseek_v3")
    assert done.stderr == ""
    assert "fits: rank 7 is fullest, 62.4 of 84.9 GB" in done.stdout
    assert all(len(line.rstrip()) <= 80 for line in done.stdout.splitlines())
    rows = [line.split() for line in done.stdout.splitlines() if line.split() and line.split()[0].isdigit()]
    assert [row[0] for row in rows][-16:] == [str(rank) for rank in range(16)]
    for row in rows[-16:]:
        *parts, peak, left = map(float, row[1:])
        assert sum(parts) == pytest.approx(peak, abs=0.31)
        assert peak + left == pytest.approx(84.9, abs=0.11)


def test_memory_command_prints_json(command_line: CommandLine) -> None:
    done = command_line("memory", "deepseek_v3", "--set", "schedule=zb-h1", "--json")
    said = json.loads(done.stdout)
    assert said["gpu_memory_bytes"] == 84_943_110_144
    assert [over["rank"] for over in said["over_memory"]] == [15]
    last = said["by_rank"][15]
    assert last["peak_bytes"] - said["gpu_memory_bytes"] == said["over_memory"][0]["excess_bytes"]
    assert last["headroom_bytes"] == -said["over_memory"][0]["excess_bytes"]
    assert sum(last["at_peak_bytes"].values()) == last["peak_bytes"]
    assert list(last["at_peak_bytes"]) == [
        "weights",
        "gradients",
        "optimizer_states",
        "communication_buffers",
        "weight_gradient_inputs",
        "activations",
    ]
    for part, size in last["at_peak_bytes"].items():
        assert last["most_bytes"][part] >= size
    assert set(Result("", 0, 0).to_dict()) >= {"peak_memory_bytes_by_rank", "over_memory"}


def heights(area: Collection) -> FloatArray:
    """Heights of an area's corners."""
    return np.concatenate([np.asarray(path.vertices)[:, 1] for path in area.get_paths()])


def test_the_stack_reaches_the_peak_and_hatches_what_is_too_much() -> None:
    fits, over = (memory("deepseek_v3", schedule=name) for name in ("dualpipe", "zb-h1"))
    axes = memory_stack(fits, title="dualpipe")
    areas = dict(zip(COMPONENTS, axes.collections, strict=True))  # as many as components: nothing is hatched
    assert heights(areas["activations"]).max() == pytest.approx(fits.peak_bytes_by_rank[7] / 1e9)
    assert axes.get_title("left") == "dualpipe: rank 7, 22.5 GB left at the peak"
    assert [text.get_text() for text in axes.texts] == ["peak 62.4 GB at 1.432 s"]
    assert axes.get_xlim() == (0, fits.makespan_s)
    axes = memory_stack(over)
    assert len(axes.collections) == len(COMPONENTS) + 1
    assert heights(axes.collections[-1]).min() == pytest.approx(84.943110144)
    assert axes.get_title("left") == "rank 15, 10.3 GB more than its GPU has"


def test_the_gantt_says_the_peak_where_a_model_is_known(v3: Result) -> None:
    assert v3.gantt().get_title("left").endswith(", peak 62.4 of 84.9 GB")
    assert "GB" not in simulate("figure5").gantt().get_title("left")
    figure = compare("deepseek_v3_pair", compare=["dualpipe", "1f1b"]).gantt()
    titles = [axes.get_title("left") for axes in figure.axes]
    assert len(titles) == 2
    assert all(title.endswith(" of 84.9 GB") for title in titles)


def test_memory_command_draws_a_chart(command_line: CommandLine, tmp_path: Path) -> None:
    chart = tmp_path / "memory.svg"
    done = command_line("memory", "deepseek_v3_pair", "--plot", chart, "--rank", "1")
    assert done.stderr == ""
    assert chart.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["figure5"],
            "memory needs a model, so costs of kind 'layers'; its costs know no bytes",
        ),
        (["deepseek_v3_pair", "--rank", "2", "--plot", "x.png"], "there is no rank 2; ranks are 0 to 1"),
        (
            ["deepseek_v3_pair", "--rank", "1"],
            "--rank says which rank --plot draws; give a file, like --plot memory.png",
        ),
    ],
)
def test_memory_command_says_what_is_wrong(command_line: CommandLine, arguments: list[str], message: str) -> None:
    done = command_line("memory", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("dualpipe-sim: ")
    assert done.stderr.endswith(f"{message}\n")
    assert done.stderr.count("\n") == 1


def test_no_model_no_bytes() -> None:
    result = simulate("figure5")
    assert (result.peak_memory_bytes_by_rank, result.over_memory, result.memory) == (None, None, None)


def test_a_rank_that_is_not_there(v3: Result) -> None:
    assert v3.memory is not None
    with pytest.raises(UserError, match="there is no rank 16; ranks are 0 to 15"):
        v3.memory.over_time(16)
