"""GDT, TSS and IDT: data, built here in Python, and the routine that makes a CPU use them.

Each CPU has its own GDT and TSS (LTR writes to the descriptor); the IDT is one for all, in read-only memory. Their
addresses are the same on every CPU, so all three are constants.

Ref: SDM vol. 3A, 3.4.5, 6.14 (64-bit interrupt gates, IST), 8.7 (64-bit TSS).
"""

from collections.abc import Mapping

from sidecar.layout.address_map import IMAGE_VA, absolute_symbols
from sidecar.layout.private import INTERRUPT_STACK_BYTES, InterruptPage, Tss
from sidecar.layout.x86 import Descriptor, Gate, Ist, Selector, Vector

IST_OF = {Vector.DOUBLE_FAULT: Ist.DOUBLE_FAULT, Vector.NMI: Ist.NMI, Vector.MACHINE_CHECK: Ist.MACHINE_CHECK}
STUB_BYTES = 16
IDT_BYTES = 256 * 16
PAGE_VA = IMAGE_VA + absolute_symbols()["interrupt_page"]


def gdt() -> tuple[int, ...]:
    """The eight entries of a CPU's GDT.

    >>> [hex(entry) for entry in gdt()[:3]]
    ['0x0', '0x209b0000000000', '0xcf93000000ffff']
    """
    base, limit = PAGE_VA + InterruptPage.tss, Tss.SIZE - 1
    low = Descriptor.TSS_ATTRIBUTES | limit | (base & 0xFFFFFF) << 16 | (base >> 24 & 0xFF) << 56
    entries = [0] * InterruptPage.gdt.COUNT
    entries[Selector.CODE64 // 8] = Descriptor.CODE64
    entries[Selector.DATA // 8] = Descriptor.DATA
    entries[Selector.TSS // 8] = low
    entries[Selector.TSS // 8 + 1] = base >> 32
    entries[Selector.NOT_PRESENT // 8] = Descriptor.NOT_PRESENT_DATA
    return tuple(int(entry) for entry in entries)


def tss() -> bytes:
    """A CPU's TSS: three interrupt stacks in one page, no I/O permission map."""
    ends = [PAGE_VA + InterruptPage.stacks + INTERRUPT_STACK_BYTES * ist for ist in Ist]
    stacks = ends + [0] * (7 - len(Ist))
    return Tss.build(
        rsp=bytes(24), ist=b"".join(stack.to_bytes(8, "little") for stack in stacks), io_map_base=Tss.SIZE
    )


def interrupt_page_head() -> bytes:
    """What stands in InterruptPage up to the end of `tss`, the same on every CPU."""
    entries = b"".join(entry.to_bytes(8, "little") for entry in gdt())
    pseudo = bytes(6) + (len(entries) - 1).to_bytes(2, "little") + (PAGE_VA + InterruptPage.gdt).to_bytes(8, "little")
    return entries + pseudo + tss()


def idt(stubs_va: int) -> bytes:
    """256 interrupt gates onto the stubs, STUB_BYTES apart; #DF, NMI and #MC on stacks of their own.

    stubs_va: address of vector 0's stub as the CPUs see it.

    >>> idt(0xFFFFFF8000001000)[:16].hex()
    '00100800008e000080ffffff00000000'
    """
    gates = bytearray()
    for vector in range(256):
        target = stubs_va + vector * STUB_BYTES
        ist = IST_OF.get(Vector(vector), 0) if vector in set(Vector) else 0
        gates += (target & 0xFFFF).to_bytes(2, "little") + Selector.CODE64.to_bytes(2, "little")
        gates += bytes((ist, Gate.INTERRUPT)) + (target >> 16 & 0xFFFF).to_bytes(2, "little")
        gates += (target >> 32).to_bytes(4, "little") + bytes(4)
    return bytes(gates)


def late_data(symbols: Mapping[str, int]) -> dict[str, bytes]:
    """Data that depends on where the linker put things: label -> bytes. symbols: name -> offset in the image."""
    return {"idt": idt(IMAGE_VA + symbols["interrupt_stubs"])}


def load_descriptors() -> str:
    """Give this CPU its GDT and TSS, and load them and the IDT.

    In: own tables. Clobbers: rax, rcx, rsi, rdi. Interrupts: off. Stack: 16 bytes.
    """
    template = interrupt_page_head()
    if len(template) % 8:
        raise ValueError(f"interrupt page: {len(template)} bytes, expected a multiple of 8")
    data = ", ".join(f"{byte:#04x}" for byte in template)
    return f"""
    load_descriptors:
            lea     rsi, [rip + interrupt_page_head]
            lea     rdi, [rip + interrupt_page + InterruptPage.gdt]
            mov     ecx, {len(template) // 8}
            rep movsq
            lgdt    [rip + interrupt_page + InterruptPage.gdt_limit]
            mov     eax, Selector.DATA
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            pop     rax
            push    Selector.CODE64
            push    rax
            mov     eax, Selector.TSS
            ltr     ax
            lidt    [rip + idt_pointer]
            retfq                                   # to the caller, with the code segment of this GDT
            .section .data.rel.ro
            .align  8
            .word   0, 0, 0
    idt_pointer:
            .word   {IDT_BYTES - 1}
            .quad   idt
            .section .rodata
            .align  16
    interrupt_page_head:
            .byte   {data}
            .align  16
    idt:    .zero   {IDT_BYTES}
    """


ROUTINES = (load_descriptors,)
