"""A figure, a table, a group of them; and the host they come from."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sidecar.qemu.executable import find_qemu


@dataclass(frozen=True, slots=True)
class Aim:
    """What was wanted: `limit` at most, or at least. `why` it is hard to reach, told when it is missed."""

    text: str
    limit: float
    at_least: bool = False
    why: str = ""

    def missed(self, value: float) -> str:
        """By how much, and why; "" if it was met."""
        factor = self.limit / value if self.at_least else value / self.limit
        if factor <= 1:
            return ""
        return f"missed by a factor of {factor:.2f}." + (f" {self.why}" if self.why else "")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value; `spread` is the range of repeated measurements, for people.

    `samples` are the measurements themselves in `unit`, for programs; an aim is for their median.
    """

    name: str
    value: str
    spread: str = ""
    aim: Aim | None = None
    samples: tuple[float, ...] = ()
    unit: str = ""

    @property
    def missed(self) -> str:
        """Of an aim: by how much and why, "" if it was met or there is none."""
        return self.aim.missed(statistics.median(self.samples)) if self.aim else ""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures that are read along rows and columns; the first column names the row."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of one kind: `name` is what `sidecar bench --only` takes, `text` says how they were measured.

    `data` is what programs get besides the figures: anything that JSON can hold.
    """

    name: str
    title: str
    figures: tuple[Figure, ...] = ()
    text: str = ""
    tables: tuple[Table, ...] = ()
    pictures: tuple[str, ...] = ()
    data: object = None


def measured(name: str, samples: Sequence[float], unit: str, digits: int = 2, aim: Aim | None = None) -> Figure:
    """The median of some measurements, with their range."""
    value, spread = median(samples, unit, digits)
    return Figure(name, value, spread, aim, tuple(samples), unit)


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
    return f"{day}, {len(os.sched_getaffinity(0))} cores of {model}, QEMU {qemu}, TCG"
