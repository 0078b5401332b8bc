"""How an op's length depends on what its GPU did before and does beside it.

A GPU at its power limit clocks down when it is busy, and a message under way holds some of its SMs, also while it waits
for its other side. An op then takes ``cold × (1 + beta·u) × (1 + gamma·q)``: ``u`` is the share of the time before it
that its GPU computed, the last ``tau_s`` seconds counting most, and ``q`` the share of its own time during which a
message of its rank is on the communication stream.
"""

from __future__ import annotations

from typing import NamedTuple

from dualpipe_sim.base.show import brief
from dualpipe_sim.model.stacks import STACKS


class Load(NamedTuple):
    """What makes ops longer than they are on a GPU that has been idle.

    >>> Load(beta=0.25).longest
    1.25

    Attributes:
        beta: how much longer an op takes on a GPU that was busy all the time before, over its length on an idle one.
        tau_s: seconds after which what a GPU did counts 1/e.
        gamma: how much longer it takes while a message is on its rank's communication stream.

    """

    beta: float = 0.0
    tau_s: float = 0.04
    gamma: float = 0.0

    def __repr__(self) -> str:
        return brief(self)

    @property
    def longest(self) -> float:
        """The largest factor on a length."""
        return (1 + self.beta) * (1 + self.gamma)


USUAL = Load(beta=0.22, tau_s=0.03, gamma=0.18)
"""What torch's runtime finds on two H100 that train a dense transformer at their power limit of 700 W; with smaller
models, which stay below it, beta goes towards 0 and gamma up to 0.28 (``docs/validation.md``)."""

SPLIT = STACKS["torch-eager"].split_backward
"""What I and W of torch's runtime take together over a full backward there: 1.01 to 1.06."""
