"""Nested page tables of a guest, built in the machine's memory: what the driver does in C, for who drives from outside.

    tables = NestedTables(memory, allocate)
    tables.map(0, pa, 0x10000)
    tables.map(0x10000, pa + 0x10000, 0x1000, Rights.READ)
    tables.root_pa

Four levels, 4 KiB and 2 MiB pages. Every entry has USER set, because a nested access is a user access, and ACCESSED and
DIRTY too, so that the processor writes nothing into tables that somebody else may be changing.

Ref: AMD64 APM vol. 2, 15.25.5, 15.25.6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntFlag
from typing import Protocol

from sidecar.layout.address_map import LARGE_PAGE, TABLE_ENTRIES
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.x86 import PTE_ADDRESS_MASK, Pte

GPA_BITS = 48
LEVELS = 4
_ENTRY = struct.Struct("<Q")
_TABLE = Pte.PRESENT | Pte.WRITE | Pte.USER | Pte.ACCESSED
_LEAF = Pte.PRESENT | Pte.USER | Pte.ACCESSED | Pte.DIRTY


class Rights(IntFlag):
    """What the guest may do with a page. It may always read what is mapped: the processor knows no page without."""

    READ = 1
    WRITE = 2
    EXECUTE = 4
    ALL = 7


class Store(Protocol):
    """Memory by physical address; `qemu.ram.GuestRam` is one."""

    def view(self, pa: int, size: int) -> memoryview: ...


class NestedTables:
    """One guest's tables. `allocate` gives the physical address of a zeroed page.

    Nothing is flushed here: who changes an entry that a CPU may use counts `guest_generation` up afterwards.
    """

    def __init__(self, memory: Store, allocate: Callable[[], int]) -> None:
        self._memory, self._allocate = memory, allocate
        self.root_pa = allocate()

    def map(self, gpa: int, pa: int, size: int, rights: Rights = Rights.ALL) -> None:
        """[gpa, gpa + size) is [pa, pa + size) from now on. Raises ValueError for what is not made of pages."""
        _check(gpa, size)
        if pa % PAGE_SIZE:
            raise ValueError(f"physical address {pa:#x}: expected a multiple of {PAGE_SIZE:#x}")
        bits = _LEAF | (Pte.WRITE if rights & Rights.WRITE else 0) | (0 if rights & Rights.EXECUTE else Pte.NX)
        end = gpa + size
        while gpa < end:
            large = gpa % LARGE_PAGE == pa % LARGE_PAGE == 0 and end - gpa >= LARGE_PAGE and not self._has_table(gpa)
            step = LARGE_PAGE if large else PAGE_SIZE
            self._store(gpa, pa | bits | (Pte.LARGE if large else 0), 2 if large else 1)
            gpa, pa = gpa + step, pa + step

    def unmap(self, gpa: int, size: int) -> None:
        """Nothing is mapped at [gpa, gpa + size) from now on; large pages that reach beyond it are split."""
        _check(gpa, size)
        for page in range(gpa, gpa + size, PAGE_SIZE):
            if self.entry(page)[0] & Pte.PRESENT:
                self._store(page, 0, 1)

    def entry(self, gpa: int) -> tuple[int, int]:
        """The entry that maps `gpa`, and its level: 1 for a page, 2 for 2 MiB; 0 and a level where nothing is."""
        table = self.root_pa
        for level in range(LEVELS, 0, -1):
            (entry,) = _ENTRY.unpack(self._slot(table, gpa, level))
            if level == 1 or not entry & Pte.PRESENT or entry & Pte.LARGE:
                return entry, level
            table = entry & PTE_ADDRESS_MASK
        raise AssertionError("level 1 is always a leaf")

    def _has_table(self, gpa: int) -> bool:
        entry, level = self.entry(gpa)
        return level == 1 or (level == 2 and bool(entry & Pte.PRESENT) and not entry & Pte.LARGE)

    def _slot(self, table: int, gpa: int, level: int) -> memoryview:
        index = gpa >> 12 + 9 * (level - 1) & TABLE_ENTRIES - 1
        return self._memory.view(table + 8 * index, 8)

    def _store(self, gpa: int, entry: int, at_level: int) -> None:
        table = self.root_pa
        for level in range(LEVELS, at_level, -1):
            table = self._table_below(self._slot(table, gpa, level), level)
        self._slot(table, gpa, at_level).cast("Q")[0] = entry

    def _table_below(self, slot: memoryview, level: int) -> int:
        """The table that an entry refers to; made if there is none, from a large page if there is that."""
        (entry,) = _ENTRY.unpack(slot)
        if entry & Pte.PRESENT and not entry & Pte.LARGE:
            return int(entry & PTE_ADDRESS_MASK)
        table = self._allocate()
        if entry & Pte.PRESENT:
            size = PAGE_SIZE * TABLE_ENTRIES ** (level - 2)
            below = [entry & ~Pte.LARGE | (Pte.LARGE if level > 2 else 0)]
            below = [below[0] + n * size for n in range(TABLE_ENTRIES)]
            self._memory.view(table, PAGE_SIZE)[:] = struct.pack(f"<{TABLE_ENTRIES}Q", *below)
        slot.cast("Q")[0] = table | _TABLE
        return table


def _check(gpa: int, size: int) -> None:
    if gpa % PAGE_SIZE or size % PAGE_SIZE or size <= 0:
        raise ValueError(f"guest memory at {gpa:#x}, {size:#x} bytes: expected whole pages")
    if gpa < 0 or gpa + size > 1 << GPA_BITS:
        raise ValueError(f"guest memory at {gpa:#x}, {size:#x} bytes: expected to end below {1 << GPA_BITS:#x}")
