"""One register of the virtual processor: found by its number, read, checked and set, by the rule of its row.

Runs as part of GET_VP_REGISTERS and SET_VP_REGISTERS. A row of `register_rows` is eight bytes: number and rule, place
and mask. The rules and all rows are data in layout/register_table.py; here is what each rule does.

Ref: TLFS, "Virtual Processor Registers"; AMD64 APM vol. 2, 3.1 (control registers), 7.8.2 (PAT), 15.5.1 (segments in
the VMCB: attributes are packed into 12 bits), 15.20 (events).
"""

from sidecar.layout.register_table import REGISTERS, RegisterRule

NEEDS_VP = 0x80
"""Set in a row's rule: the register exists only with a virtual processor."""

_MASKS = sorted({(row.writable, row.fixed) for row in REGISTERS})
LOW_64 = (1 << 64) - 1
ODD_TYPES = 0x0202020202020202
"""In PAT, types 2 and 3 do not exist: this bit without the next one."""
INTERRUPTION_TYPES = 0b01111101
"""Bit n: HvInterruptionType n exists."""


def find_register() -> str:
    """The row of a register. Here stand the rows, and the masks that they refer to.

    In: edx HvRegisterName. Out: rsi row, 0 if there is none. Clobbers: rax, rcx. Interrupts: any. Stack: none.
    """
    rows = "".join(
        f"""
            .long   {row.number | (row.rule | (NEEDS_VP if row.needs_vp else 0)) << 24:#x}
            .long   {row.place | _MASKS.index((row.writable, row.fixed)) << 24:#x}      # {row.name}"""
        for row in REGISTERS
    )
    masks = "".join(
        f"""
            .quad   {writable & LOW_64:#x}, {writable >> 64 | fixed:#x}"""
        for writable, fixed in _MASKS
    )
    return f"""
    find_register:
            lea     rsi, [rip + register_rows]
            mov     ecx, {len(REGISTERS)}
    .next:  mov     eax, dword ptr [rsi]
            and     eax, 0xffffff
            cmp     eax, edx
            je      .done
            add     rsi, 8
            dec     ecx
            jne     .next
            xor     esi, esi
    .done:  ret
            .section .rodata
            .align  8
    register_masks:                                 # bits of SET; high half, or what is always set{masks}
    register_rows:                                  # number and rule, place and mask{rows}
    """


def locate_register() -> str:
    """Take a row apart.

    In: rsi row. Out: rdi address of the register, ecx RegisterRule, r10 its masks. Clobbers: r11. Interrupts: any.
    Stack: none.
    """
    return f"""
    locate_register:
            mov     edi, dword ptr [rsi + 4]
            mov     r10d, edi
            shr     r10d, 24
            shl     r10d, 4
            lea     r11, [rip + register_masks]
            add     r10, r11
            and     edi, 0xffffff
            lea     r11, [rip + per_cpu_pages]
            add     rdi, r11
            movzx   ecx, byte ptr [rsi + 3]
            and     ecx, {NEEDS_VP - 1}
            ret
    """


def read_register() -> str:
    """The value of a register.

    In: rsi row. Out: rax low half, rdx high half. Clobbers: rcx, rdi, r10, r11. Interrupts: any. Stack: 8 bytes.
    """
    return f"""
    read_register:
            call    locate_register
            mov     rax, qword ptr [rdi]
            xor     edx, edx
            cmp     ecx, {RegisterRule.WIDE}
            jae     .wide
            cmp     ecx, {RegisterRule.EFER}
            je      .efer
            cmp     ecx, {RegisterRule.TSC}
            je      .tsc
            cmp     ecx, {RegisterRule.BYTE}
            je      .byte
            cmp     ecx, {RegisterRule.INTERRUPT_STATE}
            je      .interrupt_state
            ret
    .efer:  and     eax, ~Efer.SVME                 # its upper half is zero
            ret
    .tsc:   mov     rcx, rax
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            add     rax, rcx
            xor     edx, edx
            ret
    .byte:  movzx   eax, al
            ret
    .interrupt_state:
            and     eax, HvInterruptState.INTERRUPT_SHADOW
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked]
            lea     eax, [rax + rcx*2]              # HvInterruptState.NMI_MASKED
            ret
    .wide:  cmp     ecx, {RegisterRule.SEGMENT}
            jae     .segment
            mov     rdx, qword ptr [rdi + 8]
            ret
    .segment:
            cmp     ecx, {RegisterRule.TABLE}
            je      .table
            movzx   edx, word ptr [rdi + VmcbSegment.attributes]
            mov     eax, edx
            and     edx, 0xff
            and     eax, 0xf00
            shl     eax, 4
            or      edx, eax
            shl     edx, 16
            mov     dx, word ptr [rdi + VmcbSegment.selector]
            shl     rdx, 32
            mov     eax, dword ptr [rdi + VmcbSegment.limit]
            or      rdx, rax
            mov     rax, qword ptr [rdi + VmcbSegment.base]
            ret
    .table: movzx   eax, word ptr [rdi + VmcbSegment.limit]
            shl     rax, 48
            mov     rdx, qword ptr [rdi + VmcbSegment.base]
            ret
    """


def write_register() -> str:
    """Check a value and set a register to it.

    In: rsi row, rax low half, rdx high half. Out: rsi 0, or the sentence that refuses it; its third and fourth
    argument in r8 and r9. Clobbers: rax, rcx, rdx, rdi, r10, r11. Interrupts: any. Stack: 16 bytes and those of
    xcr0_allowed.
    """
    return f"""
    write_register:
            call    locate_register
            mov     r8, qword ptr [r10]
            not     r8
            and     r8, rax                         # bits that may not be given
            cmp     ecx, {RegisterRule.WIDE}
            jae     write_wide_register
            lea     rsi, [rip + text_register_read_only]
            cmp     qword ptr [r10], 0
            je      .done
            lea     rsi, [rip + text_register_bits]
            test    rdx, rdx
            je      .narrow
            mov     r8, rdx
            lea     rsi, [rip + text_register_high]
    .narrow:
            test    r8, r8
            jne     .done
            or      rax, qword ptr [r10 + 8]
            mov     r8, rax
            cmp     ecx, {RegisterRule.PLAIN}
            je      .store
            cmp     ecx, {RegisterRule.CANONICAL}
            je      .canonical
            cmp     ecx, {RegisterRule.CR0}
            je      .cr0
            cmp     ecx, {RegisterRule.EFER}
            je      .efer
            cmp     ecx, {RegisterRule.PAT}
            je      .pat
            cmp     ecx, {RegisterRule.XCR0}
            je      .xcr0
            cmp     ecx, {RegisterRule.TSC}
            je      .tsc
            cmp     ecx, {RegisterRule.BYTE}
            je      .byte
            cmp     ecx, {RegisterRule.PENDING_INTERRUPTION}
            je      .interruption
            and     eax, HvInterruptState.INTERRUPT_SHADOW  # INTERRUPT_STATE
            mov     qword ptr [rdi], rax
            shr     r8d, 1
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked], r8d
            jmp     .stored
    .canonical:
            shl     rax, 7
            sar     rax, 7
            lea     r9, [rip + text_not_canonical]
            cmp     rax, r8
            jne     .refused
    .store: mov     qword ptr [rdi], r8
    .stored:
            xor     esi, esi
    .done:  ret
    .cr0:   lea     r9, [rip + text_paging_unprotected]
            test    eax, Cr0.PG
            je      .no_paging
            test    eax, Cr0.PE
            je      .refused
    .no_paging:
            lea     r9, [rip + text_write_through]
            and     eax, Cr0.NW | Cr0.CD
            cmp     eax, Cr0.NW
            je      .refused
            mov     qword ptr [rdi], r8
            jmp     .mode
    .efer:  or      eax, Efer.SVME
            mov     qword ptr [rdi], rax
    .mode:  mov     eax, dword ptr [rip + vp_vmcb + Vmcb.efer]
            and     eax, ~Efer.LMA
            test    eax, Efer.LME
            je      .legacy
            test    dword ptr [rip + vp_vmcb + Vmcb.cr0], Cr0.PG
            je      .legacy
            or      eax, Efer.LMA
    .legacy:
            mov     dword ptr [rip + vp_vmcb + Vmcb.efer], eax
            jmp     .stored
    .pat:   lea     r9, [rip + text_memory_type]
            shr     rax, 1
            not     rax
            and     rax, r8
            mov     rcx, {ODD_TYPES:#x}
            test    rax, rcx
            je      .store
            jmp     .refused
    .xcr0:  lea     r9, [rip + text_components]
            call    xcr0_allowed
            test    ecx, ecx
            jne     .store
    .refused:
            lea     rsi, [rip + text_register_value]
            ret
    .tsc:   rdtsc
            shl     rdx, 32
            or      rax, rdx
            sub     r8, rax
            jmp     .store
    .byte:  mov     byte ptr [rdi], al
            jmp     .stored
    .interruption:
            lea     r9, [rip + text_event]
            test    al, HvPendingInterruption.PENDING
            je      .store
            mov     edx, eax
            shr     edx, 1
            and     edx, 7
            mov     ecx, {INTERRUPTION_TYPES:#x}
            bt      ecx, edx
            jae     .refused
            cmp     edx, HvInterruptionType.NMI
            jbe     .store
            cmp     edx, HvInterruptionType.SOFTWARE_INTERRUPT
            je      .store
            shr     eax, 16
            and     eax, 0xff
            cmp     eax, Vector.NMI
            je      .refused
            cmp     eax, EXCEPTION_VECTORS
            jae     .refused
            jmp     .store
            .section .rodata
    text_register_high:
            .asciz  "command %u: register %x has 64 bits, its high half must be 0 and is %x"
    text_register_bits:
            .asciz  "command %u: register %x: bits %x must be 0"
    text_register_high_bits:
            .asciz  "command %u: register %x: bits %x of the high half must be 0"
    text_register_read_only:
            .asciz  "command %u: register %x is read-only"
    text_register_value:
            .asciz  "command %u: register %x: %x %s"
    text_not_canonical:
            .asciz  "is not canonical"
    text_paging_unprotected:
            .asciz  "has PG without PE"
    text_write_through:
            .asciz  "has NW without CD"
    text_memory_type:
            .asciz  "has a memory type that does not exist"
    text_components:
            .asciz  "has state components that cannot be together or do not exist"
    text_event:
            .asciz  "is no event that can be delivered"
    """


def write_wide_register() -> str:
    """The same for registers of 128 bits.

    In: as locate_register leaves it, r8 bits of the low half that may not be given, rax and rdx value. Out: rsi, r8, r9
    as write_register. Clobbers: rax, rcx, rdx, r11. Interrupts: any. Stack: none.
    """
    return f"""
    write_wide_register:
            lea     rsi, [rip + text_register_bits]
            test    r8, r8
            jne     .done
            mov     r8, qword ptr [r10 + 8]
            not     r8
            and     r8, rdx
            lea     rsi, [rip + text_register_high_bits]
            jne     .done
            mov     r8, rax
            cmp     ecx, {RegisterRule.WIDE}
            je      .store
            cmp     ecx, {RegisterRule.PENDING_EVENT}
            je      .event
            cmp     ecx, {RegisterRule.TABLE}
            jne     .address
            mov     r8, rdx
    .address:
            lea     r9, [rip + text_not_canonical]
            mov     r11, r8                         # the base
            shl     r11, 7
            sar     r11, 7
            cmp     r11, r8
            jne     .refused
            mov     qword ptr [rdi + VmcbSegment.base], r8
            cmp     ecx, {RegisterRule.TABLE}
            je      .table
            mov     dword ptr [rdi + VmcbSegment.limit], edx
            shr     rdx, 32
            mov     word ptr [rdi + VmcbSegment.selector], dx
            shr     edx, 16
            movzx   eax, dl
            shr     edx, 4
            and     edx, 0xf00
            or      edx, eax
            mov     word ptr [rdi + VmcbSegment.attributes], dx
            cmp     ecx, {RegisterRule.STACK_SEGMENT}
            jne     .stored
            shr     edx, 5
            and     edx, 3
            mov     byte ptr [rip + vp_vmcb + Vmcb.cpl], dl
            jmp     .stored
    .table: shr     rax, 48
            mov     dword ptr [rdi + VmcbSegment.limit], eax
            jmp     .stored
    .event: lea     r9, [rip + text_event]
            test    al, HvPendingEvent.PENDING
            je      .store
            mov     ecx, eax
            and     ecx, HvPendingEvent.TYPE
            je      .exception
            cmp     ecx, HvPendingEventType.EXTERNAL_INTERRUPT << 1
            jne     .refused
            shr     rax, 16                         # nothing above its vector
            or      rax, rdx
            jne     .refused
            jmp     .store
    .exception:
            test    eax, 0xfe00
            jne     .refused
            shr     eax, 16
            cmp     eax, Vector.NMI
            je      .refused
            cmp     eax, EXCEPTION_VECTORS
            jae     .refused
    .store: mov     qword ptr [rdi], r8
            mov     qword ptr [rdi + 8], rdx
    .stored:
            xor     esi, esi
    .done:  ret
    .refused:
            lea     rsi, [rip + text_register_value]
            ret
    """


ROUTINES = (find_register, locate_register, read_register, write_register, write_wide_register)
