"""How many threads this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def available_threads() -> int:
    """Cores that the affinity mask and the container's CPU quota allow, at least one."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min(count, _quota()))


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole cores of the cgroup's quota (version 2), or many if there is none."""
    try:
        quota, period = path.read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return 1 << 20
