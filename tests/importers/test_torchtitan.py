"""Jobs of torchtitan: shapes, degrees, batches and stages are what its own code makes of the same settings.

Facts are of https://github.com/pytorch/torchtitan 0.2.2: ``ParallelDims``, ``generate_llm_fqn_per_model_part`` and the
flavors of ``torchtitan/models``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from dualpipe_sim import build
from dualpipe_sim.config import load_experiment
from dualpipe_sim.errors import UserError
from dualpipe_sim.importers import torchtitan
from dualpipe_sim.importers.torchtitan_models import FLAVORS
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.order import format_order

if TYPE_CHECKING:
    from tests.importers.conftest import Runs

Job: TypeAlias = Callable[..., tuple[dict[str, Any], list[str]]]


def model_of(config: dict[str, Any]) -> Model:
    job = load_experiment(config).job
    assert job is not None
    return job.model


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Read a job of lines of TOML; Llama 3 8B on 2,048 tokens unless it says something else."""

    def read(
        *lines: str, model: str = 'name = "llama3"\nflavor = "8B"', gpus: int | None = 8
    ) -> tuple[dict[str, Any], list[str]]:
        path = tmp_path / "job.toml"
        path.write_text("\n".join(("[model]", model, *lines)), encoding="utf-8")
        config, unread = torchtitan.read(path, gpus=gpus)
        return config, list(unread)

    return read


TOTALS = {
    ("llama3", "8B"): 8_030_261_248,
    ("llama3", "8B_flex"): 8_030_261_248,
    ("llama3", "70B"): 70_553_706_496,
    ("llama3", "405B"): 405_853_388_800,
    ("llama4", "17bx16e"): 107_769_861_120,
    ("llama4", "17bx16e_irope"): 107_769_861_120,
    ("deepseek_v3", "16B"): 15_706_484_224,
    ("deepseek_v3", "236B"): 235_741_434_880,
    ("deepseek_v3", "671B"): 671_026_404_352,
    ("qwen3", "0.6B"): 596_049_920,
    ("qwen3", "8B"): 8_190_735_360,
    ("qwen3", "32B"): 32_762_123_264,
    ("qwen3", "235B-A22B"): 235_093_634_560,
    ("gpt_oss", "20b"): 20_914_757_184,
}
"""All parameters of the published weights."""


@pytest.mark.parametrize(("named", "total"), TOTALS.items())
def test_flavors_have_as_many_parameters_as_the_published_weights(job: Job, named: tuple[str, str], total: int) -> None:
    config, _ = job(model='name = "{}"\nflavor = "{}"'.format(*named))
    assert model_of(config).parameters().total == total


@pytest.mark.parametrize(
    ("family", "flavor"), [(family, flavor) for family, flavors in FLAVORS.items() for flavor in flavors]
)
def test_every_flavor_is_a_model_of_as_many_layers_as_are_said(job: Job, family: str, flavor: str) -> None:
    config, _ = job(model=f'name = "{family}"\nflavor = "{flavor}"')
    model = model_of(config)
    known = FLAVORS[family][flavor]
    assert model.layers == known.layers
    assert any(layer.moe for layer in model.layer_kinds()) == known.moe
    assert model.mtp_depth == 0  # which torchtitan has none of


def test_a_small_model_by_hand(job: Job) -> None:
    config, _ = job(model='name = "llama3"\nflavor = "debugmodel"')
    # Embedding and head; a layer: four maps of attention, three of the FFN, two norms; the last norm.
    assert model_of(config).parameters().total == (2 * 2048 * 256 + 6 * (4 * 256 * 256 + 3 * 256 * 768 + 2 * 256) + 256)


def test_a_job_alone_is_fsdp_over_all_gpus_with_weights_in_fp32(runs: Runs, job: Job) -> None:
    config, unread = job("[training]", "seq_len = 8192", "local_batch_size = 1", "steps = 3000", "max_norm = 1.0")
    assert config["model"] == "llama3-8b"
    assert config["gpu"] == "h100"
    assert config["stack"] == "torch-eager"
    assert config["parallel"] == {"gpus": 8, "pipeline": 1, "data": 8, "zero": 0, "fsdp": 8, "gathers": "each"}
    training = config["training"]
    assert training["optimizer"] == {"main_weights": "fp32", "moments": "fp32", "gradients": "fp32"}
    assert (training["sequence_length"], training["micro_batch_size"], training["global_batch"]) == (8192, 1, 8)
    assert training["precision"] == "bf16"
    assert unread == []
    runs(config)


def test_json_says_the_same_as_toml(job: Job, tmp_path: Path) -> None:
    config, _ = job("[parallelism]", "tensor_parallel_degree = 2")
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"model": {"name": "llama3", "flavor": "8B"},
                                "parallelism": {"tensor_parallel_degree": 2}}), encoding="utf-8")  # fmt: skip
    assert torchtitan.read(path, gpus=8, gpu="h200") == (config | {"gpu": "h200"}, ())


def test_degrees_are_those_of_the_meshes(runs: Runs, job: Job) -> None:
    config, _ = job(
        "[parallelism]",
        "data_parallel_replicate_degree = 2",
        "data_parallel_shard_degree = -1",
        "tensor_parallel_degree = 2",
        "context_parallel_degree = 2",
        gpus=64,
    )
    parallel = config["parallel"]
    # dp_replicate 2 x dp_shard 8 x cp 2 x tp 2; weights are shared out over dp_shard x cp.
    assert (parallel["data"], parallel["fsdp"], parallel["context"], parallel["tensor"]) == (16, 16, 2, 2)
    assert parallel["context_exchange"] == "gather"
    assert config["training"]["global_batch"] == 8 * 16
    runs(config)


def test_context_by_all_to_all_is_passed_on_in_a_ring(job: Job) -> None:
    config, _ = job("[parallelism]", "context_parallel_degree = 2", 'context_parallel_rotate_method = "alltoall"')
    assert config["parallel"]["context_exchange"] == "ring"


def test_ddp_shares_nothing_out(job: Job) -> None:
    config, _ = job("[parallelism]", "data_parallel_replicate_degree = 8", "data_parallel_shard_degree = 1", gpus=None)
    assert config["parallel"] == {"gpus": 8, "pipeline": 1, "data": 8, "zero": 0}


@pytest.mark.parametrize(
    ("policy", "pipeline", "gathers"),
    [("default", 1, "each"), ("default", 2, "once"), ("always", 2, "each"), ("never", 1, "once")],
)
def test_resharding_says_when_weights_are_gathered(job: Job, policy: str, pipeline: int, gathers: str) -> None:
    config, _ = job(
        "[parallelism]", f'fsdp_reshard_after_forward = "{policy}"', f"pipeline_parallel_degree = {pipeline}"
    )
    assert config["parallel"]["gathers"] == gathers


MOE = 'name = "qwen3"\nflavor = "30B-A3B"'


@pytest.mark.parametrize(
    ("expert", "expert_tensor", "tensor", "spread"),
    [(8, 1, 1, (8, 1)), (4, 2, 2, (4, 2)), (8, 1, 2, (8, 1)), (1, 1, 2, (1, 2))],
)
def test_experts_are_spread_as_there(
    runs: Runs, job: Job, expert: int, expert_tensor: int, tensor: int, spread: tuple[int, int]
) -> None:
    config, unread = job(
        "[parallelism]",
        f"expert_parallel_degree = {expert}",
        f"expert_tensor_parallel_degree = {expert_tensor}",
        f"tensor_parallel_degree = {tensor}",
        model=MOE,
    )
    parallel = config["parallel"]
    assert (parallel.get("expert", 1), parallel.get("expert_tensor", 1)) == spread
    assert unread == []
    runs(config)


def test_expert_parallelism_means_nothing_to_a_dense_model(job: Job) -> None:
    config, unread = job("[parallelism]", "expert_parallel_degree = 8", 'expert_parallel_comm_backend = "deepep"')
    assert "expert" not in config["parallel"]
    assert unread == []


SCHEDULES = {
    "1F1B": ("1f1b", [8, 9, 8, 7]),
    "GPipe": ("gpipe", [8, 9, 8, 7]),
    "Interleaved1F1B": ("interleaved-1f1b", [4, 5, 4, 4, 4, 4, 4, 3]),
    "interleaved1f1b": ("interleaved-1f1b", [4, 5, 4, 4, 4, 4, 4, 3]),
    "LoopedBFS": ("looped-bfs", [4, 5, 4, 4, 4, 4, 4, 3]),
    "InterleavedZeroBubble": ("interleaved-zb", [4, 5, 4, 4, 4, 4, 4, 3]),
    "ZBVZeroBubble": ("zb-v", [4, 5, 4, 4, 4, 4, 4, 3]),
    "DualPipeV": ("dualpipev", [4, 5, 4, 4, 4, 4, 4, 3]),
}
"""Of torch's schedules: ours, and 32 layers with embedding and head counted as one each, 34 over 4 or 8 stages."""


@pytest.mark.parametrize(("name", "means"), SCHEDULES.items())
def test_schedules_and_their_stages(runs: Runs, job: Job, name: str, means: tuple[str, list[int]]) -> None:
    config, unread = job(
        "[parallelism]", "pipeline_parallel_degree = 4", f'pipeline_parallel_schedule = "{name}"', gpus=4
    )
    result = runs(config)
    assert (load_experiment(config).choice.name, config["pipeline"]["layout"]) == means
    assert result.micro_batches == 8  # local_batch_size over micro-batches of one sequence
    assert config["pipeline"]["runtime"] == "torch"
    assert unread == []


def test_layers_a_stage_say_how_many_stages(runs: Runs, job: Job) -> None:
    config, _ = job(
        "[parallelism]",
        "pipeline_parallel_degree = 4",
        'pipeline_parallel_schedule = "Interleaved1F1B"',
        "pipeline_parallel_layers_per_stage = 3",
        "pipeline_parallel_first_stage_less_layers = 2",
        "pipeline_parallel_last_stage_less_layers = 2",
        "pipeline_parallel_microbatch_size = 2",
    )
    # (32 + 2 + 2) / 3 stages of 3 layers, the first and last one layer only.
    assert config["schedule"] == {"name": "interleaved-1f1b", "stages_per_rank": 3}
    assert config["pipeline"]["layout"] == [1, *[3] * 10, 1]
    assert config["training"]["micro_batch_size"] == 2
    assert runs(config).micro_batches == 4


def modules(*ends: int) -> str:
    """Write stages that end before these layers."""
    parts = [[f"layers.{layer}" for layer in range(begin, end)] for begin, end in zip((0, *ends), ends, strict=False)]
    parts[0].insert(0, "tok_embeddings")
    parts[-1] += ["norm", "output"]
    return f"module_fqns_per_model_part = {json.dumps(parts)}"


def test_modules_by_stage(runs: Runs, job: Job) -> None:
    config, _ = job("[parallelism]", "pipeline_parallel_degree = 4", modules(6, 16, 26, 32))
    assert config["pipeline"]["layout"] == [6, 10, 10, 6]
    runs(config)


def test_modules_whose_embedding_is_in_a_later_stage_are_a_layout_of_letters(job: Job) -> None:
    parts = [[], ["tok_embeddings", *(f"layers.{layer}" for layer in range(32))], ["norm", "output"], []]
    config, _ = job(
        "[parallelism]", "pipeline_parallel_degree = 4", f"module_fqns_per_model_part = {json.dumps(parts)}"
    )
    assert config["pipeline"]["layout"] == "|E" + "t" * 32 + "|L|"


def test_split_points_of_older_releases(job: Job) -> None:
    config, _ = job(
        "[parallelism]",
        "pipeline_parallel_degree = 2",
        'pipeline_parallel_split_points = ["layers.14"]',
    )
    assert config["pipeline"]["layout"] == [14, 18]


def test_degrees_where_the_oldest_releases_had_them(job: Job) -> None:
    config, unread = job(
        "[training]", "batch_size = 8", "tensor_parallel_degree = 2", "data_parallel_shard_degree = 2",
        "[experimental]", "pipeline_parallel_degree = 2", "pipeline_parallel_microbatches = 4",
    )  # fmt: skip
    assert config["parallel"] | {"tensor": 2, "pipeline": 2, "data": 2} == config["parallel"]
    assert config["training"]["micro_batch_size"] == 2
    assert unread == []


def test_an_order_from_a_file(runs: Runs, job: Job, tmp_path: Path) -> None:
    order = build("interleaved-1f1b", ranks=2, micro_batches=8, stages_per_rank=2)
    (tmp_path / "order.csv").write_text(format_order(order), encoding="utf-8")
    lines = (
        "[parallelism]",
        "pipeline_parallel_degree = 2",
        'pipeline_parallel_schedule = "PipelineScheduleMulti"',
        'pipeline_parallel_schedule_csv = "order.csv"',
        "[training]",
    )
    config, unread = job(*lines, gpus=2)
    assert runs(config).micro_batches == 8
    assert unread == []
    config, unread = job(*lines, "global_batch_size = 16", gpus=2)
    assert runs(config).micro_batches == 8
    assert list(unread) == ["training.global_batch_size: the order in the file is played once here, not 2 times"]


def test_a_larger_global_batch_is_several_local_ones(runs: Runs, job: Job) -> None:
    config, unread = job("[training]", "local_batch_size = 2", "global_batch_size = 64")
    assert (config["training"]["micro_batch_size"], config["training"]["global_batch"]) == (2, 64)
    assert runs(config).micro_batches == 4
    assert unread == []
    _, unread = job("[training]", "global_batch_size = 64", "[parallelism]", "pipeline_parallel_degree = 4")
    assert [line.partition(":")[0] for line in unread] == ["training.global_batch_size"]


def test_fewer_micro_batches_than_torch_takes_are_played_and_said(runs: Runs, job: Job) -> None:
    config, unread = job("[training]", "local_batch_size = 1", "[parallelism]", "pipeline_parallel_degree = 4")
    assert runs(config).micro_batches == 1
    assert len(unread) == 1


RECOMPUTED: list[tuple[str, object, bool]] = [
    ('mode = "none"', "none", False),
    ('mode = "full"', "full", False),
    ('mode = "selective"\nselective_ac_option = "op"', ["norms", "activation", "alternate"], False),
    ('mode = "selective"\nselective_ac_option = "1"', "full", False),
    ('mode = "memory_budget"\nmemory_budget = 0.3', ["norms", "activation"], True),
]


@pytest.mark.parametrize(("lines", "recompute", "said"), RECOMPUTED)
def test_activation_checkpointing(runs: Runs, job: Job, lines: str, recompute: object, said: bool) -> None:
    config, unread = job("[activation_checkpoint]", lines)
    assert config["training"]["recompute"] == recompute
    assert bool(unread) == said
    runs(config)


def test_every_second_layer_is_half_of_each_stage(job: Job) -> None:
    config, unread = job('[activation_checkpoint]\nmode = "selective"\nselective_ac_option = "2"')
    assert config["training"]["recompute"]["layers"] == 16
    assert unread == []
    _, unread = job('[activation_checkpoint]\nselective_ac_option = "3"')
    assert unread == [
        "activation_checkpoint.selective_ac_option: 3: is taken as the first 11 layers of each stage, computed again "
        "whole"
    ]


def test_float8_and_mx(runs: Runs, job: Job) -> None:
    float8 = 'name = "llama3"\nflavor = "8B"\nconverters = ["quantize.linear.float8"]'
    config, unread = job("[quantize.linear.float8]", 'filter_fqns = ["output"]', model=float8)
    assert (config["training"]["precision"], unread) == ("fp8-tensor", [])
    runs(config)
    lines = ("[quantize.linear.float8]", 'recipe_name = "rowwise"', "enable_fsdp_float8_all_gather = true")
    _, unread = job(*lines, 'filter_fqns = ["attention.wk"]', model=float8)
    assert [line.partition(":")[0] for line in unread] == [
        "model.converters",
        "quantize filter_fqns",
        "quantize recipe_name",
        "quantize.linear.float8.enable_fsdp_float8_all_gather",
    ]
    config, unread = job(model='name = "llama3"\nflavor = "8B"\nconverters = ["mx"]')
    assert (config["training"]["precision"], unread) == ("mxfp8", [])
    config, unread = job(model=f'{MOE}\nconverters = ["float8"]')
    assert any("experts" in line for line in unread)


def test_settings_of_converters_that_are_not_used_mean_nothing(job: Job) -> None:
    config, unread = job("[quantize.linear.float8]", 'recipe_name = "rowwise"', "enable_fsdp_float8_all_gather = true")
    assert (config["training"]["precision"], unread) == ("bf16", [])


def test_training_all_in_bf16_has_no_main_weights(job: Job) -> None:
    config, _ = job("[training]", 'dtype = "bfloat16"')
    assert config["training"]["optimizer"] == {"main_weights": "none", "moments": "bf16", "gradients": "bf16"}


def test_a_compiled_model_is_another_stack_and_may_send_beside_its_gemms(job: Job) -> None:
    parallel = ("[parallelism]", "tensor_parallel_degree = 2", "enable_async_tensor_parallel = true")
    config, unread = job(*parallel, "[compile]", "enable = true")
    assert (config["stack"], config["parallel"]["tensor_overlap"], unread) == ("torch-compile", True, [])
    config, unread = job(*parallel)
    assert config["stack"] == "torch-eager"
    assert "tensor_overlap" not in config["parallel"]
    assert unread == []


def test_what_is_not_modelled_is_said_and_what_changes_nothing_is_not(job: Job) -> None:
    _, unread = job(
        "[job]", 'description = "x"', "[profiling]", "enable_profiling = true",
        "[optimizer]", 'name = "Muon"', 'implementation = "foreach"', "lr = 1e-4", "early_step_in_backward = true",
        "[training]", "enable_cpu_offload = true", 'mixed_precision_param = "float32"', 'dataset = "c4"',
        "[parallelism]", "enable_async_tensor_parallel = true", "disable_loss_parallel = true",
        "invented_here = 3",
        "[compile]", "enable = true", 'components = ["loss"]',
        "[fault_tolerance]", "enable = true", "group_size = 2",
        "[debug]", "deterministic = true",
    )  # fmt: skip
    assert sorted(line.partition(":")[0] for line in unread) == [
        "compile.components",
        "debug.deterministic",
        "fault_tolerance.enable",
        "optimizer.early_step_in_backward",
        "optimizer.implementation",
        "optimizer.name",
        "parallelism.disable_loss_parallel",
        "parallelism.invented_here",
        "training.enable_cpu_offload",
        "training.mixed_precision_param",
    ]
    assert all("\n" not in line for line in unread)


WRONG = [
    ((), "parallelism.data_parallel_shard_degree: takes what is left of all GPUs", None),
    (("[parallelism]", "tensor_parallel_degree = 3"), "need a multiple of 3 GPUs, not 8", 8),
    (("[parallelism]", "data_parallel_shard_degree = 4"), "need 4 GPUs, not 8", 8),
    (("[parallelism]", "tensor_parallel_degree = 0"), "must be a whole number from 1 up, got 0", 8),
    (("[parallelism]", "data_parallel_shard_degree = 0"), "must be -1 or from 1 up, got 0", 8),
    (
        ("[parallelism]", "data_parallel_replicate_degree = 4", "data_parallel_shard_degree = 1",
         "tensor_parallel_degree = 2"),
        "go with no other parallelism", 8,
    ),
    (("[parallelism]", "pipeline_parallel_degree = 2", 'pipeline_parallel_schedule = "1F2B"'), "no schedule '1F2B'", 8),
    (("[parallelism]", "pipeline_parallel_degree = 2", 'pipeline_parallel_schedule_csv = "no.csv"'), "no file", 8),
    (
        ("[parallelism]", "pipeline_parallel_degree = 4", "pipeline_parallel_layers_per_stage = 4"),
        "cannot have 9 stages; make them 4", 8,
    ),
    (
        ("[parallelism]", "pipeline_parallel_degree = 2", "module_fqns_per_model_part = [['layers.0'], ['norm']]"),
        "must hold tok_embeddings, layers.0 to layers.31", 8,
    ),
    (("[parallelism]", "pipeline_parallel_degree = 2", "module_fqns_per_model_part = [['foo'], []]"), "'foo' is no", 8),
    (("[parallelism]", "pipeline_parallel_degree = 2", "pipeline_parallel_microbatch_size = 3"), "no multiple of 3", 8),
    (("[parallelism]", 'context_parallel_rotate_method = "ring"'), "must be 'allgather' or 'alltoall'", 8),
    (("[training]", "global_batch_size = 65"), "65 sequences are no multiple of 8", 8),
    (("[training]", "local_batch_size = 'x'"), "training.local_batch_size: must be a whole number", 8),
    (("[activation_checkpoint]", 'selective_ac_option = "ops"'), "must be 'op' or a number, got 'ops'", 8),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "message", "gpus"), WRONG)
def test_what_is_wrong_is_said_in_one_line(job: Job, lines: tuple[str, ...], message: str, gpus: int | None) -> None:
    with pytest.raises(UserError) as error:
        job(*lines, gpus=gpus)
    assert message in str(error.value)
    assert "job.toml: " in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model", "is neither TOML nor JSON"),
        ("{", "is no JSON: Expecting"),
        ("a = 1", "is no job of torchtitan"),
        ("[tool.ruff]", "is no job of torchtitan"),
        ('{"model_spec": {}}', "later than 0.2.2"),
        ('[model]\nname = "lama3"', "did you mean 'llama3'?"),
        ('[model]\nflavor = "9B"', "there is no '9B' of llama3"),
    ],
)
def test_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        torchtitan.read(path, gpus=8)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
