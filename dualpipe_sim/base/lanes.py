"""Lanes: what runs one thing at a time on a rank."""

from __future__ import annotations

from enum import IntEnum


class Lane(IntEnum):
    """A lane of a rank: a number in columns, its name in text."""

    COMPUTE = 0
    ALLTOALL = 1
    SEND = 2
    RECV = 3
    COPY = 4
    DATA = 5

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)


COMPUTE, ALLTOALL, SEND, RECV, COPY, DATA = Lane
PHASE_LANES = (COMPUTE, ALLTOALL, COPY, DATA)
"""The lanes that phases of a task run on; on the others transfers show."""
