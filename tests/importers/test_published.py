"""Published runs: what a row says is what runs, and what it does not say is named.

Rows are of their sources, named at each; only what is measured is left out of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from dualpipe_sim.config.records import read
from dualpipe_sim.importers.published import is_row, nic_bytes_per_s, of_row
from dualpipe_sim.model.architecture import Model

if TYPE_CHECKING:
    from tests.importers.conftest import Refusal, Runs

Row: TypeAlias = dict[str, Any]

A100: Row = {
    "gpu": "a100-80g-sxm", "gpus_per_node": 8, "nvlink_domain": 8,
    "interconnect": "8 x HDR200 InfiniBand a node, NVSwitch 600 GB/s a GPU (bidirectional)",
}  # fmt: skip
H100: Row = {
    "gpu": "h100-80g-sxm", "gpus_per_node": 8, "nvlink_domain": 8,
    "interconnect": "8 x NDR400 InfiniBand a node, NVLink 900 GB/s a GPU (bidirectional)",
}  # fmt: skip
GB300: Row = {"gpu": "gb300-nvl72", "gpus_per_node": 4, "nvlink_domain": 72}

LLAMA: Row = {
    "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn": 14336, "activation": "swiglu",
    "vocab": 128256, "tied_embedding": False,
}  # fmt: skip
GPT: Row = {
    "layers": 30, "hidden": 3072, "heads": 32, "kv_heads": 32, "head_dim": 96, "ffn": 12288, "activation": "gelu",
    "vocab": 51200, "tied_embedding": True, "position": "learned",
}  # fmt: skip

ROWS: dict[str, Row] = {
    # Narayanan et al., Efficient Large-Scale Language Model Training (https://arxiv.org/abs/2104.04473), table 1.
    "gpt-3.6b": {
        "model": GPT, "cluster": A100 | {"gpus": 64}, "parallel": {"tp": 2, "sp": False, "pp": 1, "vpp": 1, "dp": 32,
        "zero": 0}, "schedule": "none", "seq_len": 2048, "global_batch": 512, "micro_batch": 16, "precision": "fp16",
        "recompute": "full", "framework": "Megatron-LM 2021",
    },
    # The same: ZeRO-3 of table 2.
    "gpt-174.6b": {
        "model": GPT | {"layers": 96, "hidden": 12288, "heads": 96, "kv_heads": 96, "head_dim": 128, "ffn": 49152},
        "cluster": A100 | {"gpus": 384}, "parallel": {"tp": 1, "pp": 1, "dp": 384, "zero": 3, "fsdp": 384},
        "schedule": "none", "seq_len": 2048, "global_batch": 1536, "micro_batch": 4, "precision": "fp16",
        "recompute": "full", "framework": "Megatron-LM + DeepSpeed ZeRO-3",
    },
    # Megatron-LM, examples/llama/README.md (d98e8a64), FP8 performance.
    "llama3-8b": {
        "model": LLAMA, "cluster": H100 | {"gpus": 8}, "parallel": {"tp": 1, "cp": 2, "pp": 1, "dp": 4, "zero": 1},
        "schedule": "none", "seq_len": 8192, "global_batch": 128, "micro_batch": 1, "precision": "fp8-ds",
        "recompute": "not stated", "framework": "Megatron-Core 0.12",
    },
    # The Llama 3 Herd of Models (https://arxiv.org/abs/2407.21783), table 4.
    "llama3.1-405b": {
        "model": LLAMA | {"layers": 126, "hidden": 16384, "heads": 128, "ffn": 53248}, "cluster": H100 | {"gpus": 16384,
        "interconnect": "400 Gb/s RoCE a GPU, NVLink"}, "parallel": {"tp": 8, "sp": True, "pp": 16, "dp": 128, "zero":
        2, "fsdp": 128}, "schedule": "interleaved-1f1b", "seq_len": 8192, "global_batch": 2048, "micro_batch": 1,
        "precision": "bf16", "recompute": "none (8k); not stated (131k)",
        "framework": "Meta, FSDP (no reshard after forward)",
    },
    # Megatron Bridge, docs/performance-summary.md (067f987d), 26.08.
    "deepseek-v3": {
        "model": {
            "layers": 61, "hidden": 7168, "heads": 128, "kv_heads": 128, "head_dim": 128, "ffn": 18432,
            "activation": "swiglu", "vocab": 129280, "tied_embedding": False, "dense_layers": 3,
            "experts": {"routed": 256, "active": 8, "ffn": 2048, "shared": 1, "shared_ffn": 2048},
            "mla": {"q_lora": 1536, "kv_lora": 512, "qk_head": 128, "rope_head": 64, "v_head": 128},
        },
        "cluster": GB300 | {"gpus": 256}, "parallel": {"tp": 1, "sp": False, "cp": 1, "pp": 2, "vpp": 8, "ep": 32,
        "etp": 1, "dp": 128, "zero": 1, "fsdp": 0}, "schedule": "interleaved-1f1b", "seq_len": 4096,
        "global_batch": 4096, "micro_batch": 1, "precision": "mxfp8", "recompute": "recipe default",
        "framework": "Megatron-Bridge, NeMo 26.08", "mtp_layers": 1,
    },
    "gpt-oss-120b": {
        "model": {
            "layers": 36, "hidden": 2880, "heads": 64, "kv_heads": 8, "head_dim": 64, "ffn": 0, "activation": "swiglu",
            "vocab": 201088, "experts": {"routed": 128, "active": 4, "ffn": 2880, "shared": 0, "shared_ffn": 0},
            "window": {"size": 128, "every": 2},
        },
        "cluster": GB300 | {"gpus": 64}, "parallel": {"tp": 1, "pp": 1, "vpp": 1, "ep": 16, "dp": 64, "zero": 1},
        "schedule": "none", "seq_len": 4096, "global_batch": 1280, "micro_batch": 4, "precision": "mxfp8",
        "recompute": "recipe default", "framework": "Megatron-Bridge, NeMo 26.08",
    },
    # Scalable Training of Mixture-of-Experts Models with Megatron Core (https://arxiv.org/abs/2603.07685).
    "qwen3-235b-a22b": {
        "model": {
            "layers": 94, "hidden": 4096, "heads": 64, "kv_heads": 4, "head_dim": 128, "ffn": 0, "activation": "swiglu",
            "vocab": 151936, "experts": {"routed": 128, "active": 8, "ffn": 1536},
        },
        "cluster": H100 | {"gpus": 256, "interconnect": None}, "parallel": {"tp": 4, "sp": True, "pp": 8, "vpp": 4,
        "ep": 8, "etp": 1, "dp": 8, "zero": 1}, "schedule": "interleaved-1f1b", "seq_len": 16384, "global_batch": 256,
        "micro_batch": 1, "precision": "bf16", "recompute": ["layernorm", "moe"], "framework": "Megatron-Core 0.16",
    },
    # Qi et al., Zero Bubble Pipeline Parallelism (https://arxiv.org/abs/2401.10241), table 4.
    "gpt-1.5b": {
        "model": GPT | {"layers": 22, "hidden": 2304, "heads": 24, "kv_heads": 24, "ffn": 9216, "vocab": 32000},
        "cluster": A100 | {"gpus": 8, "interconnect": "RoCE between nodes"}, "parallel": {"tp": 1, "pp": 8, "dp": 1,
        "zero": 0}, "schedule": "zb-auto (ZB-1p)", "seq_len": 1024, "global_batch": 144, "micro_batch": 6,
        "precision": "fp16", "recompute": "none", "framework": "Megatron-LM + zero bubble",
    },
    # torchtitan (b5bcd76c), benchmarks/*.md.
    "titan-8b": {
        "model": LLAMA, "cluster": H100 | {"gpu": "h100-96g-hbm2e-500w", "gpus": 8, "interconnect":
        "400 Gb/s RDMA a GPU"}, "parallel": {"tp": 1, "sp": False, "pp": 1, "dp": 8, "zero": 3, "fsdp": 8},
        "schedule": "none", "seq_len": 8192, "global_batch": 16, "micro_batch": 2, "precision": "bf16",
        "recompute": "selective (torchtitan: every other matmul)", "framework": "torchtitan",
    },
    # MosaicML llm-foundry, scripts/train/benchmarking/README.md.
    "mpt-3b": {
        "model": GPT | {"layers": 32, "hidden": 2560, "heads": 20, "kv_heads": 20, "head_dim": 128, "ffn": 10240,
        "vocab": 50368}, "cluster": A100 | {"gpu": "a100-40g-sxm", "gpus": 16, "interconnect":
        "1600 Gb/s RoCE a node"}, "parallel": {"tp": 1, "pp": 1, "dp": 16, "zero": 3, "fsdp": 16}, "schedule": "none",
        "seq_len": 2048, "global_batch": 80, "micro_batch": 5, "precision": "bf16", "recompute": "none",
        "framework": "llm-foundry, PyTorch FSDP, PURE",
    },
    # Hagemann et al., Efficient Parallelization Layouts (https://arxiv.org/abs/2311.05610), here with fewer layers.
    "llama1-65b": {
        "model": LLAMA | {"layers": 20, "hidden": 8192, "heads": 64, "kv_heads": 64, "ffn": 22016, "vocab": 128000},
        "cluster": A100 | {"gpus": 128, "interconnect": "InfiniBand, not stated"}, "parallel": {"tp": 4, "pp": 2,
        "dp": 16, "zero": 1}, "schedule": "1f1b", "seq_len": 2048, "global_batch": 256, "micro_batch": 1,
        "precision": "bf16", "recompute": "none", "framework": "Aleph Alpha scaling (flash_attention2 + RMS kernel)",
        "attention_kernel": "flash_attention2 + RMS kernel",
    },
    # Nemotron-4 340B Technical Report (https://arxiv.org/abs/2406.11704), table 2.
    "nemotron4-340b": {
        "model": LLAMA | {"layers": 96, "hidden": 18432, "heads": 96, "head_dim": 192, "ffn": 73728, "activation":
        "relu2", "vocab": 256000}, "cluster": H100 | {"gpus": 1536}, "parallel": {"tp": 8, "sp": True, "pp": 12,
        "dp": 16, "zero": 1}, "schedule": "interleaved-1f1b", "seq_len": 4096, "global_batch": 768,
        "precision": "bf16", "recompute": "not stated", "framework": "Megatron-LM",
    },
}  # fmt: skip

SAID: dict[str, dict[str, Any]] = {
    "gpt-3.6b": {
        "stack": "megatron-2021", "parallel.tensor": 2, "parallel.data": 32, "parallel.zero": 0,
        "parallel.sequence": False, "training.precision": "fp16",
        "training.recompute": "full", "training.micro_batch_size": 16,
        "model.positions": "learned", "model.max_positions": 2048, "model.norm": "layer", "model.ffn_bias": True,
        "model.dropout": True, "cluster.infiniband": {"bandwidth": 25e9}, "schedule.name": "1f1b",
    },
    "gpt-174.6b": {"parallel.fsdp": 384, "stack": "megatron-2021"},
    "llama3-8b": {
        "parallel.context": 2, "parallel.data": 4, "training.precision": "fp8-tensor", "training.recompute": "none",
        "cluster.infiniband": {"bandwidth": 50e9}, "gpu": "h100",
    },
    "llama3.1-405b": {
        "stack": "torch-eager", "parallel.fsdp": 128, "parallel.gathers": "once", "schedule.stages_per_rank": 2,
        "pipeline.layout": [3, *[4] * 30, 3], "cluster.infiniband": {"bandwidth": 50e9}, "parallel.sequence": True,
    },
    "deepseek-v3": {
        "gpu": "gb300", "cluster": {"preset": "gb300-nvl72", "gpus_per_node": 64}, "parallel.expert": 32,
        "schedule.stages_per_rank": 8, "training.precision": "mxfp8", "training.recompute": ["up_projections"],
        "model.mtp_depth": 1, "model.dense_layers": 3, "parallel.dispatcher": "deepep",
    },
    "gpt-oss-120b": {"training.recompute": "none", "training.precision": "mxfp8", "model.pattern": "sf"},
    "qwen3-235b-a22b": {
        "training.recompute": ["norms", "moe"], "schedule.stages_per_rank": 4, "pipeline.layout": [2, *[3] * 30, 2],
        "cluster": {"preset": "h100-ib", "gpus_per_node": 8},
    },
    "gpt-1.5b": {
        "schedule": {"name": "zb-auto", "memory_limit": 8}, "pipeline.layout": [2, 3, 3, 3, 3, 3, 3, 2],
        "cluster": {"preset": "a100-ib", "gpus_per_node": 8},
    },
    "titan-8b": {
        "stack": "torch-eager", "gpu": "h100-hbm2e", "parallel.fsdp": 8,
        "training.recompute": ["norms", "activation", "alternate"],
        "training.attention_kernel": "flash-2",
    },
    "mpt-3b": {"stack": "torch-eager", "gpu": "a100-40g", "cluster.infiniband": {"bandwidth": 25e9}},
    "llama1-65b": {"stack": "aleph-scaling-fused", "training.attention_kernel": "flash-2"},
    "nemotron4-340b": {
        "schedule": {"name": "interleaved-1f1b", "stages_per_rank": 2}, "training.micro_batch_size": 1,
        "model.activation": "relu2",
    },
}  # fmt: skip

SCORES = "attention: scores are stored, as before FlashAttention"
ASSUMED: dict[str, list[str]] = {
    "gpt-3.6b": [SCORES],
    "gpt-174.6b": [SCORES],
    "llama3-8b": ["recompute: none"],
    "llama3.1-405b": ["parallel.vpp: 2", "pipeline.layout", "recompute: none"],
    "deepseek-v3": ["parallel.dispatcher", "pipeline.layout: balanced", "recompute: MLA's up-projections"],
    "gpt-oss-120b": ["parallel.dispatcher: deepep", "recompute: none"],
    "qwen3-235b-a22b": ["pipeline.layout"],
    "gpt-1.5b": ["pipeline.layout", SCORES],
    "titan-8b": ["recompute: norms, activation and every second linear map", "attention_kernel: flash-2"],
    "mpt-3b": ["attention_kernel: flash-1"],
    "nemotron4-340b": ["parallel.vpp: 2", "micro_batch: 1", "recompute: none"],
}
"""Of rows: how the lines of what is assumed begin; none for the others."""


@pytest.mark.parametrize("name", ROWS)
def test_a_row_runs_as_it_says(runs: Runs, name: str) -> None:
    row = ROWS[name]
    assert is_row(row)
    config, assumed = of_row({"id": name, "model_name": name, **row}, "runs.yaml")
    for where, value in SAID[name].items():
        found: Any = config
        for key in where.split("."):
            found = found[key]
        assert found == value, where
    expected = ASSUMED.get(name, [])
    assert len(assumed) == len(expected)
    assert all(line.startswith(begins) for line, begins in zip(assumed, expected, strict=True))
    # Every GPU of the cluster is in the job, every sequence in a batch.
    parallel, cut = row["parallel"], config["parallel"]
    assert cut.get("tensor", 1) * cut.get("context", 1) * cut["pipeline"] * cut["data"] == row["cluster"]["gpus"]
    result = runs(config)
    assert result.micro_batches * config["training"]["micro_batch_size"] * parallel["dp"] == row["global_batch"]


TOTALS = {
    "gpt-3.6b": 3.6, "gpt-174.6b": 174.6, "llama3-8b": 8.03, "llama3.1-405b": 405.9, "deepseek-v3": 671.0,
    "gpt-oss-120b": 116.8, "qwen3-235b-a22b": 235.1, "gpt-1.5b": 1.5, "mpt-3b": 2.65, "nemotron4-340b": 341.0,
}  # fmt: skip
"""Billions of parameters that the sources give their models."""


@pytest.mark.parametrize(("name", "billions"), TOTALS.items())
def test_models_are_as_large_as_they_are_said_to_be(name: str, billions: float) -> None:
    model = read(Model, of_row(ROWS[name], "runs.yaml").config["model"], "model")
    assert model.parameters().total / 1e9 == pytest.approx(billions, rel=0.02)


SMALL: Row = {
    "id": "small", "model": {"layers": 8, "hidden": 256, "heads": 8, "kv_heads": 4, "head_dim": 32, "ffn": 1024,
    "activation": "swiglu", "vocab": 1024, "tied_embedding": False}, "cluster": {"gpu": "h100-80g-sxm", "gpus": 8},
    "parallel": {"tp": 1, "pp": 2, "dp": 4, "zero": 1}, "schedule": "1f1b", "seq_len": 128, "global_batch": 32,
    "micro_batch": 1, "precision": "bf16", "recompute": "none",
}  # fmt: skip
EXPERTS: Row = {"routed": 8, "active": 2, "ffn": 64}


def changed(where: str, value: object, row: Row = SMALL) -> Row:
    """Return a row with another value, ``...`` for none."""
    key, _, inner = where.partition(".")
    if inner:
        return row | {key: changed(inner, value, row[key])}
    return {name: one for name, one in row.items() if name != key} if value is ... else row | {key: value}


SCHEDULES: list[tuple[str, int | None, dict[str, Any], list[str]]] = [
    ("1f1b", None, {"name": "1f1b"}, []),
    ("1f1b", 1, {"name": "1f1b"}, []),
    ("1f1b", 2, {"name": "interleaved-1f1b", "stages_per_rank": 2}, []),
    ("interleaved-1f1b", 4, {"name": "interleaved-1f1b", "stages_per_rank": 4}, []),
    ("interleaved-1f1b", None, {"name": "interleaved-1f1b", "stages_per_rank": 2}, ["parallel.vpp: 2"]),
    # The paper's limits (section 4): activations of as many micro-batches as 1F1B holds, and twice as many.
    ("zb-auto (ZB-1p)", None, {"name": "zb-auto", "memory_limit": 2}, []),
    ("zb-auto (ZB-2p)", None, {"name": "zb-auto", "memory_limit": 4}, []),
    ("dualpipe", None, {"name": "dualpipe"}, []),
]


@pytest.mark.parametrize(("words", "chunks", "schedule", "assumed"), SCHEDULES)
def test_schedules(runs: Runs, words: str, chunks: int | None, schedule: Row, assumed: list[str]) -> None:
    config, named = of_row(changed("parallel.vpp", chunks, changed("schedule", words)), "runs.yaml")
    assert (config["schedule"], list(named)) == (schedule, assumed)
    runs(config)


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ("bf16", "bf16"), ("fp16", "fp16"), ("fp8", "fp8-tensor"), ("fp8-ds", "fp8-tensor"), ("fp8-cs", "fp8-tensor"),
        ("fp8-tensorwise", "fp8-tensor"), ("fp8-rowwise", "fp8-tensor"), ("fp8-blockwise", "fp8-block"),
        ("fp8-deepseek", "fp8"), ("mxfp8", "mxfp8"), ("nvfp4", "nvfp4"),
    ],
)  # fmt: skip
def test_precisions(runs: Runs, words: str, precision: str) -> None:
    row = changed("cluster.gpu", "b200-180g-sxm", changed("precision", words))
    config = of_row(row, "runs.yaml").config
    assert config["training"]["precision"] == precision
    runs(config)


RECOMPUTED: list[tuple[object, str, object, list[str]]] = [
    ("none", "Megatron-LM", "none", []),
    ("full", "Megatron-LM", "full", []),
    ("selective", "Megatron-LM", "selective", []),
    ("selective (per op)", "Megatron-LM", "selective", []),
    ("selective (per op)", "torchtitan", ["norms", "activation", "alternate"], ["recompute", "attention_kernel"]),
    ("selective (per op)", "PyTorch FSDP", ["norms", "activation"], []),
    ("not stated", "Megatron-LM", "none", ["recompute"]),
    ("recipe default", "Megatron-Bridge", "none", ["recompute"]),
    ("none (selective in v3.0 not excluded)", "NeMo", "none", ["recompute"]),
    (["norm", "act"], "Megatron-Core", ["norms", "activation"], []),
    (["core_attn", "mlp"], "Megatron-Core", ["core", "mlp"], []),
]


@pytest.mark.parametrize(("words", "framework", "means", "assumed"), RECOMPUTED)
def test_words_about_recomputation(
    runs: Runs, words: object, framework: str, means: object, assumed: list[str]
) -> None:
    config, named = of_row(changed("framework", framework, changed("recompute", words)), "runs.yaml")
    assert (config["training"]["recompute"], [line.partition(":")[0] for line in named]) == (means, assumed)
    runs(config)


@pytest.mark.parametrize(
    ("words", "gpus", "gigabytes"),
    [
        ("8 x HDR200 InfiniBand a node, NVSwitch 600 GB/s a GPU (bidirectional)", 8, 25.0),
        ("8 x NDR400 InfiniBand a node, NVLink 900 GB/s a GPU (bidirectional)", 8, 50.0),
        ("4 x HDR200 InfiniBand a node (800 Gb/s, from the config)", 8, 12.5),
        ("4 x NDR400 InfiniBand a node", 4, 50.0),
        ("1600 Gb/s RoCE a node", 8, 25.0),
        ("3200 Gb/s InfiniBand a node (assumed)", 8, 50.0),
        ("4 x HDR Omni-Path/InfiniBand 100 Gb/s a node assumed", 8, 6.25),
        ("400 Gb/s RDMA a GPU", 8, 50.0),
        ("CX-7 400 Gb/s a GPU", 8, 50.0),
        ("NVIDIA Ampere, 200 Gb/s a GPU assumed", 8, 25.0),
        ("RoCE between nodes", 8, None),
        ("InfiniBand, not stated", 8, None),
        ("one node", 8, None),
        ("", 8, None),
    ],
)
def test_words_about_a_network_are_a_bandwidth_a_gpu(words: str, gpus: int, gigabytes: float | None) -> None:
    found = nic_bytes_per_s(words, gpus)
    assert found == (None if gigabytes is None else pytest.approx(gigabytes * 1e9))


def test_every_second_or_sixth_layer_sees_all() -> None:
    for every in (2, 6):
        config = of_row(changed("model.window", {"size": 64, "every": every}), "runs.yaml").config
        layers = read(Model, config["model"], "model").layer_kinds()
        windows = [getattr(layer.attention, "window", 0) for layer in layers]
        assert windows == [0 if (layer + 1) % every == 0 else 64 for layer in range(8)]


def test_shares_of_weights(runs: Runs) -> None:
    """ZeRO by its stage, FSDP by as many GPUs as share the weights; of which ``no reshard`` gathers them once."""
    for zero in (0, 1, 2, 3):
        parallel = of_row(changed("parallel.zero", zero), "runs.yaml").config["parallel"]
        assert (parallel["zero"], "fsdp" in parallel) == (zero, False)
    sharded = changed("parallel.fsdp", 2, changed("parallel.zero", 3))
    config = of_row(sharded, "runs.yaml").config
    assert config["parallel"]["fsdp"] == 2
    assert "gathers" not in config["parallel"]
    runs(config)
    config = of_row(changed("framework", "Meta, FSDP (no reshard after forward)", sharded), "runs.yaml").config
    assert config["parallel"]["gathers"] == "once"
    runs(config)


def test_experts_and_their_degrees(runs: Runs) -> None:
    row = changed("model.experts", EXPERTS | {"shared": 2}, changed("parallel.ep", 4))
    config = of_row(changed("model.dense_layers", 2, row), "runs.yaml").config
    model = read(Model, config["model"], "model")
    assert model.dense_layers == 2
    assert model.experts is not None
    assert (model.experts.routed, model.experts.active, model.experts.shared_ffn) == (8, 2, 128)  # both of 64 together
    assert config["parallel"]["expert"] == 4
    runs(config)


def test_kernels_say_whether_scores_are_stored() -> None:
    def stored(**row: object) -> tuple[bool, int]:
        config, assumed = of_row(SMALL | row, "runs.yaml")
        return "stored_scores" in config["model"]["attention"], len(assumed)

    assert stored() == (False, 0)
    assert stored(framework="Megatron-LM 2022") == (True, 1)
    assert stored(framework="Megatron-LM 2022", attention_kernel="flash_attention2") == (False, 0)
    assert stored(framework="Aleph Alpha scaling (torch)", attention_kernel="torch") == (True, 0)
    assert stored(framework="NeMo 24.07") == (False, 0)


def test_what_is_said_of_stack_and_optimizer_is_taken(runs: Runs) -> None:
    optimizer = {"kind": "adam", "main_weights": None, "moments": "bf16", "gradients": "bf16"}
    config, assumed = of_row(SMALL | {"stack": "torch-compile", "optimizer": optimizer}, "runs.yaml")
    assert config["stack"] == "torch-compile"
    assert config["training"]["optimizer"] == {"main_weights": "none", "moments": "bf16", "gradients": "bf16"}
    assert assumed == ()
    runs(config)


WRONG: list[Any] = [
    *((f"model.{key}", ..., f"model.{key}: must be a whole number, got None") for key in (
        "layers", "hidden", "heads", "head_dim", "vocab")),
    ("model.hidden", "big", "model.hidden: must be a whole number, got 'big'"),
    ("model.hidden", 2.5, "model.hidden: must be a whole number, got 2.5"),
    ("model.hidden", True, "model.hidden: must be a whole number, got True"),
    ("model.hidden", [256], "model.hidden: must be a whole number, got [256]"),
    ("model.experts", {"routed": 8}, "model.experts.active: must be a whole number, got None"),
    ("model.mla", {"q_lora": 64}, "model.mla.qk_head: must be a whole number, got None"),
    ("model.window", {"size": 64}, "model.window.every: must be a whole number, got None"),
    ("model", None, "model: must be a mapping, got None"),
    ("parallel", "tp", "parallel: must be a mapping, got 'tp'"),
    ("parallel.dp", ..., "parallel.dp: must be a whole number, got None"),
    ("cluster.gpus", ..., "cluster.gpus: must be a whole number, got None"),
    ("seq_len", None, "row.seq_len: must be a whole number, got None"),
    ("global_batch", "all", "row.global_batch: must be a whole number, got 'all'"),
    ("recompute", ["everything"], "recompute: 'everything' is not known; known: core_attn, "),
    ("model.hidden", float("inf"), "model.hidden: must be a whole number, got inf"),
    ("model.hidden", float("nan"), "model.hidden: must be a whole number, got nan"),
    ("micro_batch", "one", "row.micro_batch: must be a whole number, got 'one'"),
    ("micro_batch", [1], "row.micro_batch: must be a whole number, got [1]"),
    ("micro_batch", 2.5, "row.micro_batch: must be a whole number, got 2.5"),
    ("parallel.vpp", "two", "parallel.vpp: must be a whole number, got 'two'"),
    ("parallel.pp", 0, "parallel.pp: must be 1 or more, got 0"),
    ("cluster.gpus_per_node", "8", "cluster.gpus_per_node: must be a whole number, got '8'"),
    ("cluster.gpus_per_node", -1, "cluster.gpus_per_node: must be 1 or more, got -1"),
    ("cluster.nvlink_domain", 7.5, "cluster.nvlink_domain: must be a whole number, got 7.5"),
    ("recompute", [{"core_attn": True}], "recompute: {'core_attn': True} is not known; known: core_attn, "),
    ("cluster.gpus", 16, "cluster.gpus: must be tensor 1 x context 1 x pipeline 2 x data 4 = 8, got 16"),
    ("cluster.gpus", -8, "cluster.gpus: must be 1 or more, got -8"),
    ("model.experts", "many", "model.experts: must be a mapping, got 'many'"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "value", "message"), WRONG)
def test_what_a_row_lacks_or_says_wrongly_is_said(refusal: Refusal, where: str, value: object, message: str) -> None:
    row = changed(where, value)
    assert refusal(lambda: of_row(row, "runs.yaml")).startswith(f"runs.yaml: small: {message}")


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("cluster.gpu", ..., "gpu: there is no preset of 'None'"),
        ("cluster.gpu", "h10", "gpu: there is no preset of 'h10'; did you mean 'h100'?"),
        ("schedule", "1f2b", "unknown schedule '1f2b'"),
        ("precision", "fp7", "training.precision: must be "),
        ("global_batch", 33, "training.global_batch: 33 sequences are no whole micro-batches"),
        ("parallel.fsdp", 3, "parallel.fsdp: 3 GPUs are no share of the 4"),
        ("parallel.zero", 4, "parallel.zero: must be 0, 1, 2 or 3, got 4"),
        ("parallel.ep", 2, "parallel.expert: "),
        ("model.layers", 0, "model.layers: must be more than 0"),
        ("model.ffn", ..., "model.ffn: is missing"),
        ("cluster.interconnect", "0 Gb/s a GPU", "cluster.infiniband.bandwidth: must be more than zero"),
        ("stack", "jax", "stack: must be "),
    ],
)
def test_what_cannot_be_is_refused(runs: Runs, refusal: Refusal, where: str, value: object, message: str) -> None:
    row = changed(where, value)
    assert message in refusal(lambda: runs(of_row(row, "runs.yaml").config))


@pytest.mark.parametrize("key", ["model", "cluster", "parallel", "seq_len"])
def test_what_lacks_a_part_is_no_row(key: str) -> None:
    assert is_row(SMALL)
    assert not is_row(changed(key, ...))
    assert not is_row(SMALL | {"model": "llama3-8b"})
