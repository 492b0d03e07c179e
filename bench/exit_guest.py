"""A guest that exits as it is told: from the reset vector into 64-bit mode, then the same round again and again.

Three pages that end at 4 GiB, where a processor begins after RESET, so that whoever runs it sets no registers: PML4,
PDPT with the first and the last GiB as they are, and the code with its parameters. A round does something `count` times
that the VMM sees nothing of, and ends with an OUT, which is the VMM's.

Ref: AMD64 APM vol. 2, 14.1.5 (first instruction), 14.6.1 (long mode), 5.3.4 (1 GiB pages).
"""

import struct
from enum import IntEnum

from sidecar.builder.asm import assemble
from sidecar.layout import NAMES
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.x86 import Descriptor, Pte

PML4, PDPT, CODE = 0xFFFFD000, 0xFFFFE000, 0xFFFFF000
GDT, GDTR, FAR, START, RESET_VECTOR = 0x10, 0x20, 0x26, 0x100, 0xFF0
"""Offsets in the page of code; the parameters are at 0: u32 count, u32 Round."""
REAL_MODE_PAGE = CODE & 0xFFFF
CODE_SELECTOR = 8
GIB = 1 << 30
JMP_REL16 = 0xE9
PORT = 0x5F
"""Nobody's."""


class Round(IntEnum):
    """What a round does. in_guest/exits.c gets the number as an argument."""

    CPUID = 0
    """Leaf 1."""
    RDMSR = 1
    """EFER."""
    TOUCH = 2
    """Writes to the pages from 0 on, each once."""


def start() -> str:
    """From real mode to 64-bit mode, and the rounds.

    In: the state after RESET, but for RIP. Clobbers: everything. Interrupts: off. Stack: none.
    """
    return f"""
    start:
            .code16
            mov     eax, Cr4.PAE
            mov     cr4, eax
            mov     eax, {PML4:#x}
            mov     cr3, eax
            mov     ecx, Msr.EFER
            mov     eax, Efer.LME
            xor     edx, edx
            wrmsr
            .byte   0x2e                            # CS, the one segment that reaches here
            lgdtd   [{REAL_MODE_PAGE + GDTR:#x}]
            mov     eax, Cr0.PG | Cr0.ET | Cr0.PE
            mov     cr0, eax
            .byte   0x2e
            ljmp    fword ptr [{REAL_MODE_PAGE + FAR:#x}]
            .code64
    rounds: mov     edx, {PORT:#x}
            out     dx, al
            mov     ebp, {CODE:#x}
            mov     esi, dword ptr [rbp]
            test    esi, esi
            je      rounds
            mov     eax, dword ptr [rbp + 4]
            cmp     eax, {int(Round.RDMSR)}
            je      .rdmsr
            ja      .touch
    .cpuid: mov     eax, Cpuid.FEATURES
            cpuid
            dec     esi
            jne     .cpuid
            jmp     rounds
    .rdmsr: mov     ecx, Msr.EFER
            rdmsr
            dec     esi
            jne     .rdmsr
            jmp     rounds
    .touch: xor     edi, edi
    .next:  mov     dword ptr [rdi], esi
            add     rdi, PAGE_SIZE
            dec     esi
            jne     .next
            jmp     rounds
    """


def image() -> bytes:
    """The three pages, for PML4 and what follows."""
    linked = assemble([start], names=NAMES).link({".text": CODE + START}, allow_absolute=False)
    page = bytearray(PAGE_SIZE)
    struct.pack_into("<2Q", page, GDT, 0, Descriptor.CODE64)
    struct.pack_into("<HI", page, GDTR, 2 * 8 - 1, CODE + GDT)
    struct.pack_into("<IH", page, FAR, linked.symbols["rounds"], CODE_SELECTOR)
    code = linked.sections[".text"]
    page[START : START + len(code)] = code
    struct.pack_into("<Bh", page, RESET_VECTOR, JMP_REL16, START - (RESET_VECTOR + 3))
    table = Pte.PRESENT | Pte.WRITE | Pte.USER
    pml4 = struct.pack("<Q", PDPT | table).ljust(PAGE_SIZE, b"\0")
    leaf = table | Pte.LARGE
    pdpt = struct.pack("<4Q", leaf, 0, 0, 3 * GIB | leaf).ljust(PAGE_SIZE, b"\0")
    return pml4 + pdpt + bytes(page)
