"""How long ops take, as plain numbers: all that a schedule that adapts to times may know of costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.base.show import brief
from dualpipe_sim.errors import ScheduleError
from dualpipe_sim.order.placement import Placement


@dataclass(frozen=True, eq=False)
class OpTimes:
    """Times of the stages of one placement.

    >>> from dualpipe_sim.order import v_shape
    >>> OpTimes.uniform(v_shape(2), forward=2.0).forward_s.tolist()
    [1.0, 1.0, 1.0, 1.0]

    Attributes:
        forward_s: seconds of F of each stage, shape ``(stages,)``.
        backward_input_s: seconds of I of each stage, shape ``(stages,)``.
        backward_weight_s: seconds of W of each stage, shape ``(stages,)``.
        transfer_s: seconds that a tensor is under way between two ranks; on one rank it is handed over at once.

    Raises:
        ScheduleError: a time that is no finite number from 0 up, or arrays of different shapes.

    """

    forward_s: FloatArray
    backward_input_s: FloatArray
    backward_weight_s: FloatArray
    transfer_s: float = 0.0

    __repr__ = brief

    def __post_init__(self) -> None:
        shape = self.forward_s.shape
        for name in ("forward_s", "backward_input_s", "backward_weight_s", "transfer_s"):
            values = np.asarray(getattr(self, name))
            if not np.isfinite(values).all() or (values < 0).any():
                raise ScheduleError(f"times: {name} must be finite and 0 or more, got {getattr(self, name)}")
            if name != "transfer_s" and values.shape != shape:
                raise ScheduleError(f"times: {name} must have a time for each stage, shape {shape}, got {values.shape}")

    @property
    def stages(self) -> int:
        """Number of stages that there are times for."""
        return len(self.forward_s)

    @classmethod
    def uniform(
        cls,
        placement: Placement,
        *,
        forward: float = 1.0,
        backward_input: float = 1.0,
        backward_weight: float = 1.0,
        transfer: float = 0.0,
    ) -> OpTimes:
        """Return the times of a placement's stages where all ranks' shares of the model take the same time.

        Args:
            placement: where the stages are; one that holds a share s of the model takes ``time x ranks x s``.
            forward: seconds of F of one rank's share (1/ranks of the model); unit times by default.
            backward_input: seconds of I, likewise.
            backward_weight: seconds of W, likewise.
            transfer: seconds of a transfer, whatever the share.

        """
        shares = placement.ranks * placement.share_of_stage
        return cls(forward * shares, backward_input * shares, backward_weight * shares, transfer)

    def in_longest_ops(self) -> OpTimes:
        """Return the same times in units of the longest op or transfer."""
        ops = np.concatenate([self.forward_s, self.backward_input_s, self.backward_weight_s])
        unit = max(float(ops.max()), self.transfer_s) or 1.0
        return OpTimes(
            self.forward_s / unit, self.backward_input_s / unit, self.backward_weight_s / unit, self.transfer_s / unit
        )
