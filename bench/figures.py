"""A figure, and the run it comes from."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sidecar.qemu.executable import find_qemu


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `spread` is the range of repeated measurements, `aim` what was wanted, both for people."""

    name: str
    value: str
    spread: str = ""
    aim: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of one kind: `name` is what `sidecar bench --only` takes."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    picture: str = ""


def median(values: Sequence[float], unit: str, digits: int = 2) -> tuple[str, str]:
    """Median and range, as text."""
    spread = f"{min(values):.{digits}f} to {max(values):.{digits}f} {unit}, {len(values)} runs"
    return f"{statistics.median(values):.{digits}f} {unit}", spread


def host() -> str:
    """One line about where the figures come from."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    qemu = ".".join(str(part) for part in find_qemu().version)
    day = datetime.now(UTC).date().isoformat()
    load = os.getloadavg()[0]
    return f"{day}, {os.cpu_count()} cores of {model}, QEMU {qemu}, TCG; load average {load:.0f} at the end"
