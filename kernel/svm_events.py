"""Events of the guest: from the TLFS registers into the VMCB before an entry, and back if one was not delivered.

A pending interruption is delivered by the next entry, whatever the guest's state. A pending event that is an exception
too; one that is an external interrupt waits until the guest can take it. What cannot be delivered at once, and the
VMM's wish to be told when something could, is waited for with a virtual interrupt that exits: the interrupt window.

Ref: AMD64 APM vol. 2, 15.20 (EVENTINJ), 15.21.4 (virtual interrupts), 15.7.2 (EXITINTINFO); TLFS, "Virtual Processor
Registers", HvRegisterPendingInterruption, HvRegisterPendingEvent0, HvX64RegisterDeliverabilityNotifications.
"""

from sidecar.layout.svm import VIntr

KEPT_V_INTR = int(VIntr.V_TPR | VIntr.V_INTR_MASKING)


def svm_deliver() -> str:
    """Before an entry: what the guest gets now into EVENTINJ, what has to wait into an interrupt window.

    Out: eax 0, or 1 with a message that an NMI is deliverable. Clobbers: rcx, rdx, rsi, rdi, r8 to r11.
    Interrupts: off. Stack: 24 bytes and those of its callees.
    """
    return f"""
    svm_deliver:
            mov     qword ptr [rip + vp_vmcb + Vmcb.event_inj], 0
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.soft_injected], 0
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.pending_interruption]
            test    al, HvPendingInterruption.PENDING
            je      .event
            call    deliver_interruption
            jmp     .window
    .event: cmp     dword ptr [rip + vp_globals + VpGlobals.vp.step], 0
            jne     .window                         # the frame would show the sidecar's TF
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.pending_event]
            test    al, HvPendingEvent.PENDING
            je      .window
            mov     ecx, eax
            and     ecx, HvPendingEvent.TYPE
            jne     .external
            mov     ecx, eax
            shr     ecx, 16
            and     ecx, 0xff
            mov     rdx, qword ptr [rip + vp_globals + VpGlobals.vp.pending_event + 8]
            cmp     ecx, Vector.PAGE_FAULT
            jne     .no_address
            mov     qword ptr [rip + vp_vmcb + Vmcb.cr2], rdx
    .no_address:
            cmp     ecx, Vector.DEBUG
            jne     .no_debug
            or      dword ptr [rip + vp_vmcb + Vmcb.dr6], edx
    .no_debug:
            or      ecx, VmcbEvent.EXCEPTION | VmcbEvent.VALID
            test    eax, HvPendingEvent.DELIVER_ERROR_CODE
            je      .no_code
            or      ecx, VmcbEvent.ERROR_VALID
    .no_code:
            shr     rax, 32
            shl     rax, 32
            or      rax, rcx
            jmp     .inject
    .external:
            test    dword ptr [rip + vp_vmcb + Vmcb.rflags], Rflags.IF
            je      .window
            test    byte ptr [rip + vp_vmcb + Vmcb.interrupt_shadow], 1
            jne     .window
            movzx   eax, ah                         # vector
            or      eax, VmcbEvent.INTERRUPT | VmcbEvent.VALID
    .inject:
            mov     qword ptr [rip + vp_vmcb + Vmcb.event_inj], rax
            xor     eax, eax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.pending_event], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.pending_event + 8], rax
    .window:
            and     dword ptr [rip + vp_vmcb + Vmcb.intercept_cr], ~INTERCEPT_CR8_WRITE
            mov     rcx, qword ptr [rip + vp_vmcb + Vmcb.v_intr]
            and     ecx, {KEPT_V_INTR:#x}
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.intercept_misc1]
            and     eax, ~(Intercept1.VINTR | Intercept1.IRET | Intercept1.CR0_SELECTIVE)
            cmp     dword ptr [rip + vp_globals + VpGlobals.vp.step], 0
            jne     .step
            or      eax, Intercept1.CR0_SELECTIVE
            mov     dword ptr [rip + vp_vmcb + Vmcb.intercept_misc1], eax
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.deliverability]
            xor     edx, edx
            xchg    edx, dword ptr [rip + vp_globals + VpGlobals.vp.window_held]
            test    edx, edx
            jne     .no_window
            test    byte ptr [rip + vp_globals + VpGlobals.vp.pending_event], HvPendingEvent.PENDING
            jne     .open
            test    eax, HvDeliverability.INTERRUPT
            je      .no_window
            or      dword ptr [rip + vp_vmcb + Vmcb.intercept_cr], INTERCEPT_CR8_WRITE
            mov     edx, eax
            shr     edx, 2
            and     edx, HvDeliverability.INTERRUPT_PRIORITY >> 2
            je      .open
            mov     esi, ecx
            and     esi, VIntr.V_TPR
            cmp     edx, esi
            jbe     .no_window                      # CR8 keeps it away
    .open:  or      dword ptr [rip + vp_vmcb + Vmcb.intercept_cr], INTERCEPT_CR8_WRITE
            or      ecx, VIntr.V_IRQ | VIntr.V_IGN_TPR
            or      dword ptr [rip + vp_vmcb + Vmcb.intercept_misc1], Intercept1.VINTR
    .no_window:
            mov     qword ptr [rip + vp_vmcb + Vmcb.v_intr], rcx
            cmp     dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked], 0
            je      .nmi_open
            or      dword ptr [rip + vp_vmcb + Vmcb.intercept_misc1], Intercept1.IRET
            xor     eax, eax
            ret
    .step:  mov     dword ptr [rip + vp_vmcb + Vmcb.intercept_misc1], eax
            mov     qword ptr [rip + vp_vmcb + Vmcb.v_intr], rcx
            xor     eax, eax
            ret
    .nmi_open:
            and     eax, HvDeliverability.NMI
            je      .done
            and     dword ptr [rip + vp_globals + VpGlobals.vp.deliverability], ~HvDeliverability.NMI
            mov     edi, HvInterruptionType.NMI
            jmp     deliverable_message
    .done:  ret
    """


def deliver_interruption() -> str:
    """The pending interruption into EVENTINJ.

    For a software interrupt or exception the guest gets the address of the next instruction, so RIP is advanced first.
    In: rax HvPendingInterruption. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: 8 bytes.
    """
    return """
    deliver_interruption:
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.pending_interruption], 0
            mov     edx, eax
            shr     edx, 1
            and     edx, 7                          # HvInterruptionType
            mov     ecx, eax
            shr     ecx, 16
            movzx   ecx, cl                         # vector
            cmp     edx, HvInterruptionType.NMI
            jne     .not_nmi
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked], 1
            mov     ecx, Vector.NMI
    .not_nmi:
            cmp     edx, HvInterruptionType.SOFTWARE_INTERRUPT
            jb      .type
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.soft_injected], edx
            push    rcx
            mov     ecx, eax
            shr     ecx, 5
            and     ecx, 15                         # bytes of the instruction
            add     qword ptr [rip + vp_vmcb + Vmcb.rip], rcx
            pop     rcx
            cmp     edx, HvInterruptionType.SOFTWARE_INTERRUPT
            je      .type
            mov     edx, HvInterruptionType.EXCEPTION   # as SVM has INT1, INT3 and INTO
    .type:  shl     edx, 8
            or      ecx, edx
            or      ecx, VmcbEvent.VALID
            test    eax, HvPendingInterruption.DELIVER_ERROR_CODE
            je      .no_code
            or      ecx, VmcbEvent.ERROR_VALID
    .no_code:
            shr     rax, 32
            shl     rax, 32
            or      rax, rcx
            mov     qword ptr [rip + vp_vmcb + Vmcb.event_inj], rax
            ret
    """


def svm_requeue() -> str:
    """After an exit: an event whose delivery was interrupted is pending again.

    What an instruction of the guest raised (INT n, INT3, INTO) is not: RIP is still at it, and it is executed again.
    In: the VMCB. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    svm_requeue:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.exit_int_info]
            bt      eax, 31
            jae     .done
            mov     ecx, eax
            shr     ecx, 8
            and     ecx, 7                          # the types are HvInterruptionType's, as far as there are both
            movzx   edx, al
            cmp     ecx, HvInterruptionType.SOFTWARE_INTERRUPT
            je      .software
            cmp     ecx, HvInterruptionType.EXCEPTION
            jne     .pending
            cmp     edx, Vector.BREAKPOINT
            je      .software
            cmp     edx, Vector.OVERFLOW
            jne     .pending
    .software:
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.vp.soft_injected]
            test    ecx, ecx
            je      .done                           # its own instruction
    .pending:
            shl     ecx, 1
            shl     edx, 16
            lea     ecx, [rcx + rdx + HvPendingInterruption.PENDING]
            test    eax, VmcbEvent.ERROR_VALID
            je      .no_code
            or      ecx, HvPendingInterruption.DELIVER_ERROR_CODE
    .no_code:
            shr     rax, 32
            shl     rax, 32
            or      rax, rcx
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.pending_interruption], rax
    .done:  ret
    """


def exit_vintr() -> str:
    """The interrupt window is open: the pending external interrupt goes in, or the VMM is told.

    In: the VMCB. Out: eax 0 to go on, 1 with a message. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: as deliverable_message.
    """
    return """
    exit_vintr:
            xor     eax, eax
            test    byte ptr [rip + vp_globals + VpGlobals.vp.pending_event], HvPendingEvent.PENDING
            jne     .done                           # svm_deliver finds the guest ready
            mov     eax, ~(HvDeliverability.INTERRUPT | HvDeliverability.INTERRUPT_PRIORITY)
            and     dword ptr [rip + vp_globals + VpGlobals.vp.deliverability], eax
            mov     edi, HvInterruptionType.INTERRUPT
            jmp     deliverable_message
    .done:  ret
    """


ROUTINES = (svm_deliver, deliver_interruption, svm_requeue, exit_vintr)
