"""Stages for torch.distributed.pipelining that also run pipes in opposite directions, with a stopwatch.

Torch's own runtime runs what dualpipe-sim exports as ``compute_comms``. It numbers stages along one chain, so for
DualPipe's two pipes each stage must be told where its own pipe begins and ends: that is ``Stage``. ``Runtime`` gives an
overlapped pair both of its inputs before it starts. Made for torch 2.13, whose interface for this is still private.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import OVERLAP_F_B, _PipelineScheduleRuntime

from dualpipe_sim.order.placement import Placement


@dataclass
class Log:
    """What a rank did in a step, on the clock that all processes of a machine share."""

    computed: list[tuple[str, float, float]] = field(default_factory=list)
    sent_s: dict[str, float] = field(default_factory=dict)
    waited_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    in_pair: bool = False

    @contextlib.contextmanager
    def computing(self, action: str, *, pair: bool = False) -> Iterator[None]:
        """Time an op; the two of a pair count as one."""
        if self.in_pair:
            yield
            return
        self.in_pair, start = pair, time.monotonic()
        yield
        self.in_pair = False
        self.computed.append((action, start, time.monotonic()))


class Inbox(dict[tuple[int, int], list[Any]]):
    """Receives that were posted, by (stage, micro-batch), as torch keeps them; waits for them are timed."""

    def __init__(self, direction: str, runtime: Runtime) -> None:
        super().__init__()
        self.direction, self.runtime = direction, runtime

    def pop(self, key: tuple[int, int]) -> list[Any]:  # type: ignore[override]
        """Take a receive out, to be waited for."""
        stage, micro_batch = key
        return [TimedWait(super().pop(key), f"{stage}RECV_{self.direction}{micro_batch}", self.runtime.log)]


class TimedWait(NamedTuple):
    """A receive under way."""

    works: list[Any]
    name: str
    log: Log

    def wait(self) -> None:
        """Wait until the tensor is there."""
        start = time.monotonic()
        for work in self.works:
            work.wait()
        self.log.waited_s[self.name] = start, time.monotonic()


class Stage(PipelineStage):
    """A stage that knows where its own pipe begins and ends; torch knows a single chain of all stages."""

    def __init__(
        self,
        module: nn.Module,
        stage: int,
        placement: Placement,
        boundary: Tensor,
        dw_builder: Callable[[], Callable[..., None]] | None = None,
    ) -> None:
        """Wrap a module as a stage.

        Args:
            module: what the stage computes.
            stage: its number.
            placement: where all stages are, and which pipes they make up.
            boundary: a tensor of the shape and type that a stage takes and gives.
            dw_builder: as for torch's stage: called after a backward for the input, returns the one for the weights.

        """
        self.placement = placement
        self.log = Log()
        super().__init__(
            module,
            stage,
            placement.stages,
            boundary.device,
            input_args=boundary.clone().requires_grad_(not placement.is_first[stage]),
            output_args=boundary.clone().requires_grad_(),
            dw_builder=dw_builder,
        )

    @property
    def is_first(self) -> bool:
        """Whether the stage begins its pipe."""
        return bool(self.placement.is_first[self.stage_index])

    @property
    def is_last(self) -> bool:
        """Whether the stage ends its pipe."""
        return bool(self.placement.is_last[self.stage_index])

    # Where one pipe ends and the next begins, neighbouring stages on a rank hand nothing over.
    def set_local_fwd_input(self, prev_stage_outputs: Any, mb_index: int) -> None:
        """Take over the stage before's output, if it is of the same pipe."""
        if not self.is_first:
            super().set_local_fwd_input(prev_stage_outputs, mb_index)

    def get_local_bwd_output(self, mb_index: int) -> tuple[Tensor | None, ...]:
        """Give the gradient to the stage before, if it is of the same pipe."""
        return () if self.is_first else super().get_local_bwd_output(mb_index)

    def set_local_bwd_input(self, next_stage_bwd_outputs: tuple[Tensor | None, ...], mb_index: int) -> None:
        """Take over the next stage's gradient, if it is of the same pipe."""
        if not self.is_last:
            super().set_local_bwd_input(next_stage_bwd_outputs, mb_index)

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **kwargs: Any) -> Any:
        """Run F."""
        with self.log.computing(f"{self.stage_index}F{fwd_chunk_id}"):
            return super().forward_one_chunk(fwd_chunk_id, *args, **kwargs)

    def backward_one_chunk(
        self, bwd_chunk_id: int, loss: Any = None, full_backward: bool = True, last_backward: bool = False
    ) -> None:
        """Run B or I."""
        with self.log.computing(f"{self.stage_index}{'B' if full_backward else 'I'}{bwd_chunk_id}"):
            super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:
        """Run W."""
        with self.log.computing(f"{self.stage_index}W{bwd_chunk_id}"):
            super().backward_weight_one_chunk(bwd_chunk_id, last_backward)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        """Note when an activation leaves."""
        self.log.sent_s[f"{self.stage_index}SEND_F{fwd_chunk_id}"] = time.monotonic()
        return super().get_fwd_send_ops(fwd_chunk_id)

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        """Note when a gradient leaves."""
        self.log.sent_s[f"{self.stage_index}SEND_B{bwd_chunk_id}"] = time.monotonic()
        return super().get_bwd_send_ops(bwd_chunk_id)


class Runtime(_PipelineScheduleRuntime):
    """Torch's runtime; an overlapped pair starts when both of its inputs are there, and is timed as one."""

    def __init__(
        self, stages: list[Stage], micro_batches_of_pipe: int, loss: Callable[..., Tensor], order: Path
    ) -> None:
        """Prepare to run.

        Args:
            stages: this rank's stages.
            micro_batches_of_pipe: micro-batches of each pipe.
            loss: of a last stage's output and its targets.
            order: a file with the order of all ranks, in torch's ``compute_comms`` form.

        """
        super().__init__(stages, micro_batches_of_pipe, loss_fn=loss)
        self.by_index = {stage.stage_index: stage for stage in stages}
        self.fwd_recv_ops, self.bwd_recv_ops = Inbox("F", self), Inbox("B", self)
        self.register_custom_function(OVERLAP_F_B, self.run_pair)
        self._load_csv(str(order), format="compute_comms")
        self.log = Log()

    def start_log(self) -> Log:
        """Begin a new log and return it."""
        self.log = Log()
        for stage in self.by_index.values():
            stage.log = self.log
        return self.log

    def _maybe_get_loss(self, stage: Any, mb_index: int) -> Any:
        # Torch takes one pipe's losses for all stages of the rank.
        return super()._maybe_get_loss(stage, mb_index) if stage.is_last else None

    def run_pair(self, action: Any, context: Any) -> None:
        """Run a pair: both receives, then the forward, then the backward."""
        forward, backward = action.sub_actions
        for inbox, half in ((self.fwd_recv_ops, forward), (self.bwd_recv_ops, backward)):
            key = half.stage_index, half.microbatch_index
            for received in inbox.pop(key) if key in inbox else ():
                received.wait()
        with self.log.computing(str(action), pair=True):
            self.run_forward(forward.stage_index, forward.microbatch_index, context)
            self.run_backward(backward.stage_index, backward.microbatch_index)

    def run_forward(self, index: int, micro_batch: int, context: Any) -> None:
        """Run a forward whose input is there."""
        stage = self.by_index[index]
        output = stage.forward_one_chunk(micro_batch, context.arg_mbs[micro_batch], context.kwarg_mbs[micro_batch])
        self._maybe_compute_loss(stage, output, context.target_mbs, micro_batch)
        if index + 1 in self.by_index:
            self.by_index[index + 1].set_local_fwd_input(output, micro_batch)

    def run_backward(self, index: int, micro_batch: int) -> None:
        """Run a full backward whose input is there."""
        stage = self.by_index[index]
        stage.backward_one_chunk(micro_batch, self._maybe_get_loss(stage, micro_batch))
        if index - 1 in self.by_index:
            self.by_index[index - 1].set_local_bwd_input(stage.get_local_bwd_output(micro_batch), micro_batch)
