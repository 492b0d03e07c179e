"""Fault containment: everything about a fault goes to the CPU's fault record, its status becomes FAULTED, it halts.

Entered from the stubs on the CPU that faulted; no other CPU is disturbed. The driver restarts the CPU by INIT-SIPI.
If the handler itself faults (the CPU's own page tables may be what is broken), `fault_nested` goes back to the shared
transition tables and reports what the first fault left in registers, through the window.

Ref: SDM vol. 3A, 6.12.1, 6.14; 6.7.1 (handling multiple NMIs: blocked until IRET or INIT).
"""

from sidecar.kernel.apic import INTERRUPT_VECTORS
from sidecar.kernel.arrive import find_self, private_offset
from sidecar.kernel.recorder import record
from sidecar.layout.x86 import EXCEPTION_VECTORS

SAVED = ("rax", "rcx", "rdx", "rbx", None, "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
"""General registers in the order of their encoding; None is RSP, which stands in the interrupt frame."""


def set_faulted(status: str) -> str:
    """Text: move the status byte at [`status`] to FAULTED unless it is REMOVED or FAULTED. Out: edx old status.

    Clobbers: rax, rcx, rdx. Jumps to halt_forever if the CPU is not the sidecar's to report.
    """
    return f"""
            movzx   eax, byte ptr [{status}]
    .{status}_again:
            mov     edx, eax
            cmp     eax, CpuStatus.REMOVED
            je      halt_forever
            cmp     eax, CpuStatus.FAULTED
            je      halt_forever
            mov     ecx, CpuStatus.FAULTED
            lock cmpxchg byte ptr [{status}], cl
            jne     .{status}_again
    """


def fault_entry() -> str:
    """Record a fault and stop this CPU.

    In: stack: vector, error code, rip, cs, rflags, rsp, ss. Out: halt_forever. Interrupts: off. Stack: 456 bytes.
    """
    pushes = "".join(f"\n            push    {name or 'rax'}" for name in reversed(SAVED))
    copies = "".join(
        f"""
            mov     rax, qword ptr [rsp + {8 * index}]
            mov     qword ptr [rdi + FaultRecord.registers + {8 * index}], rax"""
        for index in range(16)
    )
    frame = 8 * len(SAVED)
    pops = "".join(f"\n            pop     {name or 'rcx'}" for name in SAVED[:4])
    pops += "\n            add     rsp, 8" + "".join(f"\n            pop     {name}" for name in SAVED[5:])
    return f"""
    fault_entry:{pushes}
            mov     rcx, qword ptr [rsp + {frame + 16}]
            lea     rax, [rip + fault_entry]
            cmp     rcx, rax
            jb      .first
            lea     rax, [rip + fault_end]
            cmp     rcx, rax
            jae     .first
            cmp     dword ptr [rsp + {frame}], Vector.NMI
            jne     fault_nested
    .nothing:{pops}
            add     rsp, 16                         # an NMI while a fault is reported adds nothing
            iretq
    .over:  cmp     r8d, Vector.NMI                 # nothing more to report; but what it hit may be about to tell of it
            je      .nothing
            jmp     halt_forever
    .first: mov     r8d, dword ptr [rsp + {frame}]              # kept in registers for fault_nested:
            mov     r9, qword ptr [rsp + {frame + 8}]           # vector, error code,
            mov     r10, rcx                                    # rip,
            mov     r11, cr2                                    # cr2
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.node_cpu_index]
            lea     rbx, [rip + control_page + ControlPage.cpu_status]
            add     rbx, rax
            movzx   ebp, byte ptr [rbx]
            cmp     ebp, CpuStatus.REMOVED
            je      .over                           # the CPU is Linux's, about to be taken by INIT
            cmp     ebp, CpuStatus.FAULTED
            je      .over                           # the first fault is the one to report
            lea     rdi, [rip + diagnostic_page + DiagnosticPage.fault]
            mov     dword ptr [rdi + FaultRecord.vector], r8d
            mov     dword ptr [rdi + FaultRecord.nested], 0
            mov     qword ptr [rdi + FaultRecord.error_code], r9
            mov     qword ptr [rdi + FaultRecord.rip], r10
            mov     qword ptr [rdi + FaultRecord.cr2], r11
            mov     rax, qword ptr [rsp + {frame + 24}]
            mov     qword ptr [rdi + FaultRecord.cs], rax
            mov     rax, qword ptr [rsp + {frame + 32}]
            mov     qword ptr [rdi + FaultRecord.rflags], rax
            mov     rax, qword ptr [rsp + {frame + 40}]
            mov     qword ptr [rdi + FaultRecord.rsp], rax
            mov     qword ptr [rsp + 32], rax                   # RSP's place among the registers
            mov     rax, qword ptr [rsp + {frame + 48}]
            mov     qword ptr [rdi + FaultRecord.ss], rax
            mov     rax, cr0
            mov     qword ptr [rdi + FaultRecord.cr0], rax
            mov     rax, cr3
            mov     qword ptr [rdi + FaultRecord.cr3], rax
            mov     rax, cr4
            mov     qword ptr [rdi + FaultRecord.cr4], rax
            mov     rax, dr6
            mov     qword ptr [rdi + FaultRecord.dr6], rax{copies}
            mov     dword ptr [rdi + FaultRecord.status], ebp
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.command]
            mov     dword ptr [rdi + FaultRecord.command], eax
            rdtsc
            mov     dword ptr [rdi + FaultRecord.tsc], eax
            mov     dword ptr [rdi + FaultRecord.tsc + 4], edx{record("FAULTED", "r8d", stamp=False, scratch="rsi")}
            inc     qword ptr [rdi + FaultRecord.count]
            {set_faulted("rbx")}
            call    raise_attention
    fault_end:
            sub     rsp, 32
            mov     qword ptr [rsp], r8
            mov     qword ptr [rsp + 8], r10
            mov     qword ptr [rsp + 16], r9
            mov     qword ptr [rsp + 24], r11
            lea     rsi, [rip + text_fault]
            mov     rdx, rsp
            call    log_line
            jmp     halt_forever
            .section .rodata
    text_fault:
            .asciz  "fault: vector %u at %x, error code %x, cr2 %x"
    """


def fault_nested() -> str:
    """The fault handler faulted: report the first fault from registers, on the transition tables, without a stack.

    In: r8d vector, r9 error code, r10 rip, r11 cr2 of the first fault. Out: halt_forever. Interrupts: off. Stack: none.
    """
    return f"""
    fault_nested:
            mov     rax, qword ptr [rip + transition_cr3]
            mov     r15, cr3
            mov     cr3, rax
            {find_self("nested")}
            {private_offset()}
            lea     rdi, [rsi + rcx + PrivatePage.DIAGNOSTIC * PAGE_SIZE + DiagnosticPage.fault]
            lea     r14, [rsi + rbp + ControlPage.cpu_status]
            movzx   eax, byte ptr [r14]
            mov     dword ptr [rdi + FaultRecord.vector], r8d
            mov     dword ptr [rdi + FaultRecord.nested], 1
            mov     qword ptr [rdi + FaultRecord.error_code], r9
            mov     qword ptr [rdi + FaultRecord.rip], r10
            mov     qword ptr [rdi + FaultRecord.cr2], r11
            mov     qword ptr [rdi + FaultRecord.cr3], r15
            mov     dword ptr [rdi + FaultRecord.status], eax
            mov     dword ptr [rdi + FaultRecord.command], 0
            rdtsc
            mov     dword ptr [rdi + FaultRecord.tsc], eax
            mov     dword ptr [rdi + FaultRecord.tsc + 4], edx
            {record("FAULTED", "r8d", page="rdi - DiagnosticPage.fault", stamp=False, scratch="rbx").strip()}
            inc     qword ptr [rdi + FaultRecord.count]
            {set_faulted("r14")}
            mov     dword ptr [rsi + ControlPage.needs_attention], 1
            mov     rdx, qword ptr [rsi + ControlPage.response_cpu]
            mov     rax, rdx
            shr     rax, 32                         # as raise_attention
            lea     ecx, [rax - {EXCEPTION_VECTORS}]
            cmp     ecx, {INTERRUPT_VECTORS}
            jae     halt_forever
            or      eax, Icr.FIXED
            mfence
            lfence
            mov     ecx, Msr.X2APIC_ICR
            wrmsr
            jmp     halt_forever
    """


def halt_forever() -> str:
    """The end of a CPU that is FAULTED, REMOVED or was not asked for: only INIT takes it out.

    A fault between two turns of a guest has left GIF 0, which would hold back INIT. Ref: APM vol. 2, 15.17.
    In: nothing. Interrupts: off. Stack: none.
    """
    return """
    halt_forever:
            cli
            mov     ecx, Msr.EFER
            rdmsr
            test    eax, Efer.SVME
            je      .halt
            stgi
    .halt:  hlt
            jmp     .halt
    """


ROUTINES = (fault_entry, fault_nested, halt_forever)
