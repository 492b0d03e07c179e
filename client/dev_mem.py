"""The nodes' memory through /dev/mem, which gives out what is not Linux's own: the sidecar's memory is reserved.

The mapping is write-back, as the CPUs' own is. Where the kernel was built with IO_STRICT_DEVMEM it refuses memory that
a driver has requested, and takes existing mappings away when one does: an access then ends the program by SIGBUS.
Ref: Linux, drivers/char/mem.c; kernel/resource.c, revoke_iomem().
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sidecar.client.errors import NoDriver
from sidecar.protocol.machine import Node


class NodeMemory(Protocol):
    """The memory of all nodes, mapped."""

    def view(self, pa: int, size: int) -> memoryview:
        """Raises LookupError outside of the nodes."""
        ...


class DevMem:
    """NodeMemory over a device such as /dev/mem. Raises NoDriver if it gives nothing out."""

    def __init__(self, nodes: Sequence[Node], path: Path = Path("/dev/mem")) -> None:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise NoDriver(f"{path} cannot be opened ({why}): run as root, and without kernel lockdown") from error
        try:
            self._maps = [(node.control_pa, memoryview(_map(file, path, node))) for node in nodes]
        finally:
            os.close(file)

    def view(self, pa: int, size: int) -> memoryview:
        for start, memory in self._maps:
            if start <= pa and pa + size <= start + len(memory):
                return memory[pa - start : pa - start + size]
        raise LookupError(f"{pa:#x} to {pa + size:#x} is in no node's memory")


def _map(file: int, path: Path, node: Node) -> mmap.mmap:
    try:
        return mmap.mmap(file, node.memory_bytes, offset=node.control_pa)
    except OSError as error:
        raise NoDriver(
            f"{path} does not give out the memory of node {node.number} at {node.control_pa:#x} "
            f"({os.strerror(error.errno or 0)}): a driver has it, or the kernel does not count it as reserved"
        ) from error
