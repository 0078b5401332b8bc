"""What the scripts that measure have in common: the GPUs of one host, moments on their streams, memory and clocks."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import time
from typing import Any

import torch
import torch.distributed as dist


def connect(*, eager: bool = False) -> torch.device:
    """Connect the processes that torchrun started, on NCCL or, without GPUs, on gloo; return this one's device."""
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", **({"device_id": device} if eager else {}))
    return device


def keep_to(cores: int) -> None:
    """Keep this process to as many cores of its own, if any: before it has threads, which stay where it was."""
    if cores:
        allowed, rank = sorted(os.sched_getaffinity(0)), int(os.environ["LOCAL_RANK"])
        os.sched_setaffinity(0, allowed[rank * cores : (rank + 1) * cores])


def free() -> None:
    """Give back the memory of a run that is over."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class GpuClock:
    """Moments on the streams of this process's GPU; marks are CUDA events."""

    def mark(self) -> torch.cuda.Event:
        """Mark where the current stream is."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between_s(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Return seconds between two marks."""
        return float(start.elapsed_time(end) / 1e3)

    def start_clock(self) -> None:
        """Find out what the host's clock, which all processes share, says at a mark: the tightest of some tries."""
        tries = []
        for _ in range(20):
            self.finish()
            before_s = time.monotonic()
            event = self.mark()
            event.synchronize()
            after_s = time.monotonic()
            tries.append((after_s - before_s, (before_s + after_s) / 2, event))
        _, self.origin_s, self.origin = min(tries, key=lambda one: one[0])

    def seconds(self, mark: Any) -> float:
        """Return when a mark was passed, on the host's clock."""
        return self.origin_s + self.between_s(self.origin, mark)

    def finish(self) -> None:
        """Wait until all is done."""
        torch.cuda.synchronize()

    def memory(self) -> tuple[int, int]:
        """Return bytes allocated now, and the most since the last call."""
        now, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return now, most


class CpuClock:
    """The same where there is no GPU, for trying; marks are seconds."""

    def mark(self) -> float:
        """Return the time."""
        return time.monotonic()

    def between_s(self, start: float, end: float) -> float:
        """Return seconds between two marks."""
        return end - start

    def start_clock(self) -> None:
        """Nothing to do: marks are the host's already."""

    def seconds(self, mark: Any) -> float:
        """Return when a mark was passed."""
        return float(mark)

    def finish(self) -> None:
        """Nothing to do: what is called is done."""

    def memory(self) -> tuple[int, int]:
        """Nothing is known of a CPU's memory."""
        return 0, 0


def clock_of(device: torch.device) -> GpuClock | CpuClock:
    """Return the clock of a device."""
    return GpuClock() if device.type == "cuda" else CpuClock()


class Clocks:
    """The SM clocks and power of all GPUs while something runs, as nvidia-smi reads them."""

    def __init__(self, wanted: bool) -> None:
        query = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits", "-lms", "100"]
        self.reader = subprocess.Popen(query, stdout=subprocess.PIPE, text=True) if wanted else None  # noqa: S603

    def stop(self) -> dict[str, float]:
        """Return medians of the busier half of all readings."""
        if self.reader is None:
            return {}
        self.reader.terminate()
        text, _ = self.reader.communicate()
        rows = [tuple(map(float, line.split(","))) for line in text.splitlines() if line.count(",") == 1]
        busy = sorted(rows, key=lambda row: row[1])[len(rows) // 2 :]
        if not busy:
            return {}
        clock, power = (statistics.median(column) for column in zip(*busy, strict=True))
        return {"sm_mhz": clock, "power_w": power, "lowest_sm_mhz": min(row[0] for row in busy)}
