"""A link is a whole experiment, and no way into the machine that opens it."""

from __future__ import annotations

import os
import zlib
from base64 import urlsafe_b64encode
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import pytest
import yaml

from dualpipe_sim import simulate
from dualpipe_sim.config import packaged_configs
from dualpipe_sim.explore.answer import Answers
from dualpipe_sim.explore.link import MOST_CHARACTERS, Link, Start

HELD = "9F7,do-not-tell"
UNIT = "pipeline: {ranks: 4, micro_batches: 8}\ncosts: {forward: 1, backward: 2}\n"


def packed(text: str) -> str:
    return urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")


def asked(start: Start, query: str) -> dict[str, object]:
    return Answers(start)({"part": "head", "query": query, "place": 0})


def refused(start: Start, query: str) -> str:
    said = asked(start, query)["error"]
    assert isinstance(said, str)
    assert "\n" not in said
    return said


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the machine that no link may read, as whatever a key may take it for."""
    file = tmp_path / "secret.csv"
    file.write_text(HELD, encoding="utf-8")
    return file


NAMES_A_FILE = {
    "a schedule by path": "schedule={}",
    "an order's file": "schedule={{file: {}}}",
    "one that is compared": "compare=[1f1b, {}]",
    "another among them": "compare=[{{file: {}, placement: v}}]",
    "measured costs": "costs={{kind: measured, file: {}}}",
    "a model of Hugging Face's": "config=deepseek_v3&model={{hf: {}}}",
    "a table of kernels": "config=deepseek_v3&stack=megatron&gpu.kernels.gemm={}",
    "another one": "config=deepseek_v3&stack=megatron&gpu.kernels.attention={}",
    "a table of collectives": "config=deepseek_v3&stack=megatron&cluster.collectives={}",
    "a plugin": "plugins=[{}]",
}


@pytest.mark.parametrize("query", NAMES_A_FILE.values(), ids=NAMES_A_FILE)
def test_no_key_of_a_link_reads_a_file_or_tells_whether_it_is_there(start: Start, secret: Path, query: str) -> None:
    there, not_there = (refused(start, query.format(file)) for file in (secret, secret.with_name("nothing.csv")))
    assert "a link reads no files of this machine" in there
    assert there.replace("secret", "nothing") == not_there
    assert HELD not in there
    assert str(secret.parent) not in there


@pytest.mark.parametrize("query", NAMES_A_FILE.values(), ids=NAMES_A_FILE)
def test_nor_does_a_configuration_inside_it(start: Start, secret: Path, query: str) -> None:
    said = {key: yaml.safe_load(value) for key, (value,) in parse_qs(query.format(secret)).items()}
    begins = said.pop("config", "figure5")
    data = yaml.safe_load(packaged_configs()[str(begins)].read_text(encoding="utf-8"))
    for key, value in said.items():
        *above, last = key.split(".")
        place = data
        for name in above:
            place[name] = {"preset": place[name]} if isinstance(place.get(name), str) else place.get(name, {})
            place = place[name]
        place[last] = value
    assert "a link reads no files" in refused(start, urlencode({"yaml": packed(yaml.safe_dump(data))}))


def test_a_plugin_in_a_link_is_not_run(start: Start, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    refused(start, f"plugins=[{tmp_path / 'mine.py'}]")
    refused(start, f"plugins=[{os.path.relpath(tmp_path / 'mine.py', Path(start.source).parent)}]")
    assert not (tmp_path / "ran").exists()


def test_files_that_the_start_names_may_be_read_and_no_others_beside(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "order.csv").write_text("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", encoding="utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text("schedule: order.csv\ncosts: {forward: 1, backward: 2}\n", encoding="utf-8")
    start = Start.of(str(mine))
    for query in ("", start.link, "costs.forward=2"):
        assert "error" not in asked(start, query)
    assert "a link reads no files" in refused(start, f"schedule={secret}")
    assert "a link reads no files" in refused(start, "schedule=secret.csv")
    elsewhere = Start.of("figure5")
    assert refused(elsewhere, start.link).startswith("order.csv: a link reads no files")


def test_a_link_holds_a_configuration_of_a_users_own(tmp_path: Path, start: Start) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"# with a comment\nschedule: zb-h1\n{UNIT}", encoding="utf-8")
    _, there = Link.parse(Start.of(str(mine)).link).read(start)
    assert (there.choice.name, there.choice.ranks, there.choice.micro_batches) == ("zb-h1", 4, 8)
    assert len(Start.of(str(mine)).link) < 300


def test_settings_are_those_of_the_command_line(start: Start) -> None:
    _, experiment = Link.parse("schedule=1f1b&pipeline.micro_batches=40&costs.forward=2 ms").read(start)
    assert (experiment.choice.name, experiment.choice.micro_batches) == ("1f1b", 40)
    same = simulate("figure5", **{"schedule": "1f1b", "pipeline.micro_batches": 40, "costs.forward": "2 ms"})
    from dualpipe_sim.simulation import run

    assert run(experiment).to_dict() == same.to_dict()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("config=figure6", "config: there is no packaged config 'figure6'; did you mean 'figure5'?"),
        ("config=../configs/figure5.yaml", "config: there is no packaged config '../configs/figure5.yaml'"),
        ("config=/etc/passwd", "config: there is no packaged config '/etc/passwd'"),
        ("yaml=abc", "yaml: cannot be unpacked; was the whole link copied?"),
        (f"yaml={packed(UNIT)[:-9]}", "yaml: cannot be unpacked; was the whole link copied?"),
        (f"config=figure5&yaml={packed(UNIT)}", "config: a link begins with a packaged config or has a yaml"),
        (f"yaml={packed('[1]')}", "yaml: must be a mapping of keys like 'pipeline:' and 'schedule:', got [1]"),
        (f"yaml={packed(UNIT + ' ' * 300_000)}", "yaml: a link's configuration has at most 200,000 bytes"),
        ("x" * (MOST_CHARACTERS + 1), "the link has 16,001 characters; 16,000 are the most"),
        ("pipeline ranks=3", "pipeline ranks: must be a key like pipeline.ranks"),
        ("pipeline.ranks=none", "pipeline.ranks: must be a whole number, 1 or more, got 'none'"),
        ("pipelin.ranks=4", "pipelin: unknown key; did you mean 'pipeline'?"),
        ("pipeline.ranks=[", "--set pipeline.ranks: line 1, column 2: expected the node content, but found"),
        ("costs={kind: mine}", "costs: those of kind 'mine' stay as they were when the page was started"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_that_names_it(start: Start, query: str, said: str) -> None:
    assert refused(start, query).startswith(said)


@pytest.mark.parametrize(
    ("query", "most"),
    [
        ("pipeline.micro_batches=1000000&compare=[]", "; the most is 8 ranks × 124,996 micro-batches; "),
        ("pipeline.micro_batches=1000000000&compare=[1f1b, dualpipe]", "most is 8 ranks × 62,496 micro-batches; "),
        ("pipeline.ranks=200000&compare=[]", "; the most is 1,413 ranks × 1 micro-batch; "),
        ("pipeline.ranks=100000000&compare=[]", "; the most is 1,413 ranks × 1 micro-batch; "),
        ("schedule={name: hanayo, waves: 50}&pipeline.micro_batches=4000&compare=[]", "8 ranks × 1,246 micro-batches"),
        ("config=deepseek_v3&compare=[]&model.layers=4000", "; the most is 16 ranks × 95 micro-batches; "),
    ],
)  # fmt: skip
def test_more_than_a_page_answers_is_refused_before_it_is_built(start: Start, query: str, most: str) -> None:
    said = refused(start, query)
    assert "are more than a page answers (4e+06); " in said
    assert most in said


def test_the_largest_that_is_named_is_not_refused(start: Start) -> None:
    assert "error" not in asked(start, "pipeline.micro_batches=124996&compare=[]")
    assert "error" in asked(start, "pipeline.micro_batches=124997&compare=[]")
