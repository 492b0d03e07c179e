"""The park loop and the dispatch of commands: where a sidecar CPU spends its life.

Runs on own tables and stack. The status byte alone says what to do; it is read again after every interrupt. Only here
are interrupts open, between STI and HLT.

Ref: SDM vol. 2B, STI (interrupt shadow), HLT; OpenHCL sidecar, `vp.rs`.
"""

from sidecar.kernel.recorder import record


def park() -> str:
    """Halt until the status says otherwise.

    In: own tables; any stack. Out: execute, remove, halt_forever. Interrupts: opened between STI and HLT.
    """
    return """
    park:   lea     rsp, [rip + stack_end]
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.node_cpu_index]
            lea     rbx, [rip + control_page + ControlPage.cpu_status]
            add     rbx, rcx                        # this CPU's status byte, also for execute and remove
    .look:  movzx   eax, byte ptr [rbx]
            cmp     eax, CpuStatus.IDLE
            jne     .busy
            sti
            hlt
            cli                                     # reached only if a handler returned here
            jmp     .look
    .busy:  cmp     eax, CpuStatus.RUN
            je      execute
            cmp     eax, CpuStatus.STOP
            je      execute
            cmp     eax, CpuStatus.REMOVE
            je      remove
            cmp     eax, CpuStatus.REMOVED
            je      halt_forever                    # taken away without being asked: INIT is the only way back
            cmp     eax, CpuStatus.FAULTED
            je      halt_forever
    unexpected_status:
            ud2                                     # contained: the fault record shows the status
    """


def execute() -> str:
    """Take the command out of the command page and run it.

    In: rbx address of the status byte. Out: finish. Interrupts: off. Stack: 32 bytes and those of the command.
    """
    return f"""
    execute:
            inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.commands]
            mov     r9d, dword ptr [rip + command_page + CommandPage.command]   # copied before it is looked at
            mov     dword ptr [rip + command_page + CommandPage.command], SidecarCommand.NONE
            rdtsc
            mov     dword ptr [rip + command_page + CommandPage.start_tsc], eax
            mov     dword ptr [rip + command_page + CommandPage.start_tsc + 4], edx
            {record("COMMAND", "r9d", stamp=False).strip()}
            mov     byte ptr [rip + command_page + CommandPage.has_error], 0
            mov     r12, qword ptr [rip + command_page + CommandPage.sequence]
            mov     eax, r9d
            mov     dword ptr [rip + vp_globals + VpGlobals.command], eax
            call    forget_gone_vp
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.command]
            cmp     dword ptr [rip + log_requests], 0
            jne     .log
    .dispatch:
            cmp     eax, SidecarCommand.NONE
            je      .done
            lea     rcx, [rip + commands]
            cmp     eax, SidecarCommand.TRANSLATE_GVA
            jbe     .known
            lea     edx, [rax - SidecarCommand.RAISE]
            cmp     edx, SidecarCommand.SET_VP_XSAVE - SidecarCommand.RAISE
            ja      .unknown
            lea     rcx, [rip + extensions]
            call    qword ptr [rcx + rdx*8]
            jmp     .done
    .known: call    qword ptr [rcx + rax*8]
    .done:  mov     qword ptr [rip + command_page + CommandPage.completed_sequence], r12
            mov     dword ptr [rip + vp_globals + VpGlobals.command], SidecarCommand.NONE
            rdtsc
            mov     dword ptr [rip + command_page + CommandPage.end_tsc], eax
            mov     dword ptr [rip + command_page + CommandPage.end_tsc + 4], edx
            jmp     finish
    .unknown:
            push    rax
            mov     rdx, rsp
            lea     rsi, [rip + text_unknown_command]
            call    command_error
            pop     rax
            jmp     .done
    .log:   push    rax
            sub     rsp, 16
            mov     qword ptr [rsp], rax
            mov     qword ptr [rsp + 8], r12
            mov     rdx, rsp
            lea     rsi, [rip + text_request]
            call    log_line
            add     rsp, 16
            pop     rax
            jmp     .dispatch

            .section .data.rel.ro
            .align  8
    commands:                                       # by SidecarCommand
            .quad   0, run_vp, get_vp_registers, set_vp_registers, translate_gva
    extensions:                                     # from RAISE on
            .quad   raise_command, get_vp_xsave, set_vp_xsave
            .section .rodata
    text_unknown_command:
            .asciz  "command %x is not known; expected 0 to 4 or 0x100 to 0x102"
    text_request:
            .asciz  "command %x, sequence %u"
    """


def finish() -> str:
    """Give the CPU back: status to IDLE, then attention, unless the driver looks itself. Also an arrival's last step.

    A driver that stops looking clears `quiet`, then looks once more, with a full barrier between; here the status is
    changed by a locked instruction before `quiet` is read. So one of the two sees what the other did.
    Whatever else the status has become in the meantime, park deals with.
    In: nothing. Out: halt_poll, or park if the status is another. Interrupts: off. Stack: 8 bytes.
    """
    return f"""
    finish: mov     ecx, dword ptr [rip + vp_globals + VpGlobals.node_cpu_index]
            lea     rbx, [rip + control_page + ControlPage.cpu_status]
            add     rbx, rcx
            movzx   r9d, byte ptr [rbx]{record("FINISHED", "r9d")}
            mov     r9d, dword ptr [rip + privileged_page + PrivilegedPage.halt_poll]
            mov     dword ptr [rip + privileged_page + PrivilegedPage.polling], r9d     # is there with IDLE
            mov     ecx, CpuStatus.IDLE
            mov     eax, CpuStatus.RUN
            lock cmpxchg byte ptr [rbx], cl         # releases everything written before
            je      .idle
            mov     eax, CpuStatus.STOP
            lock cmpxchg byte ptr [rbx], cl
            jne     park
    .idle:  cmp     dword ptr [rip + privileged_page + PrivilegedPage.quiet], 0
            jne     halt_poll
            call    raise_attention
            jmp     halt_poll
    """


LOOKS_PER_PAUSE = 32
"""PAUSE has an emulated CPU let others run, which costs more than many looks, and a real one spare its neighbour."""


def halt_poll() -> str:
    """Look for the next command for as long as the driver wishes, before the CPU halts.

    Who makes the status RUN and then finds `polling` sends no request. So `polling` is cleared by a locked instruction,
    and park looks at the status once more after it. Interrupts stay pending meanwhile.
    In: nothing. Out: park. Clobbers: rax, rbx, rcx, rdx, r8, r9. Interrupts: off. Stack: 0 bytes.
    """
    return f"""
    halt_poll:
            mov     r9d, dword ptr [rip + privileged_page + PrivilegedPage.polling]
            test    r9d, r9d
            jz      park
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.node_cpu_index]
            lea     rbx, [rip + control_page + ControlPage.cpu_status]
            add     rbx, rcx
            mov     ecx, {LOOKS_PER_PAUSE}
            rdtsc
            mov     r8d, eax                        # 32 bits are enough: halt_poll has no more
    .look:  cmp     byte ptr [rbx], CpuStatus.IDLE
            jne     park
            rdtsc
            sub     eax, r8d
            cmp     eax, r9d
            jae     .over
            dec     ecx
            jnz     .look
            mov     ecx, {LOOKS_PER_PAUSE}
            pause
            jmp     .look
    .over:  xor     eax, eax
            xchg    dword ptr [rip + privileged_page + PrivilegedPage.polling], eax     # locked
            jmp     park
    """


def command_error() -> str:
    """Put a sentence into the command page.

    In: rsi template, rdx arguments. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 64 bytes.
    """
    return """
    command_error:
            lea     rdi, [rip + command_page + CommandPage.error.text]
            mov     ecx, CommandPage.error.text.SIZE
            call    format_text
            mov     byte ptr [rip + command_page + CommandPage.error.length], al
            mov     byte ptr [rip + command_page + CommandPage.has_error], 1
            inc     qword ptr [rip + diagnostic_page + DiagnosticPage.counters.errors]
            ret
    """


ROUTINES = (park, execute, finish, halt_poll, command_error)
