"""RUN_VP, the half that does not know which hardware runs the guest: inputs, the back end's turn, outcome.

Runs on the sidecar CPU, inside the command, interrupts off. The client may write to its page all the time: each input
is read once.

Ref: TLFS, "Virtual Processors"; OpenHCL sidecar, `vp.rs`.
"""

from sidecar.kernel.vp import call_operation


def run_vp() -> str:
    """RUN_VP: the inputs are read once, the guest runs, the outcome is stored.

    In: eax command, rbx address of the status byte. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: opened
    for a moment after interrupts of the guest's turn. Stack: 56 bytes and those of its callees.
    """
    return f"""
    run_vp: push    rax
            mov     dword ptr [rip + command_page + CommandPage.run.end], RunEnd.NONE
            mov     byte ptr [rip + command_page + CommandPage.request_data + RunVpResponse.intercept], 0
            call    prepare_vp
            test    rsi, rsi
            jne     .refused
            call    take_run
            test    rsi, rsi
            jne     .refused
            call    load_context{call_operation("RUN")}
            mov     dword ptr [rsp], eax
            call    store_context
            mov     eax, dword ptr [rsp]
            call    give_run
            pop     rax
            ret
    .refused:
            mov     rdx, rsp
            call    command_error
            pop     rax
            ret
    """


def take_run() -> str:
    """Copy the inputs of a run out of the command page, each once, and clear what the run will count.

    Out: rsi 0, or a sentence whose argument is the command; eax bytes to add to RIP, kept in advance.
    Clobbers: rcx, rdx, rdi, r8. Interrupts: off. Stack: 8 bytes and those of its callees.
    """
    clears = "".join(
        f"""
            mov     qword ptr [rip + command_page + CommandPage.run.{field}], rax"""
        for field in ("exit_code", "exit_info_1", "exit_info_2")
    )
    return f"""
    take_run:
            lea     rsi, [rip + command_page + CommandPage.cpu_context.gps]
            lea     rdi, [rip + vp_globals + VpGlobals.vp.gps]
            mov     ecx, CpuContextX64.gps.COUNT
            rep movsq
            mov     eax, dword ptr [rip + command_page + CommandPage.run.flags]
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.flags], eax
            mov     eax, dword ptr [rip + command_page + CommandPage.run.exception_intercepts]
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.exception_intercepts], eax
            xor     eax, eax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.guest_entries], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.local_exits], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.guest_tsc], rax{clears}
            mov     byte ptr [rip + vp_globals + VpGlobals.vp.advance], al
            mov     al, byte ptr [rip + command_page + CommandPage.run.advance_rip]
            lea     rsi, [rip + text_advance]
            cmp     eax, {15}
            ja      .done
            mov     byte ptr [rip + command_page + CommandPage.run.advance_rip], 0
            mov     byte ptr [rip + vp_globals + VpGlobals.vp.advance], al
            mov     rdi, qword ptr [rip + command_page + CommandPage.run.time_limit]
            call    set_time_limit
            xor     esi, esi
    .done:  ret
            .section .rodata
    text_advance:
            .asciz  "command %u: advance_rip is more than 15, which no instruction has"
    """


def give_run() -> str:
    """Store the outcome of a run: how it ended, the doorbell's bits, the counts, the general registers.

    In: eax RunEnd. Clobbers: rax, rcx, rdx, rsi, rdi. Interrupts: off. Stack: 8 bytes and those of its callees.
    """
    copies = "".join(
        f"""
            mov     rcx, qword ptr [rip + vp_globals + VpGlobals.vp.{field}]
            mov     qword ptr [rip + command_page + CommandPage.run.{field}], rcx"""
        for field in ("guest_entries", "local_exits", "guest_tsc")
    )
    return f"""
    give_run:
            mov     dword ptr [rip + command_page + CommandPage.run.end], eax
            cmp     eax, RunEnd.INTERCEPT
            sete    byte ptr [rip + command_page + CommandPage.request_data + RunVpResponse.intercept]
            xor     eax, eax
            xchg    rax, qword ptr [rip + privileged_page + PrivilegedPage.doorbell]
            or      qword ptr [rip + command_page + CommandPage.run.notifications], rax{copies}
            lea     rsi, [rip + vp_globals + VpGlobals.vp.gps]
            lea     rdi, [rip + command_page + CommandPage.cpu_context.gps]
            mov     ecx, CpuContextX64.gps.COUNT
            rep movsq
            jmp     clear_time_limit
    """


ROUTINES = (run_vp, take_run, give_run)
