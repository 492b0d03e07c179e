"""The run loop on AMD: look, deliver events, enter the guest, handle the exit, again.

Runs inside RUN_VP, interrupts off. Whoever wants the run to end stores first (STOP, a doorbell bit, a generation) and
then sends the request vector. The loop looks with GIF=0; an interrupt that comes after the look stays pending, and
VMRUN exits at once with one pending: nothing is lost. Only at `run_window` are interrupts taken.

The sidecar's FS, GS, TR and LDTR are loaded whenever its own code runs, so that a fault finds its interrupt stacks.

Ref: AMD64 APM vol. 2, 15.5 (VMRUN), 15.6 (#VMEXIT), 15.17 (GIF), 15.16 (TLB control), 15.21 (interrupts).
"""

SAVED = ("rcx", "rdx", "rbx", None, "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
"""General registers 1 to 15 in the order of CpuContextX64.gps; RAX and RSP are in the VMCB."""

TSS_BUSY = 1 << 1
"""In the attributes of a task register: 32-bit and 16-bit TSS, busy or available. Ref: APM vol. 2, table 4-6."""


def svm_run() -> str:
    """The operation RUN.

    In: rbx address of the status byte, VpState.gps, VpState.advance. Out: eax RunEnd. Clobbers: rax, rcx, rdx, rsi,
    rdi, r8 to r11. Interrupts: opened at run_window. Stack: 72 bytes and those of its callees.
    """
    return """
    svm_run:
            push    rbp
            mov     ebp, RunEnd.INTERCEPT
            call    svm_begin
            test    eax, eax
            jne     .end
    .window:
            stgi
    run_window:
            sti
            nop
            cli                                     # a handler returns here
    run_window_end:
    .enter: clgi
            mov     ebp, RunEnd.CANCELLED
            cmp     byte ptr [rbx], CpuStatus.RUN
            jne     .end
            mov     ebp, RunEnd.NOTIFIED
            cmp     qword ptr [rip + privileged_page + PrivilegedPage.doorbell], 0
            jne     .end
            cmp     qword ptr [rip + vp_globals + VpGlobals.vp.time_end], 0
            je      .no_limit
            mov     ebp, RunEnd.TIME_LIMIT
            call    arm_timer
            test    eax, eax
            je      .end
    .no_limit:
            mov     rax, qword ptr [rip + privileged_page + PrivilegedPage.guest_generation]
            cmp     rax, qword ptr [rip + privileged_page + PrivilegedPage.seen_generation]
            je      .current
            mov     byte ptr [rip + vp_vmcb + Vmcb.tlb_control], TlbControl.FLUSH_ALL
            push    rax
            call    drop_code
            pop     rax
            mov     qword ptr [rip + privileged_page + PrivilegedPage.seen_generation], rax
    .current:
            mov     ebp, RunEnd.INTERCEPT
            call    svm_deliver
            test    eax, eax
            jne     .end
            lea     rsi, [rip + vp_vmcb + VMCB_SAVE_AREA]
            lea     rdi, [rip + vp_globals + VpGlobals.save_area]
            mov     ecx, VMCB_SAVE_BYTES // 8
            rep movsq                               # TCG overwrites what it refuses to run
            call    hide_lme
            call    svm_enter
            call    show_lme
            call    svm_requeue
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.check_needed], 0
            cmp     dword ptr [rip + vp_globals + VpGlobals.vp.step], 0
            jne     .stepped
    .exit:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.exit_code]
            lea     rcx, [rax - SvmExit.INTR]
            cmp     rcx, SvmExit.INIT - SvmExit.INTR
            jbe     .local                          # INTR, NMI, SMI, INIT: the machine's, taken at run_window
            call    svm_exit
            test    eax, eax
            jne     .end
            inc     qword ptr [rip + vp_globals + VpGlobals.vp.local_exits]
            jmp     .enter
    .stepped:
            call    end_step
            test    eax, eax
            je      .exit
            inc     qword ptr [rip + vp_globals + VpGlobals.vp.local_exits]
            jmp     .enter
    .local: inc     qword ptr [rip + vp_globals + VpGlobals.vp.local_exits]
            jmp     .window
    .end:   stgi                                    # harmless where GIF is 1
            call    svm_end
            mov     eax, ebp
            pop     rbp
            ret
    """


def svm_enter() -> str:
    """Run the guest until it exits.

    In: VpState.gps; GIF=0. Out: VpState.gps, the VMCB. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off;
    the guest is interrupted whatever its IF says. Stack: 72 bytes.

    TR is available, not busy, while the guest runs: that is none of the illegal states of 15.5.1, but with a busy TSS
    TCG aborts the machine when a guest goes from CPL 3 to an inner ring outside of long mode.
    """
    gps = "rip + vp_globals + VpGlobals.vp.gps"
    loads = "".join(
        f"\n            mov     {name}, qword ptr [{gps} + {8 * number}]"
        for number, name in enumerate(SAVED, 1) if name
    )
    stores = "".join(
        f"\n            mov     qword ptr [{gps} + {8 * number}], {name}"
        for number, name in enumerate(SAVED, 1) if name
    )
    return f"""
    svm_enter:
            push    rbx
            push    rbp
            push    r12
            push    r13
            push    r14
            push    r15
            inc     qword ptr [rip + vp_globals + VpGlobals.vp.guest_entries]
            mov     rax, qword ptr [{gps}]
            mov     qword ptr [rip + vp_vmcb + Vmcb.rax], rax
            movzx   eax, word ptr [rip + vp_vmcb + Vmcb.tr.attributes]
            and     eax, {TSS_BUSY}
            xor     word ptr [rip + vp_vmcb + Vmcb.tr.attributes], ax
            push    rax
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            push    rax{loads}
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.vmcb_pa]
            sti                                     # with V_INTR_MASKING this is what lets an interrupt exit the guest
            vmload  rax
            vmrun   rax
            vmsave  rax                             # RAX is the sidecar's again
            cli{stores}
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.host_vmcb_pa]
            vmload  rax
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            pop     rcx
            sub     rax, rcx
            add     qword ptr [rip + vp_globals + VpGlobals.vp.guest_tsc], rax
            pop     rax
            or      word ptr [rip + vp_vmcb + Vmcb.tr.attributes], ax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rax]
            mov     qword ptr [{gps}], rax
            mov     byte ptr [rip + vp_vmcb + Vmcb.tlb_control], TlbControl.KEEP
            pop     r15
            pop     r14
            pop     r13
            pop     r12
            pop     rbp
            pop     rbx
            ret
    """


ROUTINES = (svm_run, svm_enter)
