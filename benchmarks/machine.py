"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path


def describe() -> str:
    """Return processor, cores, memory and versions in one line."""
    parts = [
        f"{_processor()}, {os.cpu_count()} cores, {_memory_gib()} GiB",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in ("numpy", "simpy")),
    ]
    return ", ".join(parts)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", information.read_text(), re.MULTILINE) if information.exists() else []
    return names[0] if names else platform.processor() or "unknown processor"


def _memory_gib() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
