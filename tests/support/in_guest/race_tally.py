"""What the workers of a race have done on each CPU: numbers in memory that all processes share."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.client import CpuBusy

FIELDS = ("begun", "answered", "busy", "stopped", "refused", "closed")


class Tally:
    """A worker's numbers on one CPU; only that worker writes them."""

    def __init__(self, memory: mmap.mmap, slot: int) -> None:
        self._memory, self._start = memory, slot * 8 * len(FIELDS)

    def __getitem__(self, name: str) -> int:
        (value,) = struct.unpack_from("<Q", self._memory, self._start + 8 * FIELDS.index(name))
        return int(value)

    def add(self, name: str, count: int = 1) -> None:
        struct.pack_into("<Q", self._memory, self._start + 8 * FIELDS.index(name), self[name] + count)

    @contextmanager
    def one(self) -> Iterator[None]:
        """One command: begun, and answered unless the CPU was another's."""
        self.add("begun")
        try:
            yield
        except CpuBusy:
            self.add("begun", -1)
            raise
        self.add("answered")
