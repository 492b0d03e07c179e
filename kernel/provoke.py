"""RAISE: provoke a given fault or interrupt on this CPU, so that containment is tested on the real thing.

Runs as a command, only if the params page allowed it. Each kind is a routine of its own, so that a fault record's rip
names it.

Ref: SDM vol. 3A, 6.15 (exception reference); SDM vol. 3A, 11.12.11 (SELF IPI).
"""

from sidecar.kernel.arrive import find_self, private_offset
from sidecar.layout.address_map import PER_CPU_MAP

KINDS = (
    "DIVIDE_ERROR", "DEBUG", "NMI", "BREAKPOINT", "INVALID_OPCODE", "DEVICE_NOT_AVAILABLE", "DOUBLE_FAULT",
    "SEGMENT_NOT_PRESENT", "STACK_FAULT", "GENERAL_PROTECTION", "PAGE_FAULT", "X87_FLOATING_POINT", "MACHINE_CHECK",
    "SIMD_FLOATING_POINT", "VECTOR", "CORRUPT_PAGE_TABLE", "SPIN", "WAIT_FOR_STOP", "MEASURE_GAPS",
)
NON_CANONICAL = 1 << 63
INTERRUPT_SLOT = next(mapping.slot for mapping in PER_CPU_MAP if mapping.symbol == "interrupt_page")


def raise_command() -> str:
    """Look the kind up and jump to its routine.

    In: RaiseRequest in request_data. Out: rdi argument, for the routine. Clobbers: as command_error.
    Interrupts: off. Stack: 24 bytes and those of command_error.
    """
    rows = "".join(
        f"""
            .long   RaiseKind.{kind}, raise_{kind.lower()} - raise_kinds"""
        for kind in KINDS
    )
    return f"""
    raise_command:
            cmp     dword ptr [rip + raise_allowed], 0
            je      .forbidden
            mov     eax, dword ptr [rip + command_page + CommandPage.request_data + RaiseRequest.kind]
            mov     rdi, qword ptr [rip + command_page + CommandPage.request_data + RaiseRequest.argument]
            lea     rcx, [rip + raise_kinds]
            mov     edx, {len(KINDS)}
    .find:  cmp     eax, dword ptr [rcx]
            je      .found
            add     rcx, 8
            dec     edx
            jne     .find
            lea     rsi, [rip + text_raise_kind]
            jmp     raise_error
    .found: movsxd  rax, dword ptr [rcx + 4]
            lea     rcx, [rip + raise_kinds]
            add     rax, rcx
            jmp     rax
    .forbidden:
            lea     rsi, [rip + text_raise_forbidden]

    raise_error:                                    # rsi template with one argument, rax
            push    rax
            mov     rdx, rsp
            call    command_error
            pop     rax
            ret
            .section .rodata
            .align  4
    raise_kinds:                                    # kind, routine relative to the table{rows}
    text_raise_kind:
            .asciz  "RAISE: kind %x is not known"
    text_raise_forbidden:
            .asciz  "RAISE: this machine was not started for tests"
    """


def raise_divide_error() -> str:
    """#DE: 1 / 0."""
    return """
    raise_divide_error:
            xor     ecx, ecx
            mov     eax, 1
            xor     edx, edx
            div     ecx
            ret
    """


def raise_debug() -> str:
    """#DB by ICEBP, a trap."""
    return """
    raise_debug:
            icebp
            ret
    """


def raise_breakpoint() -> str:
    """#BP by INT3, a trap."""
    return """
    raise_breakpoint:
            int3
            ret
    """


def raise_invalid_opcode() -> str:
    """#UD by UD2."""
    return """
    raise_invalid_opcode:
            ud2
            ret
    """


def raise_device_not_available() -> str:
    """#NM: an x87 instruction under CR0.TS."""
    return """
    raise_device_not_available:
            mov     rax, cr0
            or      eax, Cr0.TS
            mov     cr0, rax
            fninit
            ret
    """


def raise_double_fault() -> str:
    """#DF: a page fault that has no stack to be delivered on."""
    return """
    raise_double_fault:
            lea     rsp, [rip + stack]              # the page below is a guard page
            push    rax
            ret
    """


def raise_segment_not_present() -> str:
    """#NP: DS from a descriptor that is not present."""
    return """
    raise_segment_not_present:
            mov     eax, Selector.NOT_PRESENT
            mov     ds, eax
            ret
    """


def raise_stack_fault() -> str:
    """#SS: SS from a descriptor that is not present."""
    return """
    raise_stack_fault:
            mov     eax, Selector.NOT_PRESENT
            mov     ss, eax
            ret
    """


def raise_general_protection() -> str:
    """#GP: a non-canonical address."""
    return f"""
    raise_general_protection:
            mov     rax, {NON_CANONICAL:#x}
            mov     rax, qword ptr [rax]
            ret
    """


def raise_page_fault() -> str:
    """#PF, or whatever a read at the argument gives."""
    return """
    raise_page_fault:
            mov     rax, qword ptr [rdi]
            ret
    """


def raise_x87_floating_point() -> str:
    """#MF: an unmasked division by zero, reported by the instruction after it."""
    return """
    raise_x87_floating_point:
            push    Fcw.UNMASKED_ZERO_DIVIDE
            fldcw   [rsp]
            pop     rax
            fld1
            fldz
            .byte   0xde, 0xf9                      # fdivp st(1), st(0)
            fwait
            ret
    """


def raise_machine_check() -> str:
    """#MC's gate and interrupt stack, by INT 18: a real machine check cannot be ordered."""
    return """
    raise_machine_check:
            int     0x12                            # through the gate and its interrupt stack
            ret
    """


def raise_simd_floating_point() -> str:
    """#XM: an unmasked SSE division by zero."""
    return """
    raise_simd_floating_point:
            push    Mxcsr.UNMASKED_DIVIDE
            ldmxcsr [rsp]
            pop     rax
            mov     eax, 1
            cvtsi2ss xmm0, eax
            xorps   xmm1, xmm1
            divss   xmm0, xmm1
            ret
    """


def raise_nmi() -> str:
    """NMI by an IPI to oneself."""
    return """
    raise_nmi:
            mov     edx, dword ptr [rip + vp_globals + VpGlobals.apic_id]
            mov     eax, Icr.NMI
            mov     ecx, Msr.X2APIC_ICR
            wrmsr
            mov     ecx, 100000000                  # it arrives within a few instructions; the bound is generous
    .wait:  pause
            dec     ecx
            jne     .wait
            lea     rsi, [rip + text_raise_nmi]
            jmp     raise_error
            .section .rodata
    text_raise_nmi:
            .asciz  "RAISE: the NMI did not arrive (ICR %x)"
    """


def raise_vector() -> str:
    """A fixed interrupt to oneself: pending until the CPU parks."""
    return """
    raise_vector:
            mov     rax, rdi
            lea     rsi, [rip + text_raise_vector]
            sub     rdi, 32
            cmp     rdi, 256 - 32
            jae     raise_error
            xor     edx, edx
            mov     ecx, Msr.X2APIC_SELF_IPI
            wrmsr
            ret
            .section .rodata
    text_raise_vector:
            .asciz  "RAISE: vector %u, expected 32 to 255"
    """


def raise_corrupt_page_table() -> str:
    """Clear one entry of this CPU's own page table, then touch the page.

    The table is in no CPU's own map, so this goes over the transition tables, without a stack. The slot of the
    interrupt page is refused: without it a CPU cannot deliver any exception, and ends in a triple fault.
    In: rdi slot. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r13.
    """
    return f"""
    raise_corrupt_page_table:
            mov     rax, rdi
            lea     rsi, [rip + text_raise_slot]
            cmp     rdi, TABLE_ENTRIES
            jae     raise_error
            cmp     rdi, {INTERRUPT_SLOT}
            je      raise_error
            mov     r8, rdi
            mov     r9, rbx                         # find_self uses these
            mov     r10, rbp
            mov     r11, r12
            mov     rdi, cr3
            mov     rax, qword ptr [rip + transition_cr3]
            mov     cr3, rax
            {find_self("corrupt")}
            {private_offset()}
            add     rcx, rsi
            mov     qword ptr [rcx + PrivatePage.PT * PAGE_SIZE + r8*8], 0
            mov     rbx, r9
            mov     rbp, r10
            mov     r12, r11
            mov     cr3, rdi
            shl     r8, 12
            lea     rax, [rip + per_cpu_pages]
            mov     rax, qword ptr [rax + r8]
            ret
            .section .rodata
    text_raise_slot:
            .asciz  "RAISE: slot %u, expected 0 to 511 and not that of the interrupt page"
    """


def raise_spin() -> str:
    """A CPU that answers nothing: only INIT ends it."""
    return """
    raise_spin:
            pause
            jmp     raise_spin
    """


def raise_wait_for_stop() -> str:
    """A command that lasts until the driver cancels it. Clobbers: rcx, rdx."""
    return """
    raise_wait_for_stop:
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.node_cpu_index]
            lea     rdx, [rip + control_page + ControlPage.cpu_status]
    .wait:  pause
            cmp     byte ptr [rdx + rcx], CpuStatus.RUN
            je      .wait
            ret
    """


ROUTINES = (
    raise_command,
    raise_divide_error,
    raise_debug,
    raise_breakpoint,
    raise_invalid_opcode,
    raise_device_not_available,
    raise_double_fault,
    raise_segment_not_present,
    raise_stack_fault,
    raise_general_protection,
    raise_page_fault,
    raise_x87_floating_point,
    raise_machine_check,
    raise_simd_floating_point,
    raise_nmi,
    raise_vector,
    raise_corrupt_page_table,
    raise_spin,
    raise_wait_for_stop,
)
