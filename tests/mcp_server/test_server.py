"""Tools over the Model Context Protocol, asked by the protocol's own client: what commands answer, and nothing else."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import anyio
import psutil
import pytest
from jsonschema import Draft202012Validator
from mcp import MCPError, StdioServerParameters, stdio_client
from mcp.client import Client

from dualpipe_sim.answers.schemas import answer_schema
from dualpipe_sim.config.json_schema import json_schema
from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.mcp_server.server import server
from dualpipe_sim.mcp_server.tools import MOST_CHARACTERS, TOOLS
from tests.pages import blocks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_types import CallToolResult

    from tests.conftest import CommandLine

SMALL = "pipeline: {ranks: 2, micro_batches: 4}\nschedule: 1f1b\ncosts: {forward: 1, backward: 2}\n"
WRONG = "0F0,0B0\n1B0,1F0\n"
LEGAL = "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"
PLAN = {"schedules": ["1f1b", "dualpipe"], "ranks": [2]}

Arguments = Mapping[str, Any]


def asked(calls: Callable[[Client], Awaitable[Any]], **options: Any) -> Any:  # noqa: ANN401 - whatever they return
    """Return what a client finds out from a server in this process."""

    async def main() -> Any:  # noqa: ANN401
        async with Client(server(**options)) as client:
            return await calls(client)

    return anyio.run(main)


def all_of(calls: list[tuple[str, Arguments]], **options: Any) -> list[CallToolResult]:  # noqa: ANN401
    """Return the results of some calls to one server."""

    async def one_by_one(client: Client) -> list[CallToolResult]:
        return [await client.call_tool(name, dict(arguments)) for name, arguments in calls]

    return asked(one_by_one, **options)  # type: ignore[no-any-return]


def said(result: CallToolResult) -> str:
    (content,) = result.content
    return content.text  # type: ignore[union-attr]


def refusal(result: CallToolResult) -> str:
    """Return the one line of a refused call."""
    assert result.is_error
    assert result.structured_content is None
    assert "\n" not in said(result)
    assert "Traceback" not in said(result)
    return said(result)


def test_tools_say_what_they_take_and_answer() -> None:
    listed = asked(lambda client: client.list_tools())
    assert [tool.name for tool in listed.tools] == ["run", "compare", "why", "plan", "check", "schedules"]
    for tool in listed.tools:
        assert tool.description
        assert tool.annotations.read_only_hint
        assert tool.output_schema == answer_schema(tool.name)
        Draft202012Validator.check_schema(tool.input_schema)
        assert all(one.get("description") for one in tool.input_schema["properties"].values())


AS_COMMANDS: list[tuple[str, Arguments, str]] = [
    ("run", {"config": "figure5"}, "run figure5"),
    ("run", {"config": "figure5", "settings": {"pipeline.micro_batches": 40, "schedule": "zb-h1"}},
     "run figure5 --set pipeline.micro_batches=40 --set schedule=zb-h1"),
    ("run", {"yaml": SMALL}, "run small.yaml"),
    ("run", {"yaml": SMALL, "settings": {"costs.transfer": "0.25 s", "schedule": {"name": "gpipe"}}},
     "run small.yaml --set 'costs.transfer=0.25 s' --set 'schedule={name: gpipe}'"),
    ("run", {"config": "deepseek_v3_pair"}, "run deepseek_v3_pair"),
    ("compare", {"config": "figure5"}, "compare figure5"),
    ("compare", {"yaml": SMALL, "settings": {"compare": ["gpipe"]}}, "compare small.yaml --set 'compare=[gpipe]'"),
    ("compare", {"config": "figure5", "settings": {"pipeline.micro_batches": 7}},
     "compare figure5 --set pipeline.micro_batches=7"),
    ("compare", {"config": "figure5", "by": "stages"}, "compare figure5 --by stages"),
    ("compare", {"config": "figure5", "by": "memory", "activations": 9}, "compare figure5 9 --by memory"),
    ("why", {"config": "figure5", "settings": {"schedule": "1f1b"}}, "why figure5 --set schedule=1f1b"),
    ("plan", {"config": "plan_deepseek_v2_lite", "settings": {"plan": PLAN}, "top": 2, "confirm": 0, "why": True},
     f"plan plan_deepseek_v2_lite --set 'plan={json.dumps(PLAN)}' --top 2 --confirm 0 --why"),
    ("check", {"order": WRONG}, "check wrong.csv"),
    ("check", {"order": LEGAL, "micro_batches": 3, "placement": "loop"},
     "check legal.csv --micro-batches 3 --placement loop"),
    ("schedules", {}, "schedules"),
]  # fmt: skip


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_answer_as_commands_do(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"small.yaml": SMALL, "wrong.csv": WRONG, "legal.csv": LEGAL}.items():
        Path(name).write_text(text)
    calls = [(arguments, command) for name, arguments, command in AS_COMMANDS if name == tool]
    assert calls
    results = all_of([(tool, arguments) for arguments, _ in calls])
    for (arguments, command), result in zip(calls, results, strict=True):
        told = json.loads(command_line(*shlex.split(command), "--json").stdout)
        assert not result.is_error, said(result)
        assert result.structured_content == told, arguments
        assert json.loads(said(result)) == told


ONE = "give either config, a packaged configuration's name, or yaml, one in full"
NO_FILES = "tools read no files of this machine (dualpipe-sim mcp --allow-files FOLDER)"
NO_PLUGINS = "plugins: tools run no files; start the server with them: dualpipe-sim --plugin FILE mcp"
REFUSED: list[tuple[str, Arguments, str]] = [
    ("run", {}, ONE),
    ("run", {"config": "figure5", "yaml": SMALL}, ONE),
    ("run", {"config": "figur"}, "config: there is no packaged configuration 'figur'; did you mean 'figure5'?"),
    ("run", {"config": 5}, "config: 5 is not of type 'string'"),
    ("run", {"name": "figure5"}, "run: there is no argument 'name' (it takes config, yaml, settings)"),
    ("run", {"yaml": "[1]"}, "yaml: must be a mapping of keys like 'pipeline:' and 'schedule:', got [1]"),
    ("run", {"yaml": "a: [\n"}, "yaml: line 2, column 1: expected the node content, but found '<stream end>'"),
    ("run", {"yaml": "pipeline: {ranks: 0}"}, "config: pipeline.ranks: must be a whole number, 1 or more, got 0"),
    ("run", {"config": "figure5", "settings": {"pipeline.rank": 4}}, "unknown key; did you mean 'ranks'?"),
    ("run", {"config": "figure5", "settings": {"plugins=[a.py]": 1}}, "settings: 'plugins=[a.py]' does not match"),
    ("run", {"config": "figure5", "settings": {"pipeline.micro_batches": 7}}, "dualpipe needs"),
    ("run", {"yaml": "plugins: [a.py]\n" + SMALL}, NO_PLUGINS),
    ("run", {"config": "figure5", "settings": {"plugins": ["a.py"]}}, NO_PLUGINS),
    ("run", {"config": "figure5", "settings": {"schedule": "/etc/passwd.csv"}}, f"passwd.csv: {NO_FILES}"),
    ("run", {"config": "figure5", "settings": {"model.hf": "/etc"}}, f"etc: {NO_FILES}"),
    ("run", {"yaml": SMALL, "settings": {"costs": {"kind": "measured", "file": "/etc/passwd"}}}, f"passwd: {NO_FILES}"),
    ("run", {"config": "/etc/passwd"}, "config: there is no packaged configuration '/etc/passwd' (known: chimera"),
    ("run", {"config": "figure5", "settings": {"pipeline.micro_batches": 10**7}}, "more than a tool answers (4e+06)"),
    ("why", {"config": "figure5", "settings": {"pipeline.micro_batches": 10**7}}, "more than a tool answers (4e+06)"),
    ("compare", {"config": "figure5", "by": "rank"}, "by: 'rank' is not one of ['ranks', 'stages', 'memory']"),
    ("compare", {"config": "figure5", "by": "memory"}, 'activations: a limit goes with "by": "memory", which needs'),
    ("compare", {"config": "figure5", "settings": {"pipeline.micro_batches": 10**5}}, "are more than a tool answers"),
    ("plan", {"config": "plan_deepseek_v2_lite", "top": 0}, "top: 0 is less than the minimum of 1"),
    ("plan", {"config": "figure5"}, "figure5: costs.kind: a plan needs a model on GPUs"),
    ("check", {}, "check: 'order' is a required property"),
    ("check", {"order": LEGAL, "placement": "here"}, "placement: 'here' is not one of"),
    ("check", {"order": "x" * MOST_CHARACTERS}, f"characters; {MOST_CHARACTERS:,} are the most"),
    ("schedules", {"name": "dualpipe"}, "schedules: there is no argument 'name' (it takes none)"),
]  # fmt: skip


def test_what_is_wrong_is_one_line() -> None:
    results = all_of([(name, arguments) for name, arguments, _ in REFUSED] + [("run", {"config": "figure5"})])
    for (name, arguments, line), result in zip(REFUSED, results[:-1], strict=True):
        assert line in refusal(result), (name, arguments)
        assert str(Path(packaged_configs()["figure5"]).parent) not in said(result)
    assert results[-1].structured_content["makespan_s"] == 66


def test_what_the_page_shows_is_answered() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto_mcp.md").read_text(encoding="utf-8")
    _, *shown = map(json.loads, blocks_of(page, "json"))  # the first is what a client keeps of the server
    run, compare, plan, check = all_of(list(zip(("run", "compare", "plan", "check"), shown, strict=True)))
    assert run.structured_content["micro_batches"] == 40
    assert {one["schedule"] for one in compare.structured_content["runs"]} == {"1f1b", "zb-h1", "dualpipe"}
    assert plan.structured_content["why"]["first"]
    assert not check.structured_content["legal"]


def test_an_unknown_tool_is_no_call() -> None:
    async def call(client: Client) -> None:
        with pytest.raises(MCPError, match=r"there is no tool 'search' \(known: run, compare,"):
            await client.call_tool("search", {})

    asked(call)


def test_a_call_has_so_much_time() -> None:
    (result,) = all_of([("run", {"config": "figure5"})], seconds=0.001)
    assert refusal(result) == "this takes more than 0.001 s; take smaller sizes or fewer schedules"


def test_another_process_takes_the_place_of_one_that_died() -> None:
    async def calls(client: Client) -> list[CallToolResult]:
        before = await client.call_tool("run", {"config": "figure5"})
        for worker in psutil.Process().children():
            worker.kill()
        died = await client.call_tool("run", {"config": "figure5"})
        return [before, died, await client.call_tool("run", {"config": "figure5"})]

    before, died, after = asked(calls)
    assert "died, perhaps for want of memory" in refusal(died)
    assert before.structured_content == after.structured_content


def test_the_schema_and_configurations_can_be_read() -> None:
    async def read(client: Client) -> dict[str, str]:
        listed = await client.list_resources()
        whole = {str(one.uri): await client.read_resource(one.uri) for one in listed.resources}
        with pytest.raises(MCPError, match="there is no resource"):
            await client.read_resource("dualpipe-sim://configs/../errors")
        return {uri: found.contents[0].text for uri, found in whole.items()}  # type: ignore[union-attr]

    found = asked(read)
    assert json.loads(found.pop("dualpipe-sim://schema")) == json_schema()
    assert found == {f"dualpipe-sim://configs/{name}": path.read_text() for name, path in packaged_configs().items()}


@asynccontextmanager
async def by_pipes(*words: str) -> AsyncIterator[Client]:
    """Yield a client of a server that is a process of its own."""
    command = StdioServerParameters(command=sys.executable, args=["-m", "dualpipe_sim", "mcp", *words])
    async with Client(stdio_client(command)) as client:
        yield client


def test_a_folder_may_be_read_and_nothing_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in {
        "mine/small.yaml": SMALL,
        "mine/own.yaml": "schedule: own.csv\ncosts: {forward: 1, backward: 2}\n",
        "mine/own.csv": LEGAL,
        "mine/plugged.yaml": "plugins: [a.py]\n" + SMALL,
        "mine/a.py": "raise SystemExit(3)\n",
        "beside.yaml": SMALL,
        "beside.csv": LEGAL,
    }.items():
        (tmp_path / name).write_text(text)
    (folder / "link.yaml").symlink_to(tmp_path / "beside.yaml")

    async def calls() -> list[CallToolResult]:
        async with by_pipes("--allow-files", str(folder)) as client:
            given: list[Arguments] = [
                {"config": "small.yaml"},
                {"config": "own.yaml"},
                {"yaml": (folder / "own.yaml").read_text()},
                {"config": "figure5"},
                {"config": "../beside.yaml"},
                {"config": "link.yaml"},
                {"config": str(tmp_path / "beside.yaml")},
                {"config": "small.yaml", "settings": {"schedule": "../beside.csv"}},
                {"config": "plugged.yaml"},
                {"config": "none.yaml"},
            ]
            return [await client.call_tool("run", dict(one)) for one in given]

    small, own, written, packaged, *refused, plugged, missing = anyio.run(calls)
    assert small.structured_content["makespan_s"] == 15  # (micro-batches + ranks - 1) × (F + B)
    assert own.structured_content == written.structured_content
    assert own.structured_content["schedule"] == "own.csv"
    assert packaged.structured_content["makespan_s"] == 66
    assert len(refused) == 4
    for one in refused:
        assert "tools read only files in the folder that the server was given" in refusal(one)
    assert refusal(plugged) == NO_PLUGINS
    assert refusal(missing) == "none.yaml: cannot be read: No such file or directory"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_without_a_word(program: list[str], number: signal.Signals) -> None:
    asks = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": asks})
    with subprocess.Popen([*program, "mcp"], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{message}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "dualpipe-sim"
        process.send_signal(number)
        said, wrong = process.communicate()
    assert (process.returncode, said, wrong) == (-number, "", "")


def test_without_the_package_it_is_one_line(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dualpipe_sim.mcp_server.server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    refused = command_line("mcp")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "dualpipe-sim: mcp needs the package mcp; pip install 'dualpipe-sim[mcp]'\n"


def test_what_is_no_folder_is_one_line(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = command_line("mcp", "--allow-files", tmp_path / "file")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith("file: is no folder\n")


def test_other_commands_load_nothing_of_it() -> None:
    """Whoever runs a schedule does not wait for a server's libraries."""
    code = (
        "import sys\nfrom dualpipe_sim.cli import main\nsys.argv = ['dualpipe-sim', 'run', 'figure5', '--json']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([one for one in ('anyio', 'jsonschema', 'mcp', 'starlette') if one in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
