"""Chakra traces: decoded by protobuf itself, and replayed as a simulator does, which gives the same times."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dualpipe_sim import UserError, simulate
from dualpipe_sim.export import write_chakra
from dualpipe_sim.result import Result

if TYPE_CHECKING:
    from tests.conftest import CommandLine

COMP, SEND, RECV = 4, 5, 6
LATENCY_US, BYTES_PER_US = 5.0, 1e4

# Bytes over links of 10 GB/s with 5 us of latency; GPUs of one node.
CONFIG = {
    "pipeline": {"ranks": 4, "micro_batches": 8},
    "schedule": "dualpipe",
    "costs": {
        "kind": "uniform",
        "forward": "10 ms",
        "backward_input": "11 ms",
        "backward_weight": "9 ms",
        "transfer": "33.6 MB",
    },
    "cluster": {
        "gpus_per_node": 4,
        "nvlink": {"bandwidth": "10 GB/s", "latency": "5 us"},
        "infiniband": {"bandwidth": "10 GB/s", "latency": "5 us"},
    },
}

# The fields of chakra's schema that traces of pipelines use: https://github.com/mlcommons/chakra,
# schema/protobuf/et_def.proto. (message, field, number, type, repeated)
SCHEMA = [
    ("GlobalMetadata", "version", 1, "STRING", False),
    ("AttributeProto", "name", 1, "STRING", False),
    ("AttributeProto", "int32_val", 7, "INT32", False),
    ("AttributeProto", "int64_val", 9, "INT64", False),
    ("AttributeProto", "bool_val", 27, "BOOL", False),
    ("Node", "id", 1, "UINT64", False),
    ("Node", "name", 2, "STRING", False),
    ("Node", "type", 3, "INT32", False),
    ("Node", "ctrl_deps", 4, "UINT64", True),
    ("Node", "data_deps", 5, "UINT64", True),
    ("Node", "start_time_micros", 6, "UINT64", False),
    ("Node", "duration_micros", 7, "UINT64", False),
    ("Node", "attr", 10, "AttributeProto", True),
]


def messages() -> dict[str, Any]:
    """Chakra's messages as protobuf's own classes, made from the schema."""
    descriptor_pb2 = importlib.import_module("google.protobuf.descriptor_pb2")
    factory = importlib.import_module("google.protobuf.message_factory")
    file = descriptor_pb2.FileDescriptorProto(name="et_def.proto", package="ChakraProtoMsg", syntax="proto3")
    made: dict[str, Any] = {}
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, field, number, kind, repeated in SCHEMA:
        if message not in made:
            made[message] = file.message_type.add(name=message)
        one = made[message].field.add(
            name=field, number=number, label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        )
        if hasattr(kinds, f"TYPE_{kind}"):
            one.type = getattr(kinds, f"TYPE_{kind}")
        else:
            one.type, one.type_name = kinds.TYPE_MESSAGE, f".ChakraProtoMsg.{kind}"
        if field.endswith("_val"):
            one.oneof_index = 0
    made["AttributeProto"].oneof_decl.add(name="value")
    return {name.rpartition(".")[2]: cls for name, cls in factory.GetMessages([file]).items()}


def read(path: Path) -> list[dict[str, Any]]:
    """A file's nodes, with attributes as keys, after its metadata."""
    classes = messages()
    data = path.read_bytes()
    parts = list(split(data))
    assert classes["GlobalMetadata"].FromString(parts[0]).version == "0.0.4"
    nodes = []
    for part in parts[1:]:
        node = classes["Node"].FromString(part)
        assert node.SerializeToString(deterministic=True) == part
        values = {attr.name: getattr(attr, attr.WhichOneof("value")) for attr in node.attr}
        names = [field for message, field, *_ in SCHEMA if message == "Node" and field != "attr"]
        nodes.append({name: getattr(node, name) for name in names} | values)
    return nodes


def split(data: bytes) -> Iterator[bytes]:
    """Cut a file into its messages, each after its length, with protobuf's own reading of varints."""
    decode = importlib.import_module("google.protobuf.internal.decoder")._DecodeVarint32
    at = 0
    while at < len(data):
        size, at = decode(data, at)
        assert at + size <= len(data)
        yield data[at : at + size]
        at += size


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    prefix = tmp_path_factory.mktemp("chakra") / "dualpipe"
    write_chakra(simulate(CONFIG).played, prefix)
    return [read(Path(f"{prefix}.{rank}.et")) for rank in range(4)]


def test_nodes_are_the_ranks_tasks_in_order_and_their_sends_and_receives(ranks: list[list[dict[str, Any]]]) -> None:
    order = simulate(CONFIG).played.graph.schedule.order
    for rank, nodes in enumerate(ranks):
        assert [node["id"] for node in nodes] == list(range(len(nodes)))
        tasks = [node for node in nodes if node["type"] == COMP]
        assert [node["name"] for node in tasks] == list(map(str, order[rank]))
        assert [list(node["ctrl_deps"]) for node in tasks] == [[], *[[index] for index in range(len(tasks) - 1)]]
        assert all(node["is_cpu_op"] is False for node in nodes)
        assert {node["type"] for node in nodes} == {COMP, SEND, RECV}


def test_every_send_has_its_receive_with_the_same_tag_and_size(ranks: list[list[dict[str, Any]]]) -> None:
    ends: dict[int, list[list[Any]]] = {SEND: [], RECV: []}
    for rank, nodes in enumerate(ranks):
        for node in nodes:
            if node["type"] != COMP:
                assert node["comm_src" if node["type"] == SEND else "comm_dst"] == rank
                assert node["comm_size"] == 33_600_000
                ends[node["type"]].append([node[f"comm_{key}"] for key in ("src", "dst", "size", "tag")])
    assert len(ends[SEND]) == 2 * 2 * 3 * 4  # forwards and gradients, two pipes, three hops, four micro-batches
    assert sorted(ends[SEND]) == sorted(ends[RECV])
    assert len({tag for *_, tag in ends[SEND]}) == len(ends[SEND])


def test_a_replay_of_the_files_alone_gives_the_simulated_times(ranks: list[list[dict[str, Any]]]) -> None:
    """Play nodes as ASTRA-sim does: as soon as all they depend on is done, messages over links of their own."""
    done: dict[tuple[int, int], float] = {}
    sent: dict[int, float] = {}
    todo = {(rank, node["id"]): node for rank, nodes in enumerate(ranks) for node in nodes}
    while todo:
        before = len(todo)
        for (rank, number), node in list(todo.items()):
            waits_for = [(rank, other) for other in (*node["ctrl_deps"], *node["data_deps"])]
            if any(one not in done for one in waits_for) or (node["type"] == RECV and node["comm_tag"] not in sent):
                continue
            ready = max((done[one] for one in waits_for), default=0.0)
            if node["type"] == COMP:
                ready += node["duration_micros"]
            elif node["type"] == SEND:
                ready += LATENCY_US + node["comm_size"] / BYTES_PER_US
                sent[node["comm_tag"]] = ready
            else:
                ready = sent[node["comm_tag"]]
            done[rank, number] = ready
            del todo[rank, number]
        assert len(todo) < before, "the files wait for each other in a circle"
    result = simulate(CONFIG)
    assert max(done.values()) == pytest.approx(1e6 * result.played.makespan_s, abs=1)
    for (rank, number), end in done.items():
        node = ranks[rank][number]
        assert end == pytest.approx(node["start_time_micros"] + node["duration_micros"], abs=1)


def test_durations_of_layered_costs_are_those_of_whole_tasks(short_v3: Result, tmp_path: Path) -> None:
    timeline = short_v3.played
    write_chakra(timeline, tmp_path / "v3")
    tasks = [node for node in read(tmp_path / "v3.5.et") if node["type"] == COMP]
    seconds = (timeline.task_end_s - timeline.task_start_s)[timeline.rank == 5]
    assert [node["duration_micros"] for node in tasks] == pytest.approx(1e6 * seconds, abs=1)


def test_transfers_given_as_a_time_are_refused_with_a_way_out(command_line: CommandLine, tmp_path: Path) -> None:
    prefix = tmp_path / "trace"
    with pytest.raises(UserError, match="holds the bytes of every transfer"):
        write_chakra(simulate("figure5").played, prefix)
    done = command_line("trace", "small", "--format", "chakra", "-o", prefix)
    assert (done.returncode, done.stderr) == (0, "")
    done = command_line("trace", "small", "--format", "chakra", "-o", prefix, "--set", "costs.transfer=1 ms")
    assert done.returncode == 2
    assert done.stderr == (
        f"dualpipe-sim: {prefix}: a Chakra trace holds the bytes of every transfer, but here transfers are given as a "
        "time; set costs.transfer to a size such as 33.6 MB, and a cluster for it\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"trace.{rank}.et" for rank in range(4)]


def test_a_folder_is_refused_since_names_begin_with_a_prefix(command_line: CommandLine, tmp_path: Path) -> None:
    done = command_line("trace", "small", "--format", "chakra", "-o", f"{tmp_path}/")
    assert done.returncode == 2
    assert done.stderr == (
        f"dualpipe-sim: {tmp_path}/: is a folder; name what the files' names begin with, such as {tmp_path}/dualpipe\n"
    )
