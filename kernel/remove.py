"""REMOVE: the CPU is torn down and halts, for Linux to take it by INIT.

Ref: SDM vol. 3A, 11.4.7.2 (software-disabled APIC: IPIs can still be sent); OpenHCL sidecar, `vp.rs`.
"""

from sidecar.kernel.recorder import record


def remove() -> str:
    """Give this CPU up.

    In: rbx address of the status byte, which is REMOVE. Out: halt_forever, or park if the status changed.
    Interrupts: off. Stack: as log_line.
    """
    return f"""
    remove: inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.removals]
            mov     r9d, dword ptr [rip + diagnostic_page + DiagnosticPage.counters.removals]{record("REMOVED", "r9d")}
            cmp     qword ptr [rip + vp_globals + VpGlobals.vp.created], 0
            je      .no_vp
            call    forget_vp
    .no_vp: lea     rsi, [rip + text_removed]
            xor     edx, edx
            call    log_line
            mov     eax, SPURIOUS_VECTOR            # software-disabled: nothing but INIT and NMI arrives
            xor     edx, edx
            mov     ecx, Msr.X2APIC_SIVR
            wrmsr
            mov     eax, CpuStatus.REMOVE
            mov     ecx, CpuStatus.REMOVED
            lock cmpxchg byte ptr [rbx], cl
            jne     .changed
            call    raise_attention                 # Linux may already be sending INIT: nothing is lost by it
            jmp     halt_forever
    .changed:
            call    enable_x2apic
            jmp     park
            .section .rodata
    text_removed:
            .asciz  "removed"
    """


ROUTINES = (remove,)
