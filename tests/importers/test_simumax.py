"""SimuMax's files: parameters are those of the published models, sizes and stages those of its own code.

Facts are of https://github.com/MooreThreads/SimuMax, ``simumax/core`` (4dcaae5).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from dualpipe_sim.config.records import read as read_record
from dualpipe_sim.errors import UserError
from dualpipe_sim.importers import simumax
from dualpipe_sim.model.architecture import Model

if TYPE_CHECKING:
    from tests.importers.conftest import Runs

Keys: TypeAlias = dict[str, Any]
Folder: TypeAlias = Callable[..., tuple[Keys, list[str]]]

LLAMA: Keys = {
    "model_type": "dense", "model_name": "llama3_8b", "hidden_size": 4096, "head_num": 32, "kv_head_num": 8,
    "head_size": 128, "intermediate_size": 14336, "layer_num": 32, "vocab_size": 128256, "use_swiglu": True,
}  # fmt: skip
DEEPSEEK: Keys = {
    "model_type": "moe", "model_name": "deepseek_v3", "attention_type": "mla", "hidden_size": 7168, "head_num": 128,
    "kv_head_num": 128, "head_size": 128, "intermediate_size": 18432, "moe_ffn_hidden_size": 2048,
    "moe_shared_expert_intermediate_size": 2048, "layer_num": 61, "dense_layers": 3, "expert_num": 256,
    "v_head_dim": 128, "qk_head_dim": 128, "qk_pos_emb_head_dim": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
    "topk": 8, "vocab_size": 129280, "use_swiglu": True,
}  # fmt: skip
LITE = DEEPSEEK | {
    "model_name": "lite", "hidden_size": 2048, "head_num": 16, "kv_head_num": 16, "intermediate_size": 10944,
    "moe_ffn_hidden_size": 1408, "moe_shared_expert_intermediate_size": 2816, "layer_num": 27, "dense_layers": 1,
    "expert_num": 64, "q_lora_rank": None, "topk": 6, "vocab_size": 102400,
}  # fmt: skip
MIXTRAL = LLAMA | {"model_name": "mixtral", "vocab_size": 32000, "expert_num": 8, "topk": 2}
STRATEGY: Keys = {
    "seq_len": 4096, "micro_batch_size": 1, "micro_batch_num": 8, "dtype": "bf16", "world_size": 8, "tp_size": 1,
    "pp_size": 1, "ep_size": 1, "etp_size": 1, "enable_recompute": False, "cross_entropy_loss_fusion": True,
}  # fmt: skip
SYSTEM: Keys = {
    "sys_name": "b200_bf16", "num_per_node": 8,
    "accelerator": {"mem_gbs": 180, "op": {}}, "networks": {"intra_with_pcie": False},
}  # fmt: skip


def _read(path: Path) -> tuple[Keys, list[str]]:
    config, unread = simumax.read(path)
    return config, list(unread)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Read a folder with a model, a strategy and a system."""

    def read(model: Keys = LLAMA, system: Keys = SYSTEM, gpus: int | None = None, gpu: str | None = None,
             **strategy: object) -> tuple[Keys, list[str]]:  # fmt: skip
        for name, values in {"m": model, "st": STRATEGY | strategy, "sy": system}.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
        config, unread = simumax.read(tmp_path, gpus=gpus, gpu=gpu)
        return config, [line for line in unread if not line.startswith("system: accelerator: ")]

    return read


@pytest.mark.parametrize(
    ("keys", "total"),
    [
        (LLAMA, 8_030_261_248),
        (DEEPSEEK, 671_026_404_352),
        (LITE, 15_706_484_224),
        (MIXTRAL, 46_702_792_704),
        (LLAMA | {"layer_num": 80, "hidden_size": 8192, "head_num": 64, "intermediate_size": 28672}, 70_553_706_496),
    ],
)
def test_models_have_as_many_parameters_as_the_published_weights(tmp_path: Path, keys: Keys, total: int) -> None:
    path = tmp_path / "model.json"
    path.write_text(json.dumps(keys), encoding="utf-8")
    config, unread = _read(path)
    assert list(config) == ["model"]
    assert unread == []
    assert read_record(Model, config["model"], "model").parameters().total == total


def test_a_model_says_what_of_it_is_not_modelled(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    keys = {key: value for key, value in MIXTRAL.items() if key != "model_name"}
    path.write_text(json.dumps(keys | {"capacity": 2, "use_swiglu": False, "gadget": 1}), encoding="utf-8")
    config, unread = _read(path)
    assert (config["model"]["name"], config["model"]["activation"]) == ("mine", "gelu")
    assert [line.rpartition(": ")[0] for line in unread] == ["model: capacity: 2", "model: gadget: 1"]


def test_a_folder_is_a_configuration_that_runs(runs: Runs, folder: Folder) -> None:
    config, unread = folder(tp_size=2, pp_size=2, world_size=16)
    assert (config["gpu"], config["stack"]) == ("b200", "megatron")
    sizes = {"gpus": 16, "data": 4, "pipeline": 2, "tensor": 2, "context": 1, "expert": 1, "expert_tensor": 1}
    assert config["parallel"] == sizes | {"zero": 1, "sequence": True}
    assert config["pipeline"] == {"ranks": 2, "micro_batches": 8, "layout": [16, 16], "runtime": "megatron"}
    assert config["training"]["optimizer"] == {"main_weights": "fp32", "moments": "fp32", "gradients": "fp32"}
    assert config["training"]["recompute"] == "none"
    assert config["model"]["vocabulary"] == 128_256  # 501 times 128 x 2
    assert unread == []
    assert runs(config).micro_batches == 8


def test_the_vocabulary_is_padded_as_megatron_pads_it(folder: Folder) -> None:
    assert folder(LLAMA | {"vocab_size": 128_257})[0]["model"]["vocabulary"] == 128_384
    assert folder(LLAMA | {"vocab_size": 128_257}, tp_size=8)[0]["model"]["vocabulary"] == 129_024
    assert folder(LLAMA | {"vocab_size": 128_257, "padded_vocab_size": False})[0]["model"]["vocabulary"] == 128_257


def test_experts_context_and_other_gpus(runs: Runs, folder: Folder) -> None:
    config, unread = folder(LITE, ep_size=4, cp_size=2, grad_reduce_in_bf16=True, overlap_grad_reduce=False)
    parallel = config["parallel"]
    assert (parallel["expert"], parallel["context"], parallel["data"]) == (4, 2, 4)
    assert parallel["context_exchange"] == "all-to-all"
    assert config["training"]["optimizer"]["gradients"] == "bf16"
    assert config["training"]["gradient_reduction"] == "after"
    assert unread == []
    runs(config)
    assert folder(LITE, gpus=32, gpu="h100")[0]["parallel"]["data"] == 32
    assert folder(LITE, gpu="h100")[0]["gpu"] == "h100"


@pytest.mark.parametrize(
    ("strategy", "layout"),
    [
        ({"pp_size": 4}, [8, 8, 8, 8]),
        ({"pp_size": 4, "interleaving_size": 2}, [4] * 8),
        ({"pp_size": 4, "num_layers_in_first_pipeline_stage": 6, "num_layers_in_last_pipeline_stage": 6},
         [6, 10, 10, 6]),
        ({"pp_size": 8, "num_layers_in_last_pipeline_stage": 4}, [4] * 8),
        ({"pp_size": 2, "num_layers_in_first_pipeline_stage": 15, "num_layers_in_last_pipeline_stage": 17}, [15, 17]),
        # Both chunks of the last rank share out its 4 layers.
        ({"pp_size": 8, "interleaving_size": 2, "num_layers_in_last_pipeline_stage": 4}, [2] * 16),
    ],
)  # fmt: skip
def test_layers_of_stages(runs: Runs, folder: Folder, strategy: Keys, layout: list[int]) -> None:
    config, unread = folder(**strategy)
    assert config["pipeline"]["layout"] == layout
    assert unread == []
    runs(config)


def test_embedding_and_loss_may_count_as_layers(folder: Folder) -> None:
    both = {"account_for_embedding_in_pipeline_split": True, "account_for_loss_in_pipeline_split": True}
    config, _ = folder(LLAMA | {"layer_num": 30}, pp_size=4, interleaving_size=2, **both)
    assert config["pipeline"]["layout"] == [3, 4, 4, 4, 4, 4, 4, 3]


def test_interleaving_goes_in_groups_of_ranks(runs: Runs, folder: Folder) -> None:
    config, _ = folder(pp_size=4, interleaving_size=2, pp_comm_async=False)
    assert config["schedule"] == {"name": "interleaved-1f1b", "stages_per_rank": 2, "group": 4}
    assert config["pipeline"]["runtime"] == {"name": "megatron", "overlap_p2p_comm": False}
    config, _ = folder(pp_size=2, interleaving_size=2, microbatch_group_size_per_vp_stage=4)
    assert (config["schedule"]["group"], config["pipeline"]["runtime"]) == (4, "megatron")
    runs(config)


PARTIAL = {"full": True, "layers": 12, "norms": False, "up_projections": False, "activation": False}

RECOMPUTED: list[tuple[Keys, object, int]] = [
    ({"recompute_granularity": "full_block", "recompute_layer_num": 12}, PARTIAL, 0),
    ({"recompute_granularity": "full_block", "recompute_layer_num": 32}, "full", 0),
    ({"recompute_granularity": "full_block", "recompute_layer_num": 0}, "none", 0),
    ({"recompute_granularity": "full_block", "recompute_layer_num": 9, "enable_recompute": False}, "none", 0),
    ({"recompute_granularity": "sdp_only", "recompute_layer_num": 32}, ["core"], 0),
    ({"recompute_granularity": "selective_recompute", "recompute_layer_num": 32, "attn_recompute": True,
      "mlp_recompute": True}, ["up_projections", "core", "mlp", "moe"], 1),
    ({"recompute_granularity": "selective_recompute", "recompute_layer_num": 12, "megatron_recompute": True,
      "megatron_recompute_modules": ["layernorm", "mlp"]}, ["norms", "mlp"], 1),
    ({"recompute_granularity": "selective_recompute", "recompute_layer_num": 12}, "none", 0),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "recompute", "lines"), RECOMPUTED)
def test_recomputation(runs: Runs, folder: Folder, strategy: Keys, recompute: object, lines: int) -> None:
    config, unread = folder(**{"enable_recompute": True, **strategy})
    assert config["training"]["recompute"] == recompute
    assert len(unread) == lines
    runs(config)


@pytest.mark.parametrize(
    ("name", "memory", "gpu"),
    [
        ("a100_pcie_bf16", 80, "a100"),
        ("A100-40G", 40, "a100-40g"),
        ("h100_nvlink_ib_bf16", 80, "h100"),
        ("GB200", 180, "gb200"),
        ("H20", 96, "h20"),
        ("h200_sxm", 141, "h200"),
    ],
)
def test_gpus_by_name(runs: Runs, folder: Folder, name: str, memory: int, gpu: str) -> None:
    config, _ = folder(system=SYSTEM | {"sys_name": name, "accelerator": {"mem_gbs": memory}})
    assert config["gpu"] == gpu
    runs(config)


def test_nodes_of_other_sizes_and_pcie(runs: Runs, folder: Folder) -> None:
    system = SYSTEM | {"sys_name": "h200", "num_per_node": 4, "networks": {"intra_with_pcie": True}}
    config, unread = folder(system=system)
    assert config["cluster"] == {"preset": "h100-ib", "gpus_per_node": 4}
    assert list(unread) == ["system: networks.intra_with_pcie: GPUs of a node are behind NVLink here"]
    runs(config)


def test_what_is_not_modelled_is_said(folder: Folder) -> None:
    config, unread = folder(
        fp8=True, cross_entropy_loss_fusion=False, attention_sparse_ratio=0.5, use_fused_norm=False,
        tp_net="inter_node", mem_factor=0.9,
        enable_straggler_model=True, te_version="2.3", dp_net="auto", invented=1, use_math_sdp=True,
    )  # fmt: skip
    assert config["training"]["precision"] == "fp8-tensor"
    assert config["model"]["attention"]["stored_scores"] is True
    assert sorted(line.split(": ")[1] for line in unread) == [
        "attention_sparse_ratio",
        "cross_entropy_loss_fusion",
        "enable_straggler_model",
        "fp8",
        "invented",
        "te_version",
        "tp_net",
        "use_fused_norm",
    ]


def test_rates_of_the_system_are_not_taken_and_that_is_said(folder: Folder, tmp_path: Path) -> None:
    folder()
    _, unread = simumax.read(tmp_path)
    assert list(unread) == ["system: accelerator: rates, efficiencies and the memory of 180 GB are those of b200 here"]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"tp_size": 3}, "st.json: world_size: 8 GPUs are no multiple of 3"),
        ({"pp_size": 8, "interleaving_size": 3}, "st.json: pp_size: 4 layers of a rank cannot be shared out"),
        ({"seq_len": None}, "st.json: seq_len: is missing"),
        ({"dtype": "fp64"}, "st.json: dtype: must be 'bf16' or 'fp16'"),
        ({"zero_state": 4}, "st.json: zero_state: must be 0, 1, 2 or 3"),
        ({"micro_batch_num": True}, "st.json: micro_batch_num: must be a whole number from 1 up, got True"),
        ({"pp_size": 2, "num_layers_in_last_pipeline_stage": 40}, "st.json: num_layers_in_last_pipeline_stage: leaves"),
        ({"enable_recompute": True, "recompute_granularity": "some", "recompute_layer_num": 1},
         "st.json: recompute_granularity: must be"),
        ({"enable_recompute": True, "recompute_granularity": "selective_recompute", "recompute_layer_num": 1,
          "megatron_recompute": True, "megatron_recompute_modules": ["core_attn"]}, "got 'core_attn'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(folder: Folder, strategy: Keys, message: str) -> None:
    with pytest.raises(UserError) as error:
        folder(**strategy)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_folders_and_files_that_are_none(tmp_path: Path, folder: Folder) -> None:
    def fails(path: Path, message: str) -> None:
        with pytest.raises(UserError) as error:
            simumax.read(path)
        assert message in str(error.value)
        assert "\n" not in str(error.value)

    fails(tmp_path, "has no model and no strategy and no system")
    folder()
    fails(tmp_path / "st.json", "is a strategy alone")
    fails(tmp_path / "none.json", "cannot be read")
    (tmp_path / "m2.json").write_text(json.dumps(LITE), encoding="utf-8")
    fails(tmp_path, "has two of a model, m.json and m2.json")
    (tmp_path / "m2.json").write_text("{", encoding="utf-8")
    fails(tmp_path / "m2.json", "is no JSON")
    (tmp_path / "m2.json").write_text('{"a": 1}', encoding="utf-8")
    fails(tmp_path / "m2.json", "is none of SimuMax's files")


def test_a_gpu_that_is_not_known(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"sys_name: 'mtt_s5000' names no GPU that is known .*give one"):
        folder(system=SYSTEM | {"sys_name": "mtt_s5000"})
    assert folder(system=SYSTEM | {"sys_name": "mtt_s5000"}, gpu="a100")[0]["gpu"] == "a100"
