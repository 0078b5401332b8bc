"""Megatron-LM's arguments: shapes, degrees and stages are what Megatron's own code makes of them.

Facts are of https://github.com/NVIDIA/Megatron-LM at d98e8a64: ``megatron/training/arguments.py`` (defaults,
``validate_args``) and ``megatron/core``; the models' shapes are those of the recipes of
https://github.com/NVIDIA-NeMo/Megatron-Bridge at 067f987d (Apache-2.0), their parameters those of published weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe_sim import simulate
from dualpipe_sim.cli.imports import model_of
from dualpipe_sim.config import load_experiment
from dualpipe_sim.config.presets import presets
from dualpipe_sim.config.records import read
from dualpipe_sim.config.yaml_text import as_block, read_yaml
from dualpipe_sim.errors import UserError
from dualpipe_sim.importers import megatron
from dualpipe_sim.importers.arguments import Arguments
from dualpipe_sim.importers.imported import Imported
from dualpipe_sim.importers.shell import flags_of
from dualpipe_sim.model.architecture import Model, Parameters

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.importers.conftest import Refusal, Runs

MODERN = (
    "--normalization RMSNorm --position-embedding-type rope --untie-embeddings-and-output-weights "
    "--attention-dropout 0.0 --hidden-dropout 0.0 --bf16 "
)
SMALL = (
    f"{MODERN} --swiglu --disable-bias-linear --num-layers 8 --hidden-size 256 --num-attention-heads 8 "
    "--seq-length 256 --max-position-embeddings 256 --vocab-size 1024 --global-batch-size 64 "
)
EXPERTS = "--num-experts 8 --moe-ffn-hidden-size 64 "


def small(flags: str = "", gpus: int | None = 8) -> Imported:
    """Return the configuration of a model of 8 small layers, on 8 GPUs."""
    return megatron.of_text(f"{SMALL}\n{flags}", "run.sh", gpus=gpus)


def names(lines: tuple[str, ...]) -> list[str]:
    """Return what lines are of."""
    return [line.partition(":")[0] for line in lines]


# Text

TEXTS = {
    "--a 3 --b 4": {"a": "3", "b": "4"},
    "--a 3  # three, it's said\n# --b 4\n--c 5": {"a": "3", "c": "5"},
    "train.py \\\n  --a 3 \\\n  --b \\\n  --c x\n": {"a": "3", "b": True, "c": "x"},
    "--a 3\r\n--b 4\r\n": {"a": "3", "b": "4"},
    "--use_distributed_optimizer --num_layers 4 --a_b=3": {
        "use-distributed-optimizer": True,
        "num-layers": "4",
        "a-b": "3",
    },
    "--a=3": {"a": "3"},
    "--a -1 --lr 1e-5 --b .5": {"a": "-1", "lr": "1e-5", "b": ".5"},
    "--a core_attn moe_act --b": {"a": ["core_attn", "moe_act"], "b": True},
    "--a 3 --a 4": {"a": "4"},  # as argparse has it: the last one
    "--a x y --a z": {"a": "z"},
    "TP=2\n--a $TP --b ${TP} --c '$TP'": {"a": "2", "b": "2", "c": "2"},
    "export TP=2\nreadonly PP=4\n--a $TP --b $PP": {"a": "2", "b": "4"},
    "X=1\nX=2\n--a $X": {"a": "2"},
    "--a ${TP:-4} --b ${PP-8}": {"a": "4", "b": "8"},
    "TP=${TP:-4}\n--a ${TP:-8}": {"a": "4"},
    "TP=2\nPP=4\n--a $(($TP*8)) --b $((${TP}*$PP+1)) --c $(($PP/2))": {"a": "16", "b": "9", "c": "2"},
    "ARGS=(\n  --a 3\n  --b\n)\nMORE+=(\n  --c 4\n)\nrun ${ARGS[@]} ${MORE[@]}": {"a": "3", "b": True, "c": "4"},
    'ARGS="--a 3 --b"\nrun $ARGS': {"a": "3", "b": True},
    'if [ "$TP" -gt 1 ]; then\n  MORE="--sequence-parallel"\nfi': {"sequence-parallel": True},
    "--bf16 ${DATA_ARGS[@]} --a 3": {"bf16": True, "$DATA_ARGS": True, "a": "3"},
    "python train.py $COMMON --a 3 $MORE": {"$COMMON": True, "a": "3", "$MORE": True},
    '--seed 1 "$@"': {"seed": "1"},
    "case $1 in\n  --a) A=$2; shift ;;\nesac\n--b 3": {"b": "3"},
    "--a $(nproc) --b `hostname` --c x$(date +%s)": {"a": "$(nproc)", "b": "`hostname`", "c": "x$(date +%s)"},
    'DIR=$(dirname "$0")\n--save $DIR/out': {"save": '$(dirname "$0")/out'},
    'A=""\n--a ${A:-4} --b x$A $A': {"a": "4", "b": "x"},
    'A="--a 3"\nA="$A --b 4"\nA+=" --c"\nrun $A': {"a": "3", "b": "4", "c": True},
    "--train.lr=3 --a 4": {"train.lr": "3", "a": "4"},
    "torchrun --nnodes 2 -m train --a 3": {"nnodes": "2", "a": "3"},
    'A=${1:-"x"}\nB="${A:-"y"}/$(date "+%s")"\n--a $A --b $B': {"a": "x", "b": 'x/$(date "+%s")'},
    "srun --ntasks 8 --output=x bash -c 'cd /x && torchrun --nnodes 2 train.py --a 3'": {"nnodes": "2", "a": "3"},
    "mpirun --hostfile x python train.py --a 3\npip install --upgrade y": {"a": "3"},
    'A="--a 3 $A"\nB="$C --b"\nC="$B --c"\nrun $A $B $C': {"a": "3", "b": True, "c": True},
    "ROOT=$(git rev-parse --show-toplevel)\n--a 3": {"a": "3"},
    "A=$((2+3*4)) B=$(( (2+3)*4 ))\n--a $A --b $B --c $((B%3))": {"a": "14", "b": "20", "c": "2"},
    "--layout 'Et*3|(tt|)*29m|L'": {"layout": "Et*3|(tt|)*29m|L"},
    '--layout "Et*3|(tt|)*29m|L"': {"layout": "Et*3|(tt|)*29m|L"},
    r"--layout Et\*3\|\(tt\|\)\*29m\|L": {"layout": "Et*3|(tt|)*29m|L"},
    "--freq ([0]*3+[1]*58)": {"freq": "([0]*3+[1]*58)"},
    "echo 'Usage: it takes no flags' -n 3\n--a 3": {"a": "3"},
    "--recompute_modules=core_attn": {"recompute-modules": "core_attn"},  # hyphens in the flag alone
    # A list of flags between quotes over several lines, as Megatron's own examples long had them.
    'ARGS="\n  --a 3 \\\n  --b\n"\nrun $ARGS': {"a": "3", "b": True},
    "ARGS=(--a 3)\nrun ${ARGS[@]}": {"a": "3"},
    "ARGS=(\n  --a\n  3\n  --b\n)": {"a": "3", "b": True},
    # An array's element with a space in it, which the shell splits, as in examples/llama/train_llama3_8b_h100_fp8.sh.
    'ARGS+=(\n  "--vocab-size 128256"\n  "--num-workers 1"\n)': {"vocab-size": "128256", "num-workers": "1"},
    "torchrun --nproc-per-node 8 --nnodes 2 pretrain_gpt.py --a 3": {"nproc-per-node": "8", "nnodes": "2", "a": "3"},
    "TP=2\n--a $((TP*8))": {"a": "16"},
    "TP=2\n--a $(( $TP * 8 ))": {"a": "16"},
    "TP=2\n--a=$TP": {"a": "2"},
    "TP=2; PP=4\n--a $TP --b $PP": {"a": "2", "b": "4"},
    "--a 3 > log.txt 2>&1": {"a": "3"},
    "--a 3 | tee log.txt": {"a": "3"},
    "--a 3 && echo done": {"a": "3"},
}


@pytest.mark.parametrize(("text", "flags"), TEXTS.items())
def test_a_script_says_flags(text: str, flags: dict[str, Any]) -> None:
    assert flags_of(text, "run.sh") == flags


UNREADABLE = [
    ('--a "3', "cannot be read as words: No closing quotation, in '\"3'"),
    ("--a it's", 'cannot be read as words: No closing quotation, in "it\'s"'),
    ("--a $TP", "--a: '$TP' is not said in the file; write it there, or give it with --set"),
    ("--a ${TP}", "--a: '${TP}' is not said in the file; write it there, or give it with --set"),
    ("--a $1", "--a: '$1' is not said in the file"),
    ("--a $(nproc)", "--a: '$(nproc)' is not said in the file"),
    ("--a $((TP*8))", "--a: '$((TP*8))' is not said in the file"),
    ("--a $((1/0))", "divides by zero"),
    ("--a $((1+))", "'$((1+))' is no sum"),
    ('X="--a \'b"', 'cannot be read as words: No closing quotation, in "\'b"'),
    ('X="--a $Y"', "--a: '$Y' is not said in the file"),
]


@pytest.mark.parametrize(("text", "message"), UNREADABLE)
def test_a_script_that_cannot_be_read_is_refused(refusal: Refusal, text: str, message: str) -> None:
    assert refusal(lambda: Arguments(flags_of(text, "run.sh"), "run.sh").text("a")).startswith(f"run.sh: {message}")


def test_what_a_script_gets_from_outside_counts_where_it_is_needed() -> None:
    assert small("--data-path $1 --save ${OUT}").unread == ()
    assert names(small("--bf16 $MORE_ARGS").unread) == ["$MORE_ARGS"]
    assert names(small("--swiglu $EXTRA --seed 1").unread) == ["$EXTRA"]


VOCABULARIES = [
    ("--tokenizer-type GPT2BPETokenizer", 50304, False),
    ("--vocab-file v.json --merge-file $2", 50304, False),  # GPT-2's, where a tokenizer is not named
    ("--tokenizer-type HuggingFaceTokenizer --tokenizer-model meta-llama/Llama-3.1-8B-Instruct", 128256, True),
    ("--tokenizer-type HuggingFaceTokenizer --tokenizer-model deepseek-ai/DeepSeek-V3", 129280, True),
    ("--tokenizer-type HuggingFaceTokenizer --tokenizer-model deepseek-ai/DeepSeek-V3 --vocab-size 1000", 1024, False),
]


@pytest.mark.parametrize(("flags", "rows", "named"), VOCABULARIES)
def test_vocabularies_that_tokenizers_say(flags: str, rows: int, *, named: bool) -> None:
    text = SMALL.replace("--vocab-size 1024", flags)
    config, unread = megatron.of_text(text, "run.sh", gpus=8)
    assert config["model"]["vocabulary"] == rows
    assert names(unread) == ["--vocab-size"] * named


def test_what_a_script_gets_from_outside_may_be_said() -> None:
    text = SMALL.replace("--vocab-size 1024", "--tensor-model-parallel-size ${TP} --micro-batch-size ${2:-1}")
    told = {"TP": "2", "2": "4", "vocab-size": "2048", "--bf16": "true"}
    config, unread = megatron.of_text(text, "run.sh", gpus=8, settings=told)
    assert config["parallel"]["tensor"] == 2
    assert config["training"]["micro_batch_size"] == 4
    assert (config["model"]["vocabulary"], unread) == (2048, ())
    around = {"gpus": 8, "MODEL_ARGS": as_mapping(SMALL)}
    config = megatron.of_mapping(around, "run.yaml", settings={"num-layers": "4"}).config
    assert config["model"]["layers"] == 4


def test_torchrun_says_how_many_gpus() -> None:
    launch = "NODES=2\nDISTRIBUTED=(\n  --nproc_per_node 4\n  --nnodes $NODES\n)\n"
    assert small(launch, gpus=None).config["parallel"]["data"] == 8
    assert small("--nproc-per-node 4", gpus=None).config["parallel"]["data"] == 4
    assert small(launch, gpus=16).config["parallel"]["data"] == 16  # what is said beside it comes first


@pytest.mark.parametrize(
    "launch",
    ["--nnodes 2", "--nproc-per-node 0", "--nproc-per-node gpu", "--nproc-per-node 8 --nnodes 1:4", "--nproc-per-node"],
)
def test_gpus_that_are_not_said_are_asked_for(refusal: Refusal, launch: str) -> None:
    assert "--gpus" in refusal(lambda: small(launch, gpus=None))


@pytest.mark.parametrize("line", ["torchrun --nproc_per_node 8 pretrain.py", "torchrun --nnodes 1 pretrain.py"])
def test_the_script_that_torchrun_runs_is_no_value(line: str) -> None:
    assert megatron.of_text(f"{line} --nproc_per_node 8 {SMALL}", "x").config["parallel"]["data"] == 8
    assert not isinstance(flags_of(line, "x").get("nnodes"), list)
    assert not isinstance(flags_of(line, "x").get("nproc-per-node"), list)


# YAML


def as_mapping(flags: str) -> dict[str, Any]:
    """Return flags as YAML has them, numbers as numbers."""
    found = flags_of(flags, "flags").items()
    return {f"--{flag}": int(one) if str(one).isdigit() else one for flag, one in found}


def test_yaml_says_what_a_script_says() -> None:
    flags = f"{SMALL} {EXPERTS} --moe-layer-freq ([0]*2+[1]*6) --recompute-activations --use-distributed-optimizer"
    around = {"gpus": 8, "model": "run", "MODEL_ARGS": as_mapping(flags)}
    assert megatron.of_mapping(around, "run.yaml") == megatron.of_text(flags, "run.sh", gpus=8)


@pytest.mark.parametrize(
    ("flag", "value", "where", "means"),
    [
        ("--use-distributed-optimizer", True, "parallel.zero", 1),
        ("--use-distributed-optimizer", "true", "parallel.zero", 1),
        ("--use-distributed-optimizer", None, "parallel.zero", 1),  # `--flag:` alone
        ("--use-distributed-optimizer", False, "parallel.zero", 0),
        ("--use-distributed-optimizer", "false", "parallel.zero", 0),
        ("--use_distributed_optimizer", True, "parallel.zero", 1),
        ("use-distributed-optimizer", True, "parallel.zero", 1),
        ("--global_batch_size", 32, "training.global_batch", 32),
        ("--global-batch-size", "32", "training.global_batch", 32),
        ("--recompute-modules", "core_attn layernorm", "training.recompute", ["core", "norms"]),
        ("--recompute-modules", ["core_attn", "layernorm"], "training.recompute", ["core", "norms"]),
    ],
)
def test_values_of_yaml(flag: str, value: object, where: str, means: object) -> None:
    args = as_mapping(SMALL) | {"--recompute-granularity": "selective", flag: value}
    config, unread = megatron.of_mapping({"gpus": 8, "MODEL_ARGS": args}, "run.yaml")
    section, key = where.split(".")
    assert config[section][key] == means
    assert unread == ()


def test_the_machine_is_said_beside_the_arguments(runs: Runs) -> None:
    args = as_mapping(SMALL)
    rack = {"gpu": "gb200-nvl72", "gpus": 32, "gpus_per_node": 4, "nvlink_domain": 72, "model": "Org/Small-1B"}
    config = megatron.of_mapping({**rack, "MODEL_ARGS": args}, "run.yaml").config
    # NVLink joins 72 GPUs, and the job has 32.
    assert (config["gpu"], config["cluster"]) == ("gb200", {"preset": "gb200-nvl72", "gpus_per_node": 32})
    assert config["model"]["name"] == "small-1b"
    runs(config)
    config = megatron.of_mapping({"gpus_per_node": 8, "gpus": 16, "MODEL_ARGS": args}, "run.yaml").config
    assert (config["gpu"], config["cluster"]["gpus_per_node"], config["parallel"]["data"]) == ("h100", 8, 16)


def test_options_come_before_what_a_file_says() -> None:
    data = {"gpu": "b200-180g-sxm", "gpus": 16, "MODEL_ARGS": as_mapping(SMALL)}
    config = megatron.of_mapping(data, "run.yaml", gpu="h200", gpus=4).config
    assert (config["gpu"], config["parallel"]["data"]) == ("h200", 4)


@pytest.mark.parametrize(
    ("around", "message"),
    [
        ({"MODEL_ARGS": None}, "run.yaml: MODEL_ARGS: must be a mapping of flags to values, got None"),
        ({"MODEL_ARGS": ["--bf16"]}, "run.yaml: MODEL_ARGS: must be a mapping"),
        ({"MODEL_ARGS": {}}, "run.yaml: --hidden-size: is missing"),
        ({"gpus": None}, "run.yaml: gpus: how many there are is not said; give --gpus"),
        ({"gpus": "many"}, "run.yaml: gpus: "),
        ({"gpus": 0}, "run.yaml: gpus: "),
        ({"gpus": True}, "run.yaml: gpus: "),
        ({"gpu": "h10"}, "gpu: there is no preset of 'h10'; did you mean 'h100'?"),
        ({"MODEL_ARGS": {"--hidden-size": "${H}"}}, "run.yaml: --hidden-size: '${H}' is not said in the file"),
        ({"gpus_per_node": "8"}, "run.yaml: gpus_per_node: must be a whole number of GPUs, got '8'"),
        ({"gpus_per_node": -1}, "run.yaml: gpus_per_node: must be a whole number of GPUs, got -1"),
        ({"nvlink_domain": [72]}, "run.yaml: nvlink_domain: must be a whole number of GPUs, got [72]"),
    ],
)
def test_yaml_that_is_wrong_is_refused(refusal: Refusal, around: dict[str, Any], message: str) -> None:
    data = {"gpus": 8, "MODEL_ARGS": as_mapping(SMALL), **around}
    assert refusal(lambda: megatron.of_mapping(data, "run.yaml")).startswith(message)


# Models

MODELS: dict[str, tuple[str, int | None]] = {
    "llama3-8b": (
        "--num-layers 32 --hidden-size 4096 --ffn-hidden-size 14336 --num-attention-heads 32 --group-query-attention "
        f"--num-query-groups 8 --kv-channels 128 --swiglu --disable-bias-linear --vocab-size 128256 {MODERN}",
        8_030_261_248,
    ),
    "llama3-70b": (
        "--num-layers 80 --hidden-size 8192 --ffn-hidden-size 28672 --num-attention-heads 64 --group-query-attention "
        f"--num-query-groups 8 --swiglu --disable-bias-linear --vocab-size 128256 {MODERN}",
        70_553_706_496,
    ),
    "deepseek-v3": (
        "--num-layers 61 --hidden-size 7168 --ffn-hidden-size 18432 --num-attention-heads 128 --kv-channels 128 "
        f"--swiglu --disable-bias-linear --vocab-size 129280 {MODERN} --multi-latent-attention --q-lora-rank 1536 "
        "--kv-lora-rank 512 --qk-head-dim 128 --qk-pos-emb-head-dim 64 --v-head-dim 128 --qk-layernorm "
        "--num-experts 256 --moe-router-topk 8 --moe-ffn-hidden-size 2048 --moe-shared-expert-intermediate-size 2048 "
        "--moe-layer-freq ([0]*3+[1]*58) --moe-router-score-function sigmoid --moe-router-num-groups 8 "
        "--moe-router-group-topk 4 --moe-router-enable-expert-bias --mtp-num-layers 1",
        671_026_404_352,
    ),
    "qwen3-30b-a3b": (
        "--num-layers 48 --hidden-size 2048 --ffn-hidden-size 6144 --num-attention-heads 32 --group-query-attention "
        f"--num-query-groups 4 --kv-channels 128 --swiglu --disable-bias-linear --vocab-size 151936 {MODERN} "
        "--qk-layernorm --num-experts 128 --moe-router-topk 8 --moe-ffn-hidden-size 768",
        30_532_122_624,
    ),
    "nemotron-3-nano-30b-a3b": (
        "--num-layers 52 --hybrid-layer-pattern MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME "
        "--hidden-size 2688 --ffn-hidden-size 1856 --num-attention-heads 32 --group-query-attention "
        "--num-query-groups 2 --kv-channels 128 --squared-relu --normalization RMSNorm --position-embedding-type none "
        "--untie-embeddings-and-output-weights --disable-bias-linear --mamba-state-dim 128 --mamba-num-heads 64 "
        "--mamba-head-dim 64 --mamba-num-groups 8 --vocab-size 131072 --num-experts 128 --moe-router-topk 6 "
        "--moe-ffn-hidden-size 1856 --moe-shared-expert-intermediate-size 3712 --bf16",
        31_577_937_344,
    ),
    "qwen3-next-80b-a3b": (
        "--num-layers 48 --hidden-size 2048 --ffn-hidden-size 5120 --num-attention-heads 16 --group-query-attention "
        f"--num-query-groups 2 --kv-channels 256 --swiglu --disable-bias-linear --vocab-size 151936 {MODERN} "
        "--qk-layernorm --attention-output-gate --rotary-percent 0.25 --linear-attention-type gated_delta_net "
        "--linear-attention-freq 4 --linear-conv-kernel-dim 4 --linear-key-head-dim 128 --linear-value-head-dim 128 "
        "--linear-num-key-heads 16 --linear-num-value-heads 32 --num-experts 512 --moe-router-topk 10 "
        "--moe-ffn-hidden-size 512 --moe-shared-expert-intermediate-size 512 --moe-shared-expert-gate",
        79_674_391_296,
    ),
    # Biases of all linear layers, gains and biases of LayerNorm, learned positions and a tied embedding, by default.
    "gpt3-175b": (
        "--num-layers 96 --hidden-size 12288 --num-attention-heads 96 --max-position-embeddings 2048 "
        "--tokenizer-type GPT2BPETokenizer --fp16",
        None,
    ),
}
"""Of presets: Megatron's arguments, and the parameters of the published weights."""

GPT_OSS = (
    "--num-layers 24 --hidden-size 2880 --ffn-hidden-size 2880 --num-attention-heads 64 --group-query-attention "
    f"--num-query-groups 8 --kv-channels 64 --swiglu --vocab-size 201088 {MODERN} --num-experts 32 --moe-router-topk 4 "
    "--moe-ffn-hidden-size 2880 --add-qkv-bias --softmax-type learnable --window-size 128,0 --window-attn-skip-freq 2"
)


def imported_model(flags: str, **options: Any) -> Model:  # noqa: ANN401 - an option of the importer
    """Return the model of arguments."""
    text = f"--seq-length 2048 {flags}"
    return read(Model, megatron.of_text(text, "run.sh", **{"gpus": 64, **options}).config["model"], "model")


def preset_model(name: str) -> Model:
    """Return the model of a preset."""
    return read(Model, read_yaml(presets("model")[name]), "model")


@pytest.mark.parametrize("tensor", [1, 8])
@pytest.mark.parametrize("name", MODELS)
def test_models_have_the_parameters_of_their_presets(name: str, tensor: int) -> None:
    flags, total = MODELS[name]
    preset, model = (
        preset_model(name),
        imported_model(f"{flags} --tensor-model-parallel-size {tensor} --sequence-parallel"),
    )
    # Megatron pads the vocabulary to multiples of 128 x tensor, of the embedding and of an untied head.
    multiple = 128 * tensor
    rows = -(-preset.vocabulary // multiple) * multiple - preset.vocabulary
    padding = Parameters(embedding=rows * preset.hidden, head=0 if preset.tied_embedding else rows * preset.hidden)
    assert model.parameters() == preset.parameters() + padding
    assert total in (preset.parameters().total, None)
    assert model.passed_parameters() == preset.passed_parameters() + padding.total


def test_multi_token_prediction_and_groups_are_those_of_deepseek() -> None:
    preset, model = preset_model("deepseek-v3"), imported_model(MODELS["deepseek-v3"][0])
    assert model.mtp_depth == preset.mtp_depth == 1
    assert model.mtp_parameters() == preset.mtp_parameters()
    assert model.experts is not None
    assert (model.experts.groups, model.experts.group_limit) == (8, 4)
    assert model.dense_layers == 3


def test_gpt_oss_has_a_window_in_every_second_layer_and_sinks() -> None:
    """Megatron's biases are of all linear layers, its router too (``core/transformer/moe/router.py``), as published."""
    model, preset = imported_model(GPT_OSS), preset_model("gpt-oss-20b")
    assert [kind.attention for kind in model.layer_kinds()] == [kind.attention for kind in preset.layer_kinds()]
    of_model, of_preset = model.parameters(), preset.parameters()
    assert (of_model.attention, of_model.routed, of_model.norms) == (
        of_preset.attention, of_preset.routed, of_preset.norms,
    )  # fmt: skip


def test_gpt_oss_has_the_published_number_of_parameters() -> None:
    assert imported_model(GPT_OSS).parameters().total == 20_914_757_184


SHAPES = [
    # What Megatron's defaults are.
    ("", "ffn", 4 * 256),
    ("--swiglu", "ffn", 640),  # 4 x 256 x 2/3 in whole 64s
    ("", "activation", "gelu"),
    ("--squared-relu", "activation", "relu2"),
    ("", "norm", "layer"),
    ("", "tied_embedding", True),
    ("", "positions", "learned"),
    ("", "max_positions", 512),
    ("--position-embedding-type none", "positions", "none"),
    ("--position-embedding-type yarn", "positions", "rotary"),
    ("", "vocabulary", 1024),
    ("--make-vocab-size-divisible-by 1000", "vocabulary", 1000),
    ("--padded-vocab-size 1001", "vocabulary", 1001),
    ("--tokenizer-type Llama2Tokenizer --vocab-size 1000", "vocabulary", 1024),
    ("", "dropout", True),
    ("--hidden-dropout 0.0", "dropout", True),
    ("", "ffn_bias", True),
    ("--num-experts 8", "experts", {"routed": 8, "active": 2, "ffn": 1024, "bias": True}),
    # Gated, with a quick GELU: as wide an up map as a gate map.
    ("--quick-geglu", "activation", "geglu"),
]


@pytest.mark.parametrize(("flags", "key", "means"), SHAPES)
def test_what_is_left_out_is_megatrons_default(flags: str, key: str, means: object) -> None:
    text = "--num-layers 2 --hidden-size 256 --num-attention-heads 8 --seq-length 512 --max-position-embeddings 512"
    model = megatron.of_text(f"{text} --vocab-size 1000 {flags}", "run.sh", gpus=1).config["model"]
    if key == "experts":  # a router's bias is told of elsewhere
        assert means.items() <= model[key].items()  # type: ignore[attr-defined]
    else:
        assert model[key] == means


def test_no_dropout_and_no_bias_are_said() -> None:
    model = small().config["model"]
    assert not {"dropout", "ffn_bias", "max_positions"} & set(model)
    assert "bias" not in model["attention"]
    assert small("--add-qkv-bias").config["model"]["attention"]["bias"] == "qkv"


ATTENTIONS = [
    ("", {"heads": 8, "qk_head": 32, "v_head": 32}),
    ("--kv-channels 64", {"heads": 8, "qk_head": 64, "v_head": 64}),
    ("--group-query-attention", {"heads": 8, "qk_head": 32, "v_head": 32, "kv_heads": 1}),  # one group by default
    ("--num-query-groups 4", {"heads": 8, "qk_head": 32, "v_head": 32}),  # which means nothing alone
    ("--qk-layernorm", {"heads": 8, "qk_head": 32, "v_head": 32, "qk_norm": "head"}),
    (
        "--multi-latent-attention",
        {"heads": 8, "qk_head": 128, "rope_head": 64, "v_head": 128, "q_lora": 0, "kv_lora": 32},
    ),
]


@pytest.mark.parametrize(("flags", "means"), ATTENTIONS)
def test_attention(flags: str, means: dict[str, Any]) -> None:
    assert small(flags).config["model"]["attention"] == means


def windows(config: dict[str, Any]) -> str:
    """Return for each layer whether it has a window (w), a gated delta net (l) or sees all (f)."""
    model = read(Model, config["model"], "model")
    kinds = [kind.attention for kind in model.layer_kinds()]
    return "".join(
        "w" if getattr(one, "window", 0) else "f" if type(one) is type(model.attention) else "l" for one in kinds
    )


@pytest.mark.parametrize(
    ("flags", "layers"),
    [
        ("", "ffffffff"),
        ("--window-size 128,0", "wwwwwwww"),
        ("--window-size (128,0) --window-attn-skip-freq 2", "wfwfwfwf"),
        ("--window-size 128,0 --window-attn-skip-freq 4", "wwwfwwwf"),
        ("--window-size 128,0 --window-attn-skip-freq [1,1,1,0]*2", "wwwfwwwf"),
        ("--window-size 128,0 --window-attn-skip-freq ([0]*6+[1]*2)", "ffffffww"),
        ("--linear-attention-type gated_delta_net --linear-attention-freq 4", "lllflllf"),
        ("--experimental-attention-variant gated_delta_net --linear-attention-freq 4", "lllflllf"),
        ("--linear-attention-type gated_delta_net --linear-attention-freq [1,0]*4", "lflflflf"),
    ],
)
def test_kinds_of_attention_by_layer(flags: str, layers: str) -> None:
    assert windows(small(flags).config) == layers


@pytest.mark.parametrize(
    ("frequency", "layers"),
    [("", "m" * 8), ("1", "m" * 8), ("2", "mdmdmdmd"), ("3", "mddmddmd"), ("([0]*2+[1]*6)", "ddmmmmmm"),
     ("[0,1]*4", "dmdmdmdm"), ("[0]*8", "d" * 8)],
)  # fmt: skip
def test_layers_with_experts(runs: Runs, frequency: str, layers: str) -> None:
    config = small(EXPERTS + (f"--moe-layer-freq {frequency}" if frequency else "")).config
    model = read(Model, config["model"], "model")
    assert "".join("m" if kind.ffn == "moe" else "d" for kind in model.layer_kinds()) == layers
    if len(set(layers)) == 1 and frequency:
        runs(config)


HYBRID = "--mamba-num-heads 8 --mamba-head-dim 64 --mamba-state-dim 16 --mamba-num-groups 2 "


def test_a_hybrid_model_has_a_block_a_layer(runs: Runs) -> None:
    config, unread = small(f"{HYBRID} {EXPERTS} --hybrid-layer-pattern M-M*MEM*")
    assert config["model"]["pattern"] == "MFMAMEMA"
    assert unread == ()
    runs(config)


def test_a_hybrid_pattern_comes_before_the_number_of_layers() -> None:
    """``validate_args``: the pattern overrides --num-layers, which need not be there."""
    assert small(f"{HYBRID} --hybrid-layer-pattern M-M*").config["model"]["layers"] == 4
    without = SMALL.replace("--num-layers 8", "")
    flags = f"{without} {HYBRID} --hybrid-layer-pattern M-M*"
    assert megatron.of_text(flags, "run.sh", gpus=8).config["model"]["layers"] == 4


def test_bars_of_a_hybrid_pattern_are_stages() -> None:
    flags = f"{HYBRID} --pipeline-model-parallel-size 2 --hybrid-layer-pattern M-|M*M-|M|*"
    experiment = load_experiment(small(flags).config)
    assert (experiment.choice.name, experiment.choice.options["stages_per_rank"]) == ("interleaved-1f1b", 2)


def test_parts_of_a_hybrid_pattern_are_multi_token_prediction() -> None:
    config, unread = small(f"{HYBRID} --hybrid-layer-pattern M-M*M-M*/M-/M-")
    assert config["model"].get("mtp_depth") == 2 or unread


# Parallelism

DEGREES: list[tuple[str, int, dict[str, Any]]] = [
    ("", 8, {"pipeline": 1, "tensor": 1, "data": 8, "zero": 0}),
    ("--tensor-model-parallel-size 2", 8, {"tensor": 2, "data": 4, "sequence": False}),
    ("--tensor-model-parallel-size 2 --sequence-parallel", 8, {"tensor": 2, "data": 4, "sequence": True}),
    ("--tensor-model-parallel-size 2 --sequence-parallel --tp-comm-overlap", 8, {"tensor": 2, "tensor_overlap": True}),
    ("--tp-comm-overlap", 8, {"tensor": 1}),
    ("--pipeline-model-parallel-size 4 --tensor-model-parallel-size 2", 16, {"pipeline": 4, "tensor": 2, "data": 2}),
    ("--context-parallel-size 2", 8, {"context": 2, "data": 4, "context_exchange": "ring"}),
    ("--context-parallel-size 2 --cp-comm-type p2p", 8, {"context_exchange": "ring"}),
    ("--context-parallel-size 2 --cp-comm-type a2a", 8, {"context_exchange": "all-to-all"}),
    ("--context-parallel-size 2 --cp-comm-type allgather", 8, {"context_exchange": "gather"}),
    (f"{EXPERTS} --expert-model-parallel-size 4", 8, {"expert": 4, "expert_tensor": 1, "data": 8}),
    # As many GPUs share an expert's matrices as the others', unless it is said.
    (
        f"{EXPERTS} --expert-model-parallel-size 2 --tensor-model-parallel-size 2 --sequence-parallel",
        8,
        {"tensor": 2, "expert": 2, "expert_tensor": 2, "data": 4},
    ),
    (
        f"{EXPERTS} --expert-model-parallel-size 8 --tensor-model-parallel-size 2 --sequence-parallel "
        "--expert-tensor-parallel-size 1",
        8,
        {"tensor": 2, "expert": 8, "expert_tensor": 1, "data": 4},
    ),
    ("--use-distributed-optimizer", 8, {"zero": 1}),
    ("--use-distributed-optimizer --num-distributed-optimizer-instances 2", 8, {"zero": 1}),
    ("--use-megatron-fsdp --use-distributed-optimizer", 8, {"zero": 3, "gathers": "each"}),
    ("--use-custom-fsdp", 8, {"zero": 3, "gathers": "each"}),
    ("--use-torch-fsdp2", 8, {"zero": 3, "gathers": "each"}),
    ("--use-megatron-fsdp --data-parallel-sharding-strategy no_shard", 8, {"zero": 0}),
    ("--use-megatron-fsdp --data-parallel-sharding-strategy optim", 8, {"zero": 1}),
    ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads", 8, {"zero": 2}),
    ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads_params", 8, {"zero": 3}),
    ("--use-distributed-optimizer --data-parallel-sharding-strategy optim_grads", 8, {"zero": 1}),
    # Copies of the weights: each on a fourth of data x context.
    ("--use-megatron-fsdp --num-distributed-optimizer-instances 4", 16, {"zero": 3, "fsdp": 4}),
    ("--use-megatron-fsdp --context-parallel-size 2 --num-distributed-optimizer-instances 2", 8, {"fsdp": 4}),
]


@pytest.mark.parametrize(("flags", "gpus", "means"), DEGREES)
def test_degrees(runs: Runs, flags: str, gpus: int, means: dict[str, Any]) -> None:
    config, unread = small(flags, gpus)
    assert config["parallel"] == config["parallel"] | means
    assert unread == ()
    if "fsdp" in means or "expert" in means:
        runs(config)


FOUR = "--pipeline-model-parallel-size 4 "
TWO = "--pipeline-model-parallel-size 2 "
ENDS = "--account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split "
STAGES: list[Any] = [
    ("", "1f1b", {}, None),
    (FOUR, "1f1b", {}, None),
    (f"{FOUR} --num-virtual-stages-per-pipeline-rank 1", "1f1b", {}, None),
    (f"{FOUR} --num-virtual-stages-per-pipeline-rank 2", "interleaved-1f1b", {"stages_per_rank": 2}, None),
    (f"{TWO} --num-layers-per-virtual-pipeline-stage 1", "interleaved-1f1b", {"stages_per_rank": 4}, None),
    (f"{TWO} --num-layers-per-virtual-pipeline-stage 4", "1f1b", {}, None),
    (
        f"{TWO} --num-virtual-stages-per-pipeline-rank 2 --microbatch-group-size-per-virtual-pipeline-stage 4",
        "interleaved-1f1b",
        {"stages_per_rank": 2, "group": 4},
        None,
    ),
    # An embedding and a loss that count as a layer each.
    (f"{FOUR} --num-layers 6 {ENDS}", "1f1b", {}, [1, 2, 2, 1]),
    (f"{FOUR} --num-layers 7 --account-for-embedding-in-pipeline-split", "1f1b", {}, [1, 2, 2, 2]),
    (f"{FOUR} --num-layers 7 --account-for-loss-in-pipeline-split", "1f1b", {}, [2, 2, 2, 1]),
    (
        f"{FOUR} --num-layers 6 {ENDS} --num-virtual-stages-per-pipeline-rank 2",
        "interleaved-1f1b",
        {"stages_per_rank": 2},
        [0, 1, 1, 1, 1, 1, 1, 0],
    ),
    # Layers of the first and the last rank.
    (f"{FOUR} --decoder-first-pipeline-num-layers 1 --decoder-last-pipeline-num-layers 1", "1f1b", {}, [1, 3, 3, 1]),
    (f"{TWO} --decoder-first-pipeline-num-layers 3", "1f1b", {}, [3, 5]),
    (f"{FOUR} --num-layers 13 --decoder-last-pipeline-num-layers 1", "1f1b", {}, [4, 4, 4, 1]),
    (
        f"{FOUR} --num-layers 16 --decoder-first-pipeline-num-layers 2 --decoder-last-pipeline-num-layers 2 "
        "--num-virtual-stages-per-pipeline-rank 2",
        "interleaved-1f1b",
        {"stages_per_rank": 2},
        [1, 3, 3, 1, 1, 3, 3, 1],
    ),
    # Layouts; Megatron's own code takes backslashes out before it reads them.
    (f"{TWO} --pipeline-model-parallel-layout Et*3|t*5L", "1f1b", {}, "Et*3|t*5L"),
    (f"{TWO} --pipeline-model-parallel-layout 'Et\\*3\\|t\\*5L'", "1f1b", {}, "Et*3|t*5L"),
    (
        f"{TWO} --num-virtual-stages-per-pipeline-rank 2 --pipeline-model-parallel-layout Et|(ttt|)*2tL",
        "interleaved-1f1b",
        {"stages_per_rank": 2},
        "Et|(ttt|)*2tL",
    ),
    # A layout alone says how many stages a rank has.
    (
        f"{TWO} --pipeline-model-parallel-layout Et|(ttt|)*2tL",
        "interleaved-1f1b",
        {"stages_per_rank": 2},
        "Et|(ttt|)*2tL",
    ),
    # The embedding and the loss count here as well: (14 + 2) / 4 ranks = 2 stages of 2.
    (
        f"{FOUR} --num-layers 14 {ENDS} --num-layers-per-virtual-pipeline-stage 2",
        "interleaved-1f1b",
        {"stages_per_rank": 2},
        [1, 2, 2, 2, 2, 2, 2, 1],
    ),
]


@pytest.mark.parametrize(("flags", "name", "options", "layout"), STAGES)
def test_schedules_and_their_stages(
    runs: Runs, flags: str, name: str, options: dict[str, Any], layout: str | list[int] | None
) -> None:
    config, unread = small(flags)
    experiment = load_experiment(config)
    assert experiment.choice.name == name
    assert config["schedule"] == {"name": name, **options}
    assert config["pipeline"].get("layout") == layout
    assert unread == ()
    layers = runs(config).layers_by_stage
    if isinstance(layout, list):
        assert list(layers or ()) == layout


OVERLAPPED = f"{EXPERTS} --overlap-moe-expert-parallel-comm "
RUNTIMES: list[tuple[str, str, object]] = [
    ("", "1f1b", None),
    (TWO, "1f1b", {"name": "megatron"}),
    (f"{OVERLAPPED} --expert-model-parallel-size 8", "1f1b-overlap", None),
    (
        f"{OVERLAPPED} {TWO} --expert-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2",
        "interleaved-1f1b-overlap",
        {"name": "megatron"},
    ),
    (
        f"{OVERLAPPED} {TWO} --expert-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 2 "
        "--delay-wgrad-compute",
        "interleaved-1f1b-overlap",
        {"name": "megatron", "delay_wgrad_compute": True},
    ),
    (
        f"{FOUR} --num-virtual-stages-per-pipeline-rank 2 --no-overlap-p2p-communication",
        "interleaved-1f1b",
        {"name": "megatron", "overlap_p2p_comm": False},
    ),
    (
        f"{FOUR} --num-virtual-stages-per-pipeline-rank 2 --overlap-p2p-communication-warmup-flush",
        "interleaved-1f1b",
        {"name": "megatron", "overlap_p2p_comm_warmup_flush": True},
    ),
]


@pytest.mark.parametrize(("flags", "name", "runtime"), RUNTIMES)
def test_the_runtime_is_megatrons(runs: Runs, flags: str, name: str, runtime: object) -> None:
    config, unread = small(flags)
    assert (config["schedule"]["name"], config["pipeline"].get("runtime")) == (name, runtime)
    assert config["stack"] == "megatron"
    assert unread == ()
    runs(config)


@pytest.mark.parametrize("delayed", [True, False])
def test_weight_gradients_of_a_lone_stage_are_delayed_where_asked_for(runs: Runs, *, delayed: bool) -> None:
    flag = " --delay-wgrad-compute" if delayed else ""
    config, unread = small(f"{OVERLAPPED} --expert-model-parallel-size 8{flag}")
    assert config["overlap"] == {"delay_wgrad": delayed}
    assert unread == ()
    runs(config)


# Training


def test_a_batch_is_of_all_that_hold_the_same_weights(runs: Runs) -> None:
    config = small("--micro-batch-size 2 --tensor-model-parallel-size 2").config
    assert (config["training"]["micro_batch_size"], config["training"]["global_batch"]) == (2, 64)
    assert runs(config).micro_batches == 64 // 2 // 4
    without = SMALL.replace("--global-batch-size 64", "--micro-batch-size 2")
    assert megatron.of_text(without, "run.sh", gpus=8).config["training"]["global_batch"] == 2 * 8  # one each


PRECISIONS: list[Any] = [
    ("--bf16", "bf16"),
    ("--bf16 --fp8-format hybrid", "fp8-tensor"),  # --fp8-recipe is delayed by default
    ("--bf16 --fp8-format hybrid --fp8-recipe delayed", "fp8-tensor"),
    ("--bf16 --fp8-format hybrid --fp8-recipe tensorwise", "fp8-tensor"),
    ("--bf16 --fp8-format e4m3 --fp8-recipe blockwise", "fp8-block"),
    ("--bf16 --fp8-format e4m3 --fp8-recipe mxfp8", "mxfp8"),
    ("--bf16 --fp4-format e2m1 --fp4-recipe nvfp4", "nvfp4"),
    ("--bf16 --fp4-format e2m1", "nvfp4"),
    ("--fp16", "fp16"),
]


@pytest.mark.parametrize(("flags", "precision"), PRECISIONS)
def test_precisions(runs: Runs, flags: str, precision: str) -> None:
    text = SMALL.replace("--bf16", flags)
    config, unread = megatron.of_text(text, "run.sh", gpu="b200", gpus=8)
    assert (config["training"]["precision"], unread) == (precision, ())
    runs(config)


def test_training_all_in_fp32_is_named_or_refused() -> None:
    try:
        _, unread = megatron.of_text(SMALL.replace("--bf16", ""), "run.sh", gpus=8)
    except UserError:
        return
    assert unread


def test_weights_and_attention_in_few_bits() -> None:
    training = small("--fp8-format e4m3 --fp8-param-gather --fp8-dot-product-attention").config["training"]
    assert training["low_precision_weights"]
    assert training["low_precision_attention"]
    assert not {"low_precision_weights", "low_precision_attention"} & set(small().config["training"])


NOTHING_ELSE = {"norms": False, "up_projections": False, "activation": False}
RECOMPUTED: list[tuple[str, object, list[str]]] = [
    ("", "none", []),
    ("--recompute-activations", ["core"], []),
    ("--recompute-granularity selective", ["core"], []),  # core_attn by default
    (
        "--recompute-granularity selective --recompute-modules layernorm moe_act mla_up_proj",
        ["norms", "routed_activation", "up_projections"],
        [],
    ),
    ("--recompute-granularity selective --recompute-modules moe shared_experts mlp", ["moe", "shared", "mlp"], []),
    ("--recompute-granularity selective --recompute-modules core_attn gdp", ["core"], ["--recompute-modules"]),
    ("--recompute-modules layernorm", "none", []),  # which means nothing without a granularity
    ("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1", "full", []),
    (
        "--recompute-granularity full --recompute-method uniform --recompute-num-layers 2",
        {"full": True, "together": 2},
        [],
    ),
    (
        "--recompute-granularity full --recompute-method block --recompute-num-layers 3",
        {"full": True, "layers": 3, **NOTHING_ELSE},
        [],
    ),
]


@pytest.mark.parametrize(("flags", "means", "named"), RECOMPUTED)
def test_recomputation(runs: Runs, flags: str, means: object, named: list[str]) -> None:
    config, unread = small(f"{EXPERTS} --multi-latent-attention {flags}")
    assert (config["training"]["recompute"], names(unread)) == (means, named)
    runs(config)


def test_more_layers_recomputed_take_longer_and_less_memory(runs: Runs) -> None:
    block = "--recompute-granularity full --recompute-method block --recompute-num-layers"
    results = [runs(small(f"--micro-batch-size 8 {flags}").config) for flags in ("", f"{block} 4", f"{block} 8")]
    times = [result.step_time_s or 0.0 for result in results]
    assert times == sorted(times)
    assert times[0] < times[2]


AWARE = "--use-precision-aware-optimizer "
OPTIMIZERS: list[tuple[str, dict[str, str], list[str]]] = [
    ("", {"main_weights": "fp32", "moments": "fp32", "gradients": "fp32"}, []),
    ("--accumulate-allreduce-grads-in-fp32", {"gradients": "fp32"}, []),
    ("--grad-reduce-in-bf16", {"gradients": "bf16"}, []),
    (f"{AWARE} --exp-avg-dtype bf16 --exp-avg-sq-dtype bf16", {"moments": "bf16", "gradients": "fp32"}, []),
    (f"{AWARE} --main-grads-dtype bf16", {"moments": "fp32", "gradients": "bf16"}, []),
    (f"{AWARE} --main-params-dtype fp16", {"main_weights": "bf16"}, []),  # of as many bytes
    ("--exp-avg-dtype bf16 --exp-avg-sq-dtype bf16", {"moments": "fp32"}, []),  # which means nothing alone
    (f"{AWARE} --exp-avg-dtype fp8 --exp-avg-sq-dtype fp8", {"moments": "bf16"}, ["--exp-avg-dtype"]),
    ("--optimizer sgd", {"moments": "none"}, []),
    ("--optimizer dist_muon", {"moments": "fp32"}, ["--optimizer"]),
]


@pytest.mark.parametrize(("flags", "means", "named"), OPTIMIZERS)
def test_optimizers(runs: Runs, flags: str, means: dict[str, str], named: list[str]) -> None:
    config, unread = small(flags)
    found = config["training"]["optimizer"]
    assert (found, names(unread)) == (found | means, named)
    runs(config)


def test_gradients_are_reduced_beside_the_backward_pass_where_it_is_said() -> None:
    assert small().config["training"]["gradient_reduction"] == "after"
    flags = "--overlap-grad-reduce --overlap-param-gather --use-distributed-optimizer"
    assert small(flags).config["training"]["gradient_reduction"] == "overlapped"


@pytest.mark.parametrize(
    ("flags", "means"),
    [
        ("", None),
        ("--cpu-offloading --cpu-offloading-num-layers 2", {"layers": 2}),
        (f"{AWARE} --optimizer-cpu-offload", {"optimizer": 1.0}),
        (f"{AWARE} --optimizer-cpu-offload --optimizer-offload-fraction 0.5", {"optimizer": 0.5}),
    ],
)
def test_offloading(runs: Runs, flags: str, means: object) -> None:
    config, unread = small(flags)
    assert (config["training"].get("offload"), unread) == (means, ())
    runs(config)


# What is not modelled

NAMED = [
    "--moe-shared-expert-overlap",
    "--fine-grained-activation-offloading --offload-modules core_attn attn_proj",
    "--first-last-layers-bf16 --num-layers-at-start-in-bf16 1 --num-layers-at-end-in-bf16 1",
    "--moe-expert-capacity-factor 1.0",
    "--moe-latent-size 64",
    "--invented-here 3",
]


@pytest.mark.parametrize("flags", NAMED)
def test_what_is_not_modelled_or_not_known_is_named_once(flags: str) -> None:
    assert names(small(flags).unread) == [flags.split(maxsplit=1)[0]]


HARMLESS = """
--lr 1e-4 --min-lr 1e-5 --lr-decay-style cosine --lr-warmup-fraction .001 --weight-decay 0.1 --clip-grad 1.0
--adam-beta1 0.9 --adam-beta2 0.95 --init-method-std 0.02 --train-iters 500 --train-samples 1000 --seed 1
--data-path data --vocab-file vocab.json --merge-file merges.txt --split 949,50,1 --tokenizer-model tokenizer
--log-interval 1 --save-interval 100 --eval-interval 100 --eval-iters 10 --save out --tensorboard-dir tb
--wandb-project x --use-mcore-models --transformer-impl transformer_engine --use-flash-attn
--attention-backend auto --no-masked-softmax-fusion --cross-entropy-loss-fusion --manual-gc --manual-gc-interval 10
--moe-token-dispatcher-type flex --moe-flex-dispatcher-backend deepep --moe-grouped-gemm --moe-permute-fusion
--moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 1e-3 --moe-router-dtype fp32
--moe-router-score-function sigmoid --moe-router-enable-expert-bias --cuda-graph-impl local
--cuda-graph-scope attn --rotary-base 10000 --rotary-percent 1.0 --use-rope-scaling --norm-epsilon 1e-6
--distributed-backend nccl --distributed-timeout-minutes 60 --master_addr localhost --master_port 6000 --node_rank 0
--no-check-for-nan-in-loss-and-grad --no-create-attention-mask-in-dataloader --exit-duration-in-mins 220
--load checkpoints --mtp-loss-scaling-factor 0.1 --mscale 1.0 --mscale-all-dim 1.0 --decoupled-lr 5e-4
--decoupled-min-lr 4e-5 --rerun-mode disabled
--dist-ckpt-strictness log_all --ckpt-format torch_dist --num-workers 6 --mock-data --finetune
"""


def test_what_changes_neither_time_nor_memory_is_not_named() -> None:
    assert small(" ".join(HARMLESS.split())).unread == ()


# Refusals

SIZES = [
    (f"{EXPERTS} --expert-model-parallel-size 16", "expert-parallel 16 x expert-tensor-parallel 1 does not divide the"),
    (
        f"{EXPERTS} {TWO} --expert-model-parallel-size 8",
        "expert-parallel 8 x expert-tensor-parallel 1 does not divide the 4 GPUs of a pipeline stage",
    ),
    (f"{EXPERTS} --expert-model-parallel-size 8 --num-experts 12", "12 routed experts cannot be spread evenly over 8"),
    ("--tensor-model-parallel-size 3", "8 GPUs are no multiple of tensor 3 x pipeline 1 x context 1 = 3"),
    ("--context-parallel-size 2 --seq-length 254", "254 tokens"),  # a multiple of 2 x context, in Megatron
    ("--global-batch-size 12", "global batch 12 is no multiple of micro-batch 1 x data-parallel 8"),
    ("--micro-batch-size 2 --global-batch-size 8", "global batch 8 is no multiple of micro-batch 2 x data-parallel 8"),
    (
        f"{EXPERTS} --tensor-model-parallel-size 2",
        "--sequence-parallel: is missing; experts need it beside tensor parallelism",
    ),
    (f"{FOUR} --num-layers 9", "--num-layers: 9 are not shared out evenly by 4 stages"),
    (f"{FOUR} {ENDS}", "--num-layers: 8 with embedding and loss are not shared out evenly by 4 stages"),
    (f"{FOUR} --num-virtual-stages-per-pipeline-rank 3", "--num-layers: 8 are not shared out evenly by 12 stages"),
    # ``core/pipeline_parallel/schedules.py``: a group of as many micro-batches as there are ranks, or more.
    (f"{FOUR} --num-virtual-stages-per-pipeline-rank 2 --global-batch-size 4", "is more than 2 micro-batches"),
    (
        f"{TWO} --num-virtual-stages-per-pipeline-rank 2 --microbatch-group-size-per-virtual-pipeline-stage 1",
        "group 1 is less than 2 ranks",
    ),
    (f"{TWO} --num-layers-per-virtual-pipeline-stage 3", "3 x 2 ranks do not divide 8 layers"),
    (f"{TWO} --num-layers-per-virtual-pipeline-stage 0", "0 x 2 ranks do not divide 8 layers"),
    (f"{FOUR} --decoder-first-pipeline-num-layers 1", "7 layers are not shared out evenly by the 3 ranks"),
    (f"{TWO} --decoder-last-pipeline-num-layers 9", "layers are not shared out evenly"),
    (
        f"{TWO} --num-virtual-stages-per-pipeline-rank 2 --pipeline-model-parallel-layout Ett|tttttt|L",
        "--pipeline-model-parallel-layout: has 3 stages, the pipeline 4",
    ),
    (f"{TWO} --pipeline-model-parallel-layout Ett|tttL", "pipeline.layout holds 5 layers, but the model has 8"),
    (f"{TWO} --pipeline-model-parallel-layout Ett|(ttttttL", "layout"),
    ("--group-query-attention --num-query-groups 3", "3 do not share 8 heads out evenly"),
    (f"{EXPERTS} --moe-router-num-groups 3", "3 groups do not divide 8 routed experts"),
    (f"{EXPERTS} --moe-layer-freq 0", "--moe-layer-freq: must be 1 or more"),
    (f"{EXPERTS} --moe-layer-freq [0,1]", "--moe-layer-freq: says it of 2 layers, but there are 8"),
    (f"{EXPERTS} --moe-layer-freq 3+5", "--moe-layer-freq: says it of 1 layers, but there are 8"),
    (f"{EXPERTS} --moe-layer-freq [0]*10**9", "--moe-layer-freq: "),
    (f"{EXPERTS} --moe-layer-freq [0]*999999999", "--moe-layer-freq: "),
    (f"{EXPERTS} --moe-layer-freq [[0]*9999]*9999", "--moe-layer-freq: "),
    (f"""{EXPERTS} --moe-layer-freq "__import__('os')" """, "--moe-layer-freq: "),
    (f"{EXPERTS} --moe-layer-freq [0", "--moe-layer-freq: "),
    (f"{EXPERTS} --moe-layer-freq {'[' * 500}", "--moe-layer-freq: "),
    (f"{EXPERTS} --moe-layer-freq -1", "--moe-layer-freq: "),
    ("--hybrid-layer-pattern M-M*M-MX", "--hybrid-layer-pattern: X is no kind of layer ('M-M*M-MX')"),
    ("--hybrid-layer-pattern MEMEMEME", "experts"),
    ("--linear-attention-type mamba", "'mamba' is not known; gated_delta_net is"),
    ("--fp8-format e4m3 --fp8-recipe fp9", "--fp8-recipe: must be one of mxfp8, blockwise, tensorwise, delayed, got"),
    ("--recompute-granularity half", "--recompute-granularity: must be full or selective, got 'half'"),
    ("--use-megatron-fsdp --data-parallel-sharding-strategy all", "--data-parallel-sharding-strategy: must be one of"),
    ("--num-layers eight", "--num-layers: must be a whole number, got 'eight'"),
    ("--num-layers -8", "--num-layers: must be a whole number, got '-8'"),
    ("--num-layers", "--num-layers: needs a value"),
    ("--num-layers 0", "layers: must be more than 0"),
    ("--hidden-size 0", "must be more than 0"),
    ("--optimizer-cpu-offload --optimizer-offload-fraction much", "--optimizer-offload-fraction: must be a number"),
]
ZEROS = [
    "--num-attention-heads 0",
    "--tensor-model-parallel-size 0",
    "--pipeline-model-parallel-size 0",
    "--context-parallel-size 0",
    f"{EXPERTS} --expert-model-parallel-size 0",
    f"{EXPERTS} --expert-tensor-parallel-size 0",
    "--micro-batch-size 0",
    "--make-vocab-size-divisible-by 0",
    f"{TWO} --num-virtual-stages-per-pipeline-rank 0",
    f"{HYBRID} --mamba-head-dim 0 --hybrid-layer-pattern M-M*M-M*",
]
TAKEN_AND_REFUSED_THERE = [
    ("--hidden-size 250", "--num-attention-heads: 8 do not divide a hidden size of 250; give --kv-channels"),
    ("--seq-length 512", "--seq-length: 512 tokens are more than --max-position-embeddings 256"),
    (f"{EXPERTS} --seq-length 512", "--seq-length: 512 tokens are more than --max-position-embeddings 256"),
    (
        "--use-megatron-fsdp --num-distributed-optimizer-instances 3",
        "--num-distributed-optimizer-instances: 3 do not share 8 GPUs out evenly",
    ),
    ("--linear-attention-type gated_delta_net", "--linear-attention-freq: is missing"),
    (f"{TWO} --delay-wgrad-compute", "--delay-wgrad-compute: needs --overlap-moe-expert-parallel-comm"),
]
"""What ``validate_args`` and ``TransformerConfig`` refuse."""


def refused(flags: str) -> Iterator[None]:
    config = small(flags).config
    model_of(config, "run.sh")
    simulate(config)
    yield


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        *SIZES,
        *((flags, "must be 1 or more, got '0'") for flags in ZEROS),
        *TAKEN_AND_REFUSED_THERE,
    ],
)
def test_what_megatron_refuses_is_refused_in_one_line(refusal: Refusal, flags: str, message: str) -> None:
    assert message in refusal(lambda: next(refused(flags)))


@pytest.mark.parametrize("flag", ["vocab-size", "hidden-size", "num-layers", "num-attention-heads", "seq-length"])
def test_what_is_missing_is_named(refusal: Refusal, flag: str) -> None:
    words = SMALL.split()
    at = words.index(f"--{flag}")
    del words[at : at + 2]
    if flag == "seq-length":
        del words[words.index("--max-position-embeddings") :][:2]
        words = [word for word in words if word not in ("--max-position-embeddings", "256")] + ["--hidden-size", "256"]
    assert f"--{flag}: is missing" in refusal(lambda: megatron.of_text(" ".join(words), "run.sh", gpus=8))


IMPOSSIBLE = [
    (f"{SMALL} {EXPERTS} --expert-model-parallel-size 16", "does not divide"),
    (f"{SMALL} {TWO} --num-virtual-stages-per-pipeline-rank 2 --pipeline-model-parallel-layout Ett|t*6L", "2 stages"),
    (f"{SMALL} {TWO} --pipeline-model-parallel-layout Ett|tttL", "holds 5 layers"),
    (f"{SMALL} --global-batch-size 12", "is no multiple"),
    (f"{SMALL} {FOUR} --num-layers 9", "9 are not shared out evenly"),
    (SMALL.replace("--vocab-size 1024", ""), "--vocab-size: is missing"),
    (f"{SMALL} {EXPERTS} --moe-layer-freq [0]*10**9", "--moe-layer-freq"),
    (f"{SMALL} --save 'out", "No closing quotation"),
    (f"{SMALL} {TWO} --microbatch-group-size-per-virtual-pipeline-stage 2", "unknown option 'group'"),
]


@pytest.mark.parametrize(("text", "message"), IMPOSSIBLE)
def test_the_command_refuses_with_2_and_writes_nothing(
    command_line: CommandLine, tmp_path: Path, text: str, message: str
) -> None:
    script, out = tmp_path / "run.sh", tmp_path / "run.yaml"
    script.write_text(text, encoding="utf-8")
    done = command_line("import", script, "--gpus", "8", "-o", out)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert done.stderr.count("dualpipe-sim: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.sh"]


def test_the_command_writes_a_run(command_line: CommandLine, tmp_path: Path) -> None:
    script, out = tmp_path / "run.sh", tmp_path / "run.yaml"
    script.write_text(
        f"torchrun --nproc_per_node 8 \\\n {SMALL} {TWO} --first-last-layers-bf16 --lr 1e-3", encoding="utf-8"
    )
    done = command_line("import", script, "-o", out, "--json")
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert told["name"] == "run"
    assert told["parameters"]["total"] == sum(told["parameters"]["parts"].values())
    assert names(tuple(told["unread"])) == ["--first-last-layers-bf16"]
    assert "--first-last-layers-bf16: is not modelled; " in " ".join(done.stderr.split())
    ran = command_line("run", out, "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["step_time_s"] == simulate(small(TWO).config).step_time_s


# Any degrees

few = st.sampled_from([1, 1, 2, 3, 4])
SWITCHES = [
    "sequence-parallel", "use-distributed-optimizer", "use-megatron-fsdp", "overlap-moe-expert-parallel-comm",
    "delay-wgrad-compute", "recompute-activations", "account-for-embedding-in-pipeline-split",
    "account-for-loss-in-pipeline-split", "group-query-attention", "multi-latent-attention", "overlap-grad-reduce",
]  # fmt: skip


@st.composite
def arguments(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Draw arguments of a small model, and GPUs."""
    args: dict[str, Any] = {
        "--num-layers": draw(st.integers(1, 8)), "--hidden-size": 64, "--num-attention-heads": 4, "--seq-length": 48,
        "--max-position-embeddings": 48, "--vocab-size": 100, "--tensor-model-parallel-size": draw(few),
        "--pipeline-model-parallel-size": draw(few), "--context-parallel-size": draw(st.sampled_from([1, 1, 2])),
        "--micro-batch-size": draw(st.sampled_from([1, 2])), "--bf16": True,
    }  # fmt: skip
    if draw(st.booleans()):
        args |= {"--num-experts": draw(st.sampled_from([4, 8])), "--expert-model-parallel-size": draw(few)}
        args |= {"--moe-layer-freq": draw(st.sampled_from([1, 2, "[0]+[1]*3"]))}
    if draw(st.booleans()):
        args["--expert-tensor-parallel-size"] = draw(few)
    if draw(st.booleans()):
        args["--num-virtual-stages-per-pipeline-rank"] = draw(few)
    for flag in ("num-query-groups", "mtp-num-layers", "num-distributed-optimizer-instances"):
        if draw(st.integers(0, 3)) == 0:
            args[f"--{flag}"] = draw(few)
    args |= {f"--{flag}": True for flag in draw(st.sets(st.sampled_from(SWITCHES), max_size=4))}
    shared = args["--tensor-model-parallel-size"] * args["--pipeline-model-parallel-size"]
    gpus = shared * args["--context-parallel-size"] * draw(few)
    args["--global-batch-size"] = gpus * args["--micro-batch-size"] * draw(few)
    return args, gpus


def test_weights_that_are_gathered_for_each_op_do_not_go_with_overlapped_pairs(runs: Runs) -> None:
    flags = f"{EXPERTS} --expert-model-parallel-size 8 --overlap-moe-expert-parallel-comm --use-megatron-fsdp"
    config, unread = small(flags)
    assert (config["parallel"]["gathers"], names(unread)) == ("once", ["--overlap-moe-expert-parallel-comm"])
    runs(config)


@pytest.mark.parametrize("flag", ["moe-new-thing 3", "no-new-thing", "cuda-new-thing", "use-fused-new-thing"])
def test_a_flag_that_begins_like_others_is_named(flag: str) -> None:
    assert names(small(f"--{flag}").unread) == [f"--{flag.split(maxsplit=1)[0]}"]


@settings(max_examples=80)
@given(arguments())
def test_what_is_imported_runs(drawn: tuple[dict[str, Any], int]) -> None:
    args, gpus = drawn
    try:
        config = megatron.of_mapping({"gpus": gpus, "MODEL_ARGS": args}, "run.yaml").config
        model_of(config, "run.yaml")
        result = simulate(config)
    except UserError as error:
        words = str(error)
        assert "\n" not in words
        return
    assert result.step_time_s is not None
    assert result.step_time_s > 0
    assert as_block(config)
