"""A CPU's page tables as an independent reader sees them, and what in them differs from the address map.

Host side, read only. The walk bounds itself: tables that a fault has damaged may refer to each other in circles.
Ref: SDM vol. 3A, 4.5 "4-Level Paging and 5-Level Paging", 4.6 "Access Rights".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.layout import PAGE_SIZE
from sidecar.layout.address_map import TABLE_ENTRIES
from sidecar.layout.x86 import PTE_ADDRESS_MASK, Pte
from sidecar.protocol.memory import Memory

LEVELS = 4
MOST_TABLES = 512
"""A sidecar CPU has five; the transition tables have six and those of the node windows."""


class PageTableError(Exception):
    """Page tables that cannot be walked to the end."""


@dataclass(frozen=True, slots=True)
class MappedRange:
    """Consecutive virtual bytes with consecutive physical bytes and the same rights over all levels."""

    va: int
    pa: int
    size: int
    writable: bool
    executable: bool
    user: bool

    @property
    def end(self) -> int:
        """First virtual address behind it."""
        return self.va + self.size

    @property
    def rights(self) -> str:
        """`R`, `RW`, `RX`, with a `U` behind if user mode may use it."""
        return "R" + "W" * self.writable + "X" * self.executable + "U" * self.user

    def pa_of(self, va: int) -> int:
        """The physical address of a virtual one inside."""
        return self.pa + va - self.va

    def continues(self, other: MappedRange) -> bool:
        """Does this range begin where `other` ends, in both kinds of address, with the same rights?"""
        return (self.va, self.pa, self.rights) == (other.end, other.pa + other.size, other.rights)


def walk(memory: Memory, root_pa: int) -> Iterator[MappedRange]:
    """Every mapping below the PML4 at `root_pa`, by virtual address, neighbours merged.

    Raises PageTableError if there are more than MOST_TABLES tables or one is outside of memory.
    """
    last: MappedRange | None = None
    for page in _Walker(memory).table(root_pa, LEVELS, 0, Pte.WRITE | Pte.USER):
        if last is not None and page.continues(last):
            last = MappedRange(last.va, last.pa, last.size + page.size, page.writable, page.executable, page.user)
            continue
        if last is not None:
            yield last
        last = page
    if last is not None:
        yield last


class _Walker:
    """One walk; counts the tables it has read."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._tables = 0

    def table(self, pa: int, level: int, va: int, rights: int) -> Iterator[MappedRange]:
        """The mappings below one table; `rights`: WRITE and USER if all levels above allow them, NX if one forbids."""
        self._tables += 1
        if self._tables > MOST_TABLES:
            raise PageTableError(f"the page tables have more than {MOST_TABLES} tables: they refer to each other")
        try:
            data = self._memory.read(pa, PAGE_SIZE)
        except LookupError as error:
            raise PageTableError(f"the page tables have a table at {pa:#x}, where no memory is: {error}") from error
        size = PAGE_SIZE * TABLE_ENTRIES ** (level - 1)
        for slot, entry in enumerate(struct.unpack(f"<{TABLE_ENTRIES}Q", data)):
            if entry & Pte.PRESENT:
                below = rights & entry & (Pte.WRITE | Pte.USER) | (rights | entry) & Pte.NX
                address = va + slot * size
                if level == 1 or (level < LEVELS and entry & Pte.LARGE):
                    yield _leaf(address, entry & PTE_ADDRESS_MASK & -size, size, below)
                else:
                    yield from self.table(entry & PTE_ADDRESS_MASK, level - 1, address, below)


def _leaf(va: int, pa: int, size: int, rights: int) -> MappedRange:
    canonical = va | 0xFFFF << 48 if va >> 47 & 1 else va
    return MappedRange(
        canonical, pa, size,
        writable=bool(rights & Pte.WRITE), executable=not rights & Pte.NX, user=bool(rights & Pte.USER),
    )
