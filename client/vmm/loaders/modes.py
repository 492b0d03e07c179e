"""Start states of a virtual processor: real mode, flat protected mode, long mode with 4 GiB mapped as they are.

The descriptors of protected and long mode stand in memory too, so that a guest can load its segments again, and take
interrupts with these selectors, before it has tables of its own.
Ref: SDM vol. 3A, 3.4.5 (descriptors), 4.5 (4-level paging), 10.1 (state after reset).
"""

from __future__ import annotations

import struct
from enum import Enum

from sidecar.client.vmm.memory import GuestMemory
from sidecar.client.vmm.registers import Segment, Table, Value
from sidecar.client.vmm.vp import Vp
from sidecar.layout.x86 import Cr0, Cr4, Efer, Pte, Rflags

TABLES = range(0x1000, 0x8000)
"""Where PML4, PDPT, four page directories and the GDT are, in long mode; in protected mode only the GDT."""

GDT = 0x7000
CODE_64, DATA, CODE_32 = 0x08, 0x10, 0x18
DESCRIPTORS = (0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF)
"""All accessed already, so that no CPU writes to them."""

PML4, PDPT, PD = 0x1000, 0x2000, 0x3000
MAPPED_GIB = 4
LARGE = 2 << 20
FLAT = 0xFFFFFFFF
CR0_ET = 1 << 4


class Mode(Enum):
    """What the first instruction is."""

    REAL = "real"
    PROTECTED = "protected"
    LONG = "long"


def enter(vp: Vp, memory: GuestMemory, mode: Mode, *, rip: int, rsp: int) -> None:
    """Registers for the first instruction at `rip`; interrupts are off. Raises NotMapped if tables have no memory."""
    values = {Mode.REAL: _real, Mode.PROTECTED: _protected, Mode.LONG: _long}[mode](memory)
    vp.set({**values, "rip": rip, "rsp": rsp, "rflags": int(Rflags.FIXED)})


def _real(memory: GuestMemory) -> dict[str | int, Value]:
    data = Segment(0, 0xFFFF, 0, 0x93)
    return {
        "cr0": CR0_ET, "cr4": 0, "efer": 0, "cs": Segment(0, 0xFFFF, 0, 0x9B), "idtr": Table(0, 0x3FF),
        **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data),
    }  # fmt: skip


def _protected(memory: GuestMemory) -> dict[str | int, Value]:
    data = Segment(0, FLAT, DATA, 0xC093)
    return {
        "cr0": CR0_ET | Cr0.PE, "cr4": 0, "efer": 0, "cs": Segment(0, FLAT, CODE_32, 0xC09B), "gdtr": _gdt(memory),
        "idtr": Table(0, 0), **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data),
    }  # fmt: skip


def _long(memory: GuestMemory) -> dict[str | int, Value]:
    _identity(memory)
    data = Segment(0, FLAT, DATA, 0xC093)
    return {
        "cr3": PML4, "cr4": int(Cr4.PAE), "efer": int(Efer.LME | Efer.LMA), "cr0": CR0_ET | Cr0.PE | Cr0.PG,
        "cs": Segment(0, FLAT, CODE_64, 0xA09B), "gdtr": _gdt(memory), "idtr": Table(0, 0),
        **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data),
    }  # fmt: skip


def _gdt(memory: GuestMemory) -> Table:
    data = struct.pack(f"<{len(DESCRIPTORS)}Q", *DESCRIPTORS)
    memory.write(GDT, data)
    return Table(GDT, len(data) - 1)


def _identity(memory: GuestMemory) -> None:
    table, page = int(Pte.PRESENT | Pte.WRITE), int(Pte.PRESENT | Pte.WRITE | Pte.LARGE)
    memory.fill(PML4, PD + MAPPED_GIB * 0x1000 - PML4)
    memory.write(PML4, struct.pack("<Q", PDPT | table))
    memory.write(PDPT, struct.pack(f"<{MAPPED_GIB}Q", *(PD + n * 0x1000 | table for n in range(MAPPED_GIB))))
    entries = [n * LARGE | page for n in range(512 * MAPPED_GIB)]
    memory.write(PD, struct.pack(f"<{len(entries)}Q", *entries))
