"""What a runtime's program is made of: for each rank, cells in the order in which its host issues them.

Beside ops, messages and collectives (``order.ops``) these are batches of messages, and where something waits. A message
is issued and not waited for; it is under way beside whatever follows, until a wait names it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from dualpipe_sim.order.ops import Action, Receive, Send

Moved: TypeAlias = Send | Receive
"""One side of a message."""


class Batch(NamedTuple):
    """Messages of one call, which run together and end with the last; written ``{1SEND_F3;1RECV_B0}``."""

    messages: tuple[Moved, ...]

    def __str__(self) -> str:
        return f"{{{';'.join(map(str, self.messages))}}}"


class Wait(NamedTuple):
    """The compute stream goes on when these are done, the host goes on at once; written ``WAIT(1SEND_F3;1RECV_B0)``."""

    messages: tuple[Moved, ...]

    def __str__(self) -> str:
        return f"WAIT({';'.join(map(str, self.messages))})"


class WaitBesideCompute(NamedTuple):
    """The stream of all-to-alls waits for these, not the compute stream; written ``WAIT_COMM(0SEND_F3)``."""

    messages: tuple[Moved, ...]

    def __str__(self) -> str:
        return f"WAIT_COMM({';'.join(map(str, self.messages))})"


class Sync(NamedTuple):
    """The host waits until its device is idle; written ``SYNC``."""

    def __str__(self) -> str:
        return "SYNC"


class AttentionWeight(NamedTuple):
    """The weight gradient of the attention of a stage's first layer, split off a backward; written ``2DW3``."""

    stage: int
    micro_batch: int

    def __str__(self) -> str:
        return f"{self.stage}DW{self.micro_batch}"


Cell: TypeAlias = Action | Batch | Wait | WaitBesideCompute | Sync | AttentionWeight
"""What a rank's program is made of; ``str`` is its text."""

Lines: TypeAlias = Literal["one", "pair", "direction"]
"""How many streams a rank's lone messages go on: one, with its batches; one for each other rank; or two for each other
rank, one a direction. Batches always have one."""

Row: TypeAlias = list[Cell]
"""What one rank's host issues, in order."""
