"""The server: tools over the Model Context Protocol (https://modelcontextprotocol.io), on standard input and output."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from mcp import MCPError
from mcp.server import Server
from mcp.server.stdio import stdio_server

from dualpipe_sim.answers import strict_json
from dualpipe_sim.answers.schemas import answer_schema
from dualpipe_sim.base.files import read_text
from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.config.yaml_text import about
from dualpipe_sim.errors import quoted
from dualpipe_sim.mcp_server.tools import TOOLS, Answers, Tool
from dualpipe_sim.serving.workers import Lost, TooLong, Workers
from dualpipe_sim.version import __version__

SECONDS = 60.0
"""How long a call may take where nothing else is said."""

_SCHEMA = "dualpipe-sim://schema"
_CONFIGS = "dualpipe-sim://configs/"
_ABOUT = (
    "Simulates pipeline-parallel training schedules (DualPipe, 1F1B, zero bubble, Chimera and others): orders, times, "
    "bubbles and their causes, memory. Begin with a packaged configuration and settings, or with YAML of your own; the "
    f"resource {_SCHEMA} is the JSON Schema of that, {_CONFIGS}NAME a packaged one. Seconds are in keys that end with "
    "_s; where costs have no unit they are units of no clock."
)


def server(folder: Path | None = None, seconds: float = SECONDS) -> Server[Workers]:
    """Return the server.

    Args:
        folder: whose files tools may read; None for none but the package's own.
        seconds: how long a call may take.

    """

    @asynccontextmanager
    async def workers(_: Server[Workers]) -> AsyncIterator[Workers]:
        found = Workers(Answers(folder), count=1)
        try:
            yield found
        finally:
            await found.close()

    async def call(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:  # noqa: ANN401 - theirs
        return await answered(context.lifespan_context, _tool(params.name), params.arguments or {}, seconds)

    return Server(
        "dualpipe-sim",
        version=__version__,
        title="dualpipe-sim",
        instructions=_ABOUT,
        lifespan=workers,
        on_list_tools=_list_tools,
        on_call_tool=call,
        on_list_resources=_list_resources,
        on_read_resource=_read_resource,
    )


def serve(folder: Path | None = None, seconds: float = SECONDS) -> None:
    """Serve a client on standard input and output until it goes.

    Ctrl-C and SIGTERM end it at once: nothing is torn, workers end with it, and who waits for input would not.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    anyio.run(_serve, server(folder, seconds))


async def _serve(serving: Server[Workers]) -> None:
    async with stdio_server() as (read, write):
        await serving.run(read, write, serving.create_initialization_options())


async def answered(
    workers: Workers, tool: Tool, arguments: Mapping[str, Any], seconds: float = SECONDS
) -> types.CallToolResult:
    """Return what a call of a tool is answered: its answer, or the one line that says why there is none."""
    refused = _refusal(tool, arguments)
    return _result({"error": refused} if refused else await _asked(workers, tool, arguments, seconds))


def _tool(name: str) -> Tool:
    if name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"there is no tool {name!r} (known: {', '.join(TOOLS)})")
    return TOOLS[name]


def _refusal(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Return what is wrong with arguments by the tool's schema, in one line, or nothing."""
    known = tool.inputs["properties"]
    for name in arguments:
        if name not in known:
            return f"{tool.command}: there is no argument {quoted(name)} (it takes {', '.join(known) or 'none'})"
    error = best_match(Draft202012Validator(tool.inputs).iter_errors(arguments))
    if error is None:
        return ""
    where = ".".join(map(str, error.path))
    return " ".join(f"{where or tool.command}: {error.message}".split())[:500]


async def _asked(workers: Workers, tool: Tool, arguments: Mapping[str, Any], seconds: float) -> Mapping[str, object]:
    """Return a worker's row: an answer, or the error that there is none."""
    try:
        async with workers.one() as worker:
            return await worker({"tool": tool.command, "arguments": dict(arguments)}, seconds)
    except TooLong:
        return {"error": f"this takes more than {seconds:g} s; take smaller sizes or fewer schedules"}
    except Lost:
        return {"error": "the process that was to answer this died, perhaps for want of memory; take smaller sizes"}


def _result(row: Mapping[str, object]) -> types.CallToolResult:
    if "error" in row:
        line = " ".join(str(row["error"]).split())
        return types.CallToolResult(content=[types.TextContent(type="text", text=line)], is_error=True)
    text = types.TextContent(type="text", text=strict_json(row["answer"]))  # for clients that take only text
    return types.CallToolResult(content=[text], structured_content=row["answer"])


async def _list_tools(_context: object, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    only_reads = types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    return types.ListToolsResult(
        tools=[
            types.Tool(
                name=name,
                description=tool.about,
                input_schema=tool.inputs,
                output_schema=answer_schema(tool.command),
                annotations=only_reads,
            )
            for name, tool in TOOLS.items()
        ]
    )


async def _list_resources(_context: object, _params: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    schema = types.Resource(
        name="schema",
        uri=_SCHEMA,
        description="The JSON Schema of a configuration.",
        mime_type="application/schema+json",
    )
    configs = [
        types.Resource(name=name, uri=_CONFIGS + name, description=about(read_text(path)), mime_type="application/yaml")
        for name, path in packaged_configs().items()
    ]
    return types.ListResourcesResult(resources=[schema, *configs])


async def _read_resource(_context: object, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    name = uri.removeprefix(_CONFIGS)
    if uri == _SCHEMA:
        from dualpipe_sim.config.json_schema import json_schema

        text, kind = json.dumps(json_schema()), "application/schema+json"
    elif name in packaged_configs():
        text, kind = read_text(packaged_configs()[name]), "application/yaml"
    else:
        raise MCPError(types.INVALID_PARAMS, f"there is no resource {uri}")
    found = types.TextResourceContents(uri=uri, text=text, mime_type=kind)
    return types.ReadResourceResult(contents=[found])
