"""Which importer a file is for: told by what is in it, whatever it is called; and the command that imports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dualpipe_sim.config.yaml_text import as_block, read_yaml
from dualpipe_sim.importers import reading

if TYPE_CHECKING:
    from tests.conftest import CommandLine
    from tests.importers.conftest import Refusal, Runs

HUGGING_FACE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1024,
    "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 1000,
    "tie_word_embeddings": False,
}  # fmt: skip
SIMUMAX = {  # whose model_type is another thing
    "model_type": "dense", "model_name": "small", "hidden_size": 512, "head_num": 8, "kv_head_num": 4, "head_size": 64,
    "intermediate_size": 1024, "layer_num": 4, "vocab_size": 1000, "use_swiglu": True,
}  # fmt: skip
STRATEGY = {
    "seq_len": 512, "micro_batch_size": 1, "micro_batch_num": 4, "dtype": "bf16", "world_size": 8, "tp_size": 1,
    "pp_size": 2, "ep_size": 1, "etp_size": 1, "enable_recompute": False,
}  # fmt: skip
SYSTEM = {
    "sys_name": "b200_bf16", "num_per_node": 8, "accelerator": {"mem_gbs": 180, "op": {}},
    "networks": {"intra_with_pcie": False},
}  # fmt: skip
TITAN: dict[str, dict[str, Any]] = {
    "model": {"name": "llama3", "flavor": "8B"},
    "training": {"seq_len": 2048, "local_batch_size": 1},
}
MEGATRON = {
    "--num-layers": 4, "--hidden-size": 512, "--ffn-hidden-size": 1024, "--num-attention-heads": 8,
    "--group-query-attention": True, "--num-query-groups": 4, "--swiglu": True, "--disable-bias-linear": True,
    "--normalization": "RMSNorm", "--position-embedding-type": "rope", "--untie-embeddings-and-output-weights": True,
    "--make-vocab-size-divisible-by": 1, "--vocab-size": 1000, "--seq-length": 512, "--max-position-embeddings": 512,
    "--hidden-dropout": 0, "--attention-dropout": 0, "--micro-batch-size": 1, "--global-batch-size": 32, "--bf16": True,
}  # fmt: skip
SCRIPT = "#!/bin/bash\n" + " \\\n  ".join(
    ["torchrun --nproc_per_node 8", *(flag if one is True else f"{flag} {one}" for flag, one in MEGATRON.items())]
)
RECIPE = {"id": "small", "model": "org/Small", "gpu": "h100-80g-sxm", "gpus": 8, "MODEL_ARGS": MEGATRON}
ROW = {
    "id": "row", "model_name": "small", "model": {"layers": 4, "hidden": 512, "heads": 8, "kv_heads": 4, "head_dim": 64,
    "ffn": 1024, "activation": "swiglu", "vocab": 1000, "tied_embedding": False}, "cluster": {"gpu": "h100-80g-sxm",
    "gpus": 8}, "parallel": {"tp": 1, "pp": 2, "dp": 4, "zero": 1}, "schedule": "1f1b", "seq_len": 512,
    "global_batch": 32, "micro_batch": 1, "precision": "bf16", "recompute": "none",
}  # fmt: skip
TOTAL = 2 * 1000 * 512 + 4 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1024 + 2 * 512) + 512
"""Parameters of that one model: embedding and head, four maps of attention, three of an FFN, norms."""


def toml(data: dict[str, dict[str, Any]]) -> str:
    """Write sections as TOML."""
    return "\n".join(f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(one)}" for key, one in keys.items())
                     for name, keys in data.items())  # fmt: skip


TITAN_TOTAL = 8_030_261_248
FORMATS: dict[str, tuple[str, str, list[str], int]] = {
    "config.json": ("config.json", json.dumps(HUGGING_FACE), [], TOTAL),
    "another name": ("llama.txt", json.dumps(HUGGING_FACE), [], TOTAL),
    "SimuMax's model": ("model.json", json.dumps(SIMUMAX), [], TOTAL),
    "torchtitan's TOML": ("job.toml", toml(TITAN), ["--gpus", "8"], TITAN_TOTAL),
    "torchtitan's JSON": ("job.json", json.dumps(TITAN), ["--gpus", "8"], TITAN_TOTAL),
    "a script": ("train.sh", SCRIPT, [], TOTAL),
    "a script without a name": ("train", SCRIPT, [], TOTAL),
    "flags alone": ("flags.txt", SCRIPT.split("\n", 2)[2], ["--gpus", "8"], TOTAL),
    "MODEL_ARGS": ("zoo.yaml", as_block({"MODEL_ARGS": MEGATRON}), ["--gpus", "8"], TOTAL),
    "MODEL_ARGS with a machine": ("zoo.yml", as_block(RECIPE), [], TOTAL),
    "MODEL_ARGS of another name": ("zoo.txt", as_block(RECIPE), [], TOTAL),
    "one recipe": ("recipes.yaml", as_block({"commit": "067f987d", "recipes": [RECIPE]}), [], TOTAL),
    "one run": ("runs.yaml", as_block({"runs": [ROW], "sources": {}}), [], TOTAL),
    "a run alone": ("run.yaml", as_block(ROW), [], TOTAL),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_told_apart(command_line: CommandLine, tmp_path: Path, name: str) -> None:
    file, text, options, total = FORMATS[name]
    path, out = tmp_path / file, tmp_path / "out.yaml"
    path.write_text(text, encoding="utf-8")
    done = command_line("import", path, "--json", "-o", out, *options)
    assert done.returncode == 0
    told = json.loads(done.stdout)
    assert list(told) == ["schema", "name", "parameters", "unread"]
    assert told["parameters"]["total"] == total
    assert sum(told["parameters"]["parts"].values()) == total
    assert told["parameters"]["active"] == total
    written = read_yaml(out)
    if "schedule" not in written:
        assert list(written) == ["model"]
        return
    ran = command_line("run", out, "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["step_time_s"] > 0


def test_a_folder_is_of_hugging_face_or_of_simumax(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(HUGGING_FACE), encoding="utf-8")
    assert list(reading.read(tmp_path).config) == ["model"]
    (tmp_path / "config.json").unlink()
    for name, keys in (("model", SIMUMAX), ("strategy", STRATEGY), ("system", SYSTEM)):
        (tmp_path / f"{name}.json").write_text(json.dumps(keys), encoding="utf-8")
    config = reading.read(tmp_path).config
    assert config["parallel"]["pipeline"] == 2
    runs(config)


def test_a_gpu_and_how_many_are_said_beside_the_file(tmp_path: Path) -> None:
    for file, text in (("a.yaml", as_block(RECIPE)), ("a.sh", SCRIPT), ("a.toml", toml(TITAN))):
        path = tmp_path / file
        path.write_text(text, encoding="utf-8")
        config = reading.read(path, gpu="b200-180g-sxm", gpus=16).config
        assert (config["gpu"], config["parallel"]["data"]) == ("b200", 16), file


def test_a_gpu_is_said_beside_a_published_run(runs: Runs, refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(as_block(ROW), encoding="utf-8")
    config = reading.read(path, gpu="b200", gpus=16).config
    assert (config["gpu"], config["parallel"]["pipeline"], config["parallel"]["data"]) == ("b200", 2, 8)
    assert runs(config).micro_batches == 32 // 8
    words = refusal(lambda: reading.read(path, gpus=9))
    assert words.endswith("cluster.gpus: must be a multiple of tp x cp x pp = 1 x 1 x 2 = 2, got 9")


def test_several_are_imported_one_at_a_time(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    for key, one in (("recipes", RECIPE), ("runs", ROW)):
        for several in ([], [one, one], [one] * 3):
            path.write_text(as_block({key: several}), encoding="utf-8")
            words = refusal(lambda: reading.read(path))
            assert words == (
                f"{path}: {key}: has {len(several)}, and one is imported at a time; put it in a file alone"
            )


KNOWN = "is nothing known: a config.json, Megatron-LM's arguments (as text, or MODEL_ARGS in YAML), torchtitan's TOML"
RUBBISH: list[tuple[str, bytes, str]] = [
    ("a.txt", b"", KNOWN),
    ("a.yaml", b"", KNOWN),
    ("a.json", b"", KNOWN),
    ("a.sh", b"echo hello\n", KNOWN),
    ("a.txt", b"The quick brown fox: it jumps.\n\t- over", KNOWN),
    ("a.yaml", b"- a\n- b\n", KNOWN),
    ("a.yaml", b"pipeline: {ranks: 4}\nschedule: 1f1b\n", KNOWN),
    ("a.yaml", b"runs: 5\n", KNOWN),
    ("a.yaml", b"a: *b\n", "line 1, column 4: found undefined alias 'b'"),
    ("a.yaml", b"a: [1\n", "line "),
    ("a.yaml", b"a: !!python/object/apply:os.system [ls]\n", "line 1, column 4: the tag "),
    ("a.yaml", b"MODEL_ARGS: [--bf16]\n", "MODEL_ARGS: must be a mapping of flags to values, got ['--bf16']"),
    ("a.json", b"[1, 2]", KNOWN),
    ("a.json", b"{", "is no JSON: "),
    ("a.json", b"{}", "is no config.json of a model, which has a text model_type"),
    ("a.json", b'{"model_type": "lama"}', "model_type: models of type 'lama' are not known; did you mean 'llama'?"),
    ("a.json", b'{"a": ' * 5000, "is no JSON: "),
    ("a.toml", b"", "is no job of torchtitan"),
    ("a.toml", b"a = ", "is neither TOML nor JSON: "),
    ("a.bin", b"\xff\xfe\x00\x01", "is not UTF-8 text (byte 0)"),
    ("a.bin", b"\x89PNG\r\n\x1a\n\x00", "is not UTF-8 text (byte 0)"),
    ("a.bin", b"\x00" * 64, KNOWN),
    ("a.sh", b"--num-layers 4", "--hidden-size: is missing"),
]


@pytest.mark.parametrize(("file", "content", "message"), RUBBISH)
def test_rubbish_is_refused_in_one_line(
    refusal: Refusal, tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    path = tmp_path / file
    path.write_bytes(content)
    assert refusal(lambda: reading.read(path, gpus=8)).startswith(f"{path}: {message}")


def test_a_list_of_runs_that_holds_itself_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("&a\nruns:\n- *a\n", encoding="utf-8")
    assert refusal(lambda: reading.read(path))


def test_what_is_not_there_is_refused(command_line: CommandLine, tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "has no model and no strategy and no system"),
    ):
        done = command_line("import", path, "-o", tmp_path / "out.yaml")
        assert (done.returncode, done.stdout) == (2, "")
        assert message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_known_is_refused_before_the_file_is_read(refusal: Refusal, tmp_path: Path) -> None:
    words = refusal(lambda: reading.read(tmp_path / "none.yaml", gpu="h10"))
    assert words == "gpu: there is no preset of 'h10'; did you mean 'h100'?"


def test_a_script_is_told_what_it_gets_from_outside(command_line: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "train.sh"
    path.write_text(SCRIPT.replace("--num-layers 4", "--num-layers ${LAYERS}"), encoding="utf-8")
    told = command_line("import", path, "--json", "--set", "LAYERS=8", "--set", "vocab-size=2000")
    assert json.loads(told.stdout)["parameters"]["parts"]["head"] == 2000 * 512
    for options, message in (
        ((), "--num-layers: '${LAYERS}' is not said in the file; write it there, or give it with --set"),
        (("--set", "LAYERS"), "--set: must be NAME=VALUE, got 'LAYERS'"),
    ):
        done = command_line("import", path, *options)
        assert done.returncode == 2
        assert message in " ".join(done.stderr.split())
    config = tmp_path / "config.json"
    config.write_text(json.dumps(HUGGING_FACE), encoding="utf-8")
    done = command_line("import", config, "--set", "num-layers=8")
    assert done.returncode == 2
    assert "--set: is for Megatron-LM's arguments, and there are none" in " ".join(done.stderr.split())


@pytest.mark.parametrize("text", [as_block(RECIPE), as_block(ROW)])
def test_what_is_there_already_stays_where_importing_fails(
    command_line: CommandLine, tmp_path: Path, text: str
) -> None:
    path, out = tmp_path / "run.yaml", tmp_path / "out.yaml"
    path.write_text(text.replace("32", "33"), encoding="utf-8")  # the global batch
    out.write_text("mine", encoding="utf-8")
    done = command_line("import", path, "-o", out)
    assert (done.returncode, done.stdout) == (2, "")
    assert "33" in done.stderr
    assert out.read_text(encoding="utf-8") == "mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.yaml", "run.yaml"]


def test_the_command_shows_parts_and_what_to_do_next(command_line: CommandLine, tmp_path: Path) -> None:
    path, out = tmp_path / "run.yaml", tmp_path / "out.yaml"
    path.write_text(as_block(RECIPE), encoding="utf-8")
    shown = " ".join(command_line("import", path, "-o", out).stdout.split())
    assert f"{TOTAL:,}" in shown
    assert f"small: 4 layers; a token passes {TOTAL:,} of {TOTAL:,} parameters" in shown
    assert "is written; `dualpipe-sim run " in shown
    assert out.read_text(encoding="utf-8").startswith(f"# From {path}, by `dualpipe-sim import`.\n")
