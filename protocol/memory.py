"""Guest-physical memory to read from: a running machine, mapped RAM, or a file. Nothing here writes."""

from __future__ import annotations

from typing import Protocol


class Memory(Protocol):
    """What discovery, decoders and page walks read from."""

    def read(self, pa: int, size: int) -> bytes:
        """`size` bytes from physical address `pa` on; raises LookupError if not all of them are there."""
        ...
