"""Guests that run under KVM and on the sidecar alike, as images of their memory from 0 on, begun at the reset vector.

    rom(), image(long_mode("xor eax, eax"))

Each begins in real mode at CODE. What stands at a port, an address without memory or in an unknown MSR, who runs the
guest knows; PORT has no meaning but that the guest exits there and its registers are looked at.
"""

import struct

from sidecar.layout.x86 import Pte
from tests.support.guests import program
from tests.support.in_guest.vp_run import PAGE, WAKING_VECTOR

PML4, PDPT, PD = 0x1000, 0x2000, 0x3000
GDT = 0x7000
CODE, REAL_HANDLER = 0x8000, 0x7C00
IDT, HANDLERS, HANDLER_BYTES = 0x10000, 0x11000, 32
DATA, STACK = 0x14000, 0x18000
MEMORY_BYTES = 0x20000
MMIO, REAL_MMIO = 0xD0000000, 0xB8000
PORT = 0x80
CODE64, DATA_SEGMENT, CODE32, CODE16, DATA16, TASK = 0x08, 0x10, 0x18, 0x20, 0x28, 0x30
DESCRIPTORS = (
    0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF9B000000FFFF, 0x00009B000000FFFF, 0x000093000000FFFF,
    0x0000890000000067 | (DATA + 0x800) << 16, 0,
)  # fmt: skip
ERROR_CODES = (8, 10, 11, 12, 13, 14, 17)
RESET_OFFSET = 0xFF0

LOOK = f"\n            out     {PORT}, al\n"


def to_protected(look: str = "") -> str:
    """From real mode to flat 32-bit protected mode; `look` after each step."""
    return f"""
            cli
            lgdt    [gdt_pointer]{look}
            mov     eax, cr0
            or      eax, Cr0.PE
            mov     cr0, eax{look}
            .byte   0x66, 0xea
            .long   protected
            .word   {CODE32}
    gdt_pointer:
            .word   {8 * len(DESCRIPTORS) - 1}
            .long   {GDT}
            .code32
    protected:{look}
            mov     eax, {DATA_SEGMENT}
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            mov     esp, {STACK}{look}
"""


def to_long(look: str = "") -> str:
    """From there to 64-bit mode, with an IDT; R12 is 0, R14 DATA, R15 MMIO."""
    return f"""
            mov     eax, cr4
            or      eax, Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
            mov     cr4, eax{look}
            mov     eax, {PML4}
            mov     cr3, eax
            mov     ecx, Msr.EFER
            rdmsr
            or      eax, Efer.LME | Efer.SCE | Efer.NXE
            wrmsr{look}
            mov     eax, cr0
            or      eax, Cr0.PG | Cr0.WP | Cr0.NE
            mov     cr0, eax{look}
            .byte   0xea
            .long   long_mode
            .word   {CODE64}
    idt_pointer:
            .word   4095
            .quad   {IDT}
            .code64
    long_mode:{look}
            mov     eax, {DATA_SEGMENT}
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            mov     fs, eax
            mov     gs, eax
            mov     rsp, {STACK}
            lidt    [rip + idt_pointer]
            xor     r12d, r12d
            mov     r14d, {DATA}
            mov     r15d, {MMIO}{look}
"""


def long_mode(text: str) -> str:
    """A program that goes to 64-bit mode first, and halts at last."""
    return to_protected() + to_long() + text + "\n            hlt\n"


def rom() -> bytes:
    """The page below 4 GiB: at the reset vector, a far jump to CODE."""
    jump = b"\xea" + struct.pack("<HH", CODE, 0)
    return (bytes(RESET_OFFSET) + jump).ljust(PAGE, b"\xf4")


def image(text: str) -> bytes:
    """Memory from 0 on: the program, tables for all modes, and handlers of exceptions and interrupts."""
    memory = bytearray(MEMORY_BYTES)
    leaf = Pte.PRESENT | Pte.WRITE
    struct.pack_into("<Q", memory, PML4, PDPT | leaf)
    struct.pack_into("<4Q", memory, PDPT, *(PD + PAGE * n | leaf for n in range(4)))
    struct.pack_into("<2048Q", memory, PD, *(n << 21 | leaf | Pte.LARGE for n in range(2048)))
    struct.pack_into(f"<{len(DESCRIPTORS)}Q", memory, GDT, *DESCRIPTORS)
    for vector in range(256):
        struct.pack_into("<HH", memory, 4 * vector, REAL_HANDLER, 0)
        at = HANDLERS + HANDLER_BYTES * vector
        struct.pack_into("<HHBBHII", memory, IDT + 16 * vector, at & 0xFFFF, CODE64, 0, 0x8E, at >> 16, 0, 0)
    for vector in (*range(22), WAKING_VECTOR, 0x30, 0x41):
        place(memory, HANDLERS + HANDLER_BYTES * vector, program(handler(vector), at=HANDLERS))
    place(memory, REAL_HANDLER, program("inc esi\n out 0x81, al\n .byte 0xcf", bits=16, at=REAL_HANDLER))
    place(memory, CODE, program(text, bits=16, at=CODE))
    return bytes(memory)


def place(memory: bytearray, at: int, data: bytes) -> None:
    memory[at : at + len(data)] = data


def handler(vector: int) -> str:
    """64-bit: an exit with the vector; faults go on RBX bytes behind their instruction, error codes go to R13."""
    skip = "add qword ptr [rsp], rbx" if vector < 32 and vector not in (1, 3) else "nop"
    code = "pop r13" if vector in ERROR_CODES else "nop"
    return f"inc r12\n {code}\n {skip}\n out {0xA0 + vector % 32}, al\n iretq"
