"""A timeline as Chakra execution traces, one a rank, which ASTRA-sim and other simulators of networks read.

A file is a row of protobuf messages, each after its length as a varint: one GlobalMetadata, then a Node for each task,
send and receive. The schema: https://github.com/mlcommons/chakra, ``schema/protobuf/et_def.proto``; the few fields used
here are encoded by hand (https://protobuf.dev/programming-guides/encoding/), since chakra is no package on PyPI.

In protobuf's encoding a field is a tag and a value. The tag is a number: the field's number in the schema shifted left
by 3, with the kind of value in the low bits, 0 for a number (a varint) and 2 for bytes after their length. The numbers
passed to the functions at the end of this file are the field numbers of the schema.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from dualpipe_sim.base.arrays import IntArray
from dualpipe_sim.base.files import made_folder, written_together
from dualpipe_sim.errors import UserError
from dualpipe_sim.export.spans import Span, tasks, transfers
from dualpipe_sim.graph.timeline import Timeline
from dualpipe_sim.order.ops import BESIDE

_VERSION = "0.0.4"
"""Of the schema, as chakra's own generator writes it."""

_COMPUTE, _SEND, _RECEIVE = 4, 5, 6
"""Values of the schema's NodeType."""


class _Node(NamedTuple):
    """A task, send or receive, with its dependencies by id."""

    span: Span
    type: int
    ctrl_deps: tuple[int, ...]
    data_deps: tuple[int, ...]
    attributes: bytes


def write_chakra(timeline: Timeline, prefix: str | Path) -> None:
    """Write ``PREFIX.0.et``, ``PREFIX.1.et``, …, one a rank, into a folder that is made if need be.

    A task is a COMP node that takes as long as it took in the timeline, all-to-alls inside it included; each waits for
    the task before it on its rank (``ctrl_deps``) and for its receives, and a send for the task that makes its tensor
    (``data_deps``). Times are whole microseconds.

    >>> from pathlib import Path
    >>> from dualpipe_sim import simulate
    >>> write_chakra(simulate("small").played, "small")
    >>> sorted(path.name for path in Path().glob("small.*.et"))
    ['small.0.et', 'small.1.et', 'small.2.et', 'small.3.et']

    Raises:
        UserError: the place cannot be written to, or transfers are given as a time, so that nobody knows their bytes.

    """
    if str(prefix).endswith("/"):
        raise UserError(f"{prefix}: is a folder; name what the files' names begin with, such as {prefix}dualpipe")
    sizes = timeline.graph.transfers.size_bytes
    if len(sizes) and not sizes.all():
        raise UserError(
            f"{prefix}: a Chakra trace holds the bytes of every transfer, but here transfers are given as a time; set "
            "costs.transfer to a size such as 33.6 MB, and a cluster for it"
        )
    if timeline.graph.schedule.of_kinds(*BESIDE).any():
        raise UserError(
            f"{prefix}: a Chakra trace holds a rank's ops one after the other; copies to the host, and gathered "
            "weights, run beside them"
        )
    made_folder(Path(prefix).parent)
    by_rank = _nodes(timeline)
    with written_together(*(f"{prefix}.{rank}.et" for rank in range(timeline.ranks))) as parts:
        for nodes, part in zip(by_rank, parts, strict=True):
            with part.open("wb") as file:
                file.write(_delimited(_bytes(1, _VERSION.encode())))
                for number, node in enumerate(nodes):
                    file.write(_delimited(_encode(number, node)))


def _nodes(timeline: Timeline) -> list[list[_Node]]:
    """Return each rank's nodes; a node's id is its place: tasks first, then sends and receives in their order.

    Sends and receives of a rank are collected in one list, ordered by their starts, before the tasks are made: a task
    names the receives that it waits for by their ids. Such an id is the number of tasks of the rank, plus the place in
    that list.
    """
    graph = timeline.graph
    first = timeline.first_task_of_rank
    place_of_task = (range(len(timeline.rank)) - first[timeline.rank]).tolist()  # on its rank, from 0
    sends: list[list[_Node]] = [[] for _ in range(timeline.ranks)]
    received: defaultdict[int, list[int]] = defaultdict(list)  # task → ids of the receives that it waits for
    producers, consumers = _task_of(timeline, graph.transfers.producer), _task_of(timeline, graph.transfers.consumer)
    by_start = sorted(enumerate(transfers(timeline)), key=lambda item: item[1][0].start_ns)
    for index, (send, receive) in by_start:
        source, target = sends[send.rank], sends[receive.rank]
        attributes = _transfer_attributes(send.rank, receive.rank, int(graph.transfers.size_bytes[index]), index)
        source.append(_Node(send, _SEND, (), (place_of_task[producers[index]],), attributes))
        received[consumers[index]].append(len(target) + int(first[receive.rank + 1] - first[receive.rank]))
        target.append(_Node(receive, _RECEIVE, (), (), attributes))
    nodes: list[list[_Node]] = [[] for _ in range(timeline.ranks)]
    for index, span in enumerate(tasks(timeline)):
        before = (place_of_task[index] - 1,) if place_of_task[index] else ()
        nodes[span.rank].append(_Node(span, _COMPUTE, before, tuple(received[index]), _not_on_cpu()))
    return [own + passed for own, passed in zip(nodes, sends, strict=True)]


def _task_of(timeline: Timeline, op_rows: IntArray) -> list[int]:
    """Return the task that each of some ops is part of."""
    tasks_of_ops: list[int] = timeline.graph.schedule.task_of_op[op_rows].tolist()
    return tasks_of_ops


def _encode(number: int, node: _Node) -> bytes:
    """Encode a Node: id, name, type, dependencies, start and duration, attributes."""
    start_us, end_us = (ns // 1000 for ns in (node.span.start_ns + 500, node.span.end_ns + 500))
    return b"".join(
        (
            _number(1, number),
            _bytes(2, node.span.action.encode()),
            _integer(3, node.type),
            _integers(4, node.ctrl_deps),
            _integers(5, node.data_deps),
            _number(6, start_us),
            _number(7, end_us - start_us),
            node.attributes,
        )
    )


def _transfer_attributes(source: int, target: int, size_bytes: int, tag: int) -> bytes:
    """Encode what a send and its receive have in common; the tag, a transfer's number, pairs them."""
    # int64 for the size and int32 for the rest: what chakra's feeder reads; ASTRA-sim's takes any integer
    return b"".join(
        (
            _not_on_cpu(),
            _attribute("comm_src", _integer(7, source)),
            _attribute("comm_dst", _integer(7, target)),
            _attribute("comm_size", _integer(9, size_bytes)),
            _attribute("comm_tag", _integer(7, tag)),
        )
    )


def _not_on_cpu() -> bytes:
    """Encode that a node runs on the GPU: where this is missing, chakra's feeder takes it for a CPU's."""
    return _attribute("is_cpu_op", _integer(27, 0))


def _attribute(name: str, value: bytes) -> bytes:
    """Encode an AttributeProto: a name and one value, whose field number says its type."""
    return _bytes(10, _bytes(1, name.encode()) + value)


def _delimited(message: bytes) -> bytes:
    return _varint(len(message)) + message


def _number(field: int, value: int) -> bytes:
    """Encode a field outside a oneof: there 0 is what a missing field says, and is left out."""
    return _integer(field, value) if value else b""


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _delimited(value)


def _integers(field: int, values: tuple[int, ...]) -> bytes:
    return _bytes(field, b"".join(map(_varint, values))) if values else b""


def _varint(value: int) -> bytes:
    """Encode a number of 0 or more in groups of seven bits, the lowest first; a high bit says that more follow.

    >>> _varint(300).hex()
    'ac02'
    """
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
