"""A node's device file /dev/sidecarN: the driver's interface, and nothing of what it is used for.

Ref: layout/ioctl.py for the numbers; OpenHCL's `mshv_vtl_sidecar` for START, STOP, RUN, INFO, read and mmap.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sidecar.layout.address_map import SHARED_PAGES
from sidecar.layout.ioctl import Ioctl
from sidecar.layout.schema import PAGE_SIZE

SHARED_BYTES = SHARED_PAGES * PAGE_SIZE
MOST_AT_ONCE = 64
"""CPU numbers that one read takes."""


@dataclass(frozen=True, slots=True)
class Info:
    """What INFO answers: Linux number of the node's first CPU, CPUs, bytes of shared pages per CPU."""

    base_cpu: int
    cpu_count: int
    per_cpu_shmem: int


class DeviceNode(Protocol):
    """An open device file. Every method raises OSError as the driver's errno says."""

    @property
    def number(self) -> int:
        """The node's number, which is in the file's name."""
        ...

    def fileno(self) -> int:
        """Readable when a started run has ended."""
        ...

    def info(self) -> Info: ...

    def ask(self, what: Ioctl, cpu: int) -> int:
        """START, STOP, RUN, CLAIM, RELEASE or RESTART of a CPU by its Linux number; STOP answers 0 if nothing runs."""
        ...

    def map_pages(self, index: int) -> memoryview:
        """Command and register page of the node's CPU `index`, which this file has claimed."""
        ...

    def finished(self) -> list[int]:
        """Linux numbers of CPUs whose started run has ended, each told once; does not wait."""
        ...

    def close(self) -> None: ...


class DeviceFile:
    """The real one."""

    def __init__(self, path: Path, number: int) -> None:
        self.number = number
        self._file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._file

    def info(self) -> Info:
        answer = fcntl.ioctl(self._file, Ioctl.INFO, bytes(12))
        return Info(*struct.unpack("=3I", answer))

    def ask(self, what: Ioctl, cpu: int) -> int:
        return fcntl.ioctl(self._file, what, cpu)

    def map_pages(self, index: int) -> memoryview:
        return memoryview(mmap.mmap(self._file, SHARED_BYTES, offset=index * SHARED_BYTES))

    def finished(self) -> list[int]:
        try:
            data = os.read(self._file, 4 * MOST_AT_ONCE)
        except BlockingIOError:
            return []
        return list(struct.unpack(f"={len(data) // 4}I", data))

    def close(self) -> None:
        os.close(self._file)
