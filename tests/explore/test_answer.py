"""What the page shows of a link is what the command line says of its YAML."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from dualpipe_sim.config import packaged_configs
from dualpipe_sim.config.keys import all_keys
from dualpipe_sim.experiment import Choice, Experiment
from dualpipe_sim.explore.answer import Answers, explored
from dualpipe_sim.explore.controls import words
from dualpipe_sim.explore.downloads import DOWNLOADS
from dualpipe_sim.explore.link import Start
from dualpipe_sim.result import Result
from dualpipe_sim.simulation import run_or_refuse
from tests.pages import script

if TYPE_CHECKING:
    from tests.conftest import CommandLine

RUN = [name for name in packaged_configs() if not name.startswith(("plan", "search"))]
LINKS = {
    "as it is": "",
    "set": "pipeline.micro_batches=40&schedule=zb-h1&costs.backward_weight=0.7&compare=[]",
    "another's": "config=deepseek_v2_lite&pipeline.ranks=4&cluster.infiniband.bandwidth=30 GB/s&schedule=dualpipev",
    "own, not among those compared": "schedule=gpipe",
    "with its size": "schedule={name: chimera, micro_batches: 24}&compare=[1f1b]",
    "slow ranks": "noise={slow_ranks: {3: 1.2}}",
}


def ask(start: Start, part: str, query: str, place: int = 0) -> dict[str, Any]:
    said: dict[str, Any] = Answers(start)({"part": part, "query": query, "place": place})
    assert "error" not in said, said
    return said


@pytest.mark.parametrize("query", LINKS.values(), ids=LINKS)
def test_numbers_are_those_of_the_command_line_to_the_last_digit(
    start: Start, command_line: CommandLine, tmp_path: Path, query: str
) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_bytes(ask(start, "experiment.yaml", query)["content"])
    ran = json.loads(command_line("run", file, "--json").stdout)
    shown = {one["label"]: one for one in ask(start, "table", query)["table"]["numbers"]}
    (own,) = (one for one in ask(start, "head", query)["schedules"] if one["own"])
    assert {key: shown[own["label"]][key] for key in ("makespan_s", "step_time_s", "bubble_ratio")} == {
        key: ran[key] for key in ("makespan_s", "step_time_s", "bubble_ratio")
    }
    whole = json.loads(ask(start, "numbers.json", query)["content"])["runs"]
    compared = json.loads(command_line("compare", file, "--json").stdout)["runs"]
    assert [run for run in whole if run in compared] == compared
    assert {key: one for key, one in ran.items() if key not in ("schema", "step_time_error")} in whole


def test_python_says_the_same(start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "experiment.py"
    file.write_bytes(ask(start, "experiment.py", "pipeline.micro_batches=32").get("content", b""))
    own = script(file)
    assert [run.makespan_s for run in own.runs] == [
        one["makespan_s"] for one in ask(start, "table", "pipeline.micro_batches=32")["table"]["numbers"]
    ]
    assert "dualpipe" in capsys.readouterr().out
    assert Path("chart.png").exists()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_files_are_what_their_names_say(start: Start) -> None:
    files = {name: ask(start, name, "compare=[]")["content"] for name in DOWNLOADS}
    assert files["chart.png"].startswith(b"\x89PNG")
    assert b"<svg" in files["chart.svg"][:1000]
    assert files["order.csv"].startswith(b"0F0,0F1")
    assert len(files["order.csv"].splitlines()) == 8
    assert len(json.loads(files["trace.json"])["traceEvents"]) > 300


@pytest.mark.parametrize("config", ["small", "figure5", "deepseek_v3_pair", "deepseek_v2_lite"])
def test_a_control_set_to_what_it_shows_changes_nothing(start: Start, config: str) -> None:
    query = urlencode({"config": config})
    own = explored(start, query).own().makespan_s
    controls = ask(start, "head", query)["controls"]
    assert len({one["path"] for one in controls}) == len(controls) > 5
    for one in controls:
        if one["value"]:
            changed = explored(start, f"{query}&{urlencode({one['path']: one['value']})}")
            assert changed.own().makespan_s == pytest.approx(own, rel=1e-5), one


@pytest.mark.parametrize("config", RUN)
def test_schedules_written_back_change_nothing(start: Start, config: str) -> None:
    query = urlencode({"config": config})
    before = ask(start, "head", query)["schedules"]
    own = next(one["value"] for one in before if one["own"])
    entries = ", ".join(one["value"] for one in before)
    again = ask(start, "head", f"{query}&{urlencode({'compare': f'[{entries}]', 'schedule': own})}")["schedules"]
    assert again == before


def test_an_order_in_rows_stays_one_entry_of_the_list(start: Start) -> None:
    rows = '"0F0,0F1,0B0,0B1\\n1F0,1B0,1F1,1B1\\n"'
    query = urlencode({"pipeline": "{}", "compare": f"[{rows}, 1f1b]", "schedule": rows})
    chosen = ask(start, "head", query)["schedules"]
    assert [one["label"] for one in chosen] == ["order", "1f1b"]
    again = urlencode({"pipeline": "{}", "compare": f"[{chosen[0]['value']}]", "schedule": chosen[0]["value"]})
    (one,) = ask(start, "head", again)["schedules"]
    assert one["own"]


def test_every_control_is_a_key_with_its_meaning(start: Start) -> None:
    known = {key.path.replace("[uniform]", ""): key for key in all_keys()}
    for config in RUN:
        for one in ask(start, "head", urlencode({"config": config}))["controls"]:
            assert one["about"] == known[one["path"].removesuffix(".preset")].meaning
            assert one["unit"] == known[one["path"]].unit
            if one["choices"] and one["value"] and one["path"] != "pipeline.layout":  # which may be a list, too
                assert one["value"] in one["choices"]
    assert {"cluster.nvlink.bandwidth", "training.recompute.core", "costs.forward"} <= set(words()["keys"])


def test_a_schedule_that_refuses_the_size_leaves_the_others(start: Start) -> None:
    query = "compare=[dualpipe, 1f1b]&schedule=1f1b&pipeline.ranks=7"
    assert "dualpipe needs an even number of ranks" in ask(start, "run", query, 0)["refused"]
    assert ask(start, "run", query, 1)["page"]["runs"][0]["label"] == "1f1b"
    rows = ask(start, "table", query)["table"]["rows"]
    assert len(rows[0]) > len(rows[1]) == 3


def test_what_is_shown_again_is_not_run_again(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def runs(experiment: Experiment, choice: Choice) -> Result:
        ran.append(choice.name)
        return run_or_refuse(experiment, choice)

    monkeypatch.setattr("dualpipe_sim.explore.answer.run_or_refuse", runs)
    ask(start, "table", "pipeline.micro_batches=36&compare=[1f1b]")
    ask(start, "table", "pipeline.micro_batches=36&compare=[1f1b, gpipe]")
    ask(start, "table", "pipeline.micro_batches=36&compare=[gpipe]&schedule=1f1b")
    assert sorted(ran) == ["1f1b", "dualpipe", "gpipe"]
    ask(start, "table", "pipeline.micro_batches=38&compare=[gpipe]&schedule=1f1b")
    assert len(ran) == 5


def test_a_fault_of_the_program_says_no_more_than_its_kind(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("/home/somebody/file")

    monkeypatch.setattr("dualpipe_sim.explore.answer.run_or_refuse", fails)
    said = Answers(start)({"part": "run", "query": "costs.forward=1.25", "place": 0})
    assert said == {"error": "this setting meets a fault of the program (KeyError)"}
