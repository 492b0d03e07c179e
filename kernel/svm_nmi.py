"""The end of a guest's NMI handler: IRET, over which the guest is stepped if the VMM waits for it.

NMIs are masked from the delivery of one to the end of the next IRET. The processor tells of the IRET before it is
executed; a further NMI there would be delivered on the stack that the IRET is about to give back. So when the VMM wants
to be told, the IRET is executed as a single step, whose trap the guest does not see.

Ref: AMD64 APM vol. 2, 15.13 (NMI and IRET intercepts), 13.1.4 (single-step traps), 8.1.3 (masking of NMIs).
"""

from sidecar.kernel.svm_state import SINGLE_STEP


def exit_iret() -> str:
    """The guest is about to execute IRET in its NMI handler.

    In: the VMCB. Out: eax 0. Clobbers: rax, rcx. Interrupts: off. Stack: none.
    """
    return """
    exit_iret:
            test    dword ptr [rip + vp_globals + VpGlobals.vp.deliverability], HvDeliverability.NMI
            jne     .step
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked], 0
            xor     eax, eax
            ret
    .step:  mov     eax, dword ptr [rip + vp_vmcb + Vmcb.rflags]
            mov     ecx, eax
            and     ecx, Rflags.TF
            or      ecx, 1
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.iret_step], ecx
            or      eax, Rflags.TF
            mov     dword ptr [rip + vp_vmcb + Vmcb.rflags], eax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.iret_rip], rax
            xor     eax, eax
            ret
    """


def end_step() -> str:
    """After an exit of a guest that was stepped over IRET: was it executed? Its TF is gone in any case.

    In: the VMCB; VpState.iret_step is not 0. Out: eax 1 if the exit was nothing but the step's trap.
    Clobbers: rcx, rdx. Interrupts: off. Stack: none.
    """
    return f"""
    end_step:
            xor     edx, edx
            xchg    edx, dword ptr [rip + vp_globals + VpGlobals.vp.iret_step]
            and     edx, Rflags.TF                  # the guest's own
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            cmp     rax, qword ptr [rip + vp_globals + VpGlobals.vp.iret_rip]
            je      .not_yet
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked], 0
            xor     eax, eax
            cmp     qword ptr [rip + vp_vmcb + Vmcb.exit_code], SvmExit.EXCEPTION_0 + Vector.DEBUG
            jne     .done
            test    edx, edx
            jne     .done                           # the guest steps itself: the trap is its own
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.dr6]
            btr     ecx, {SINGLE_STEP.bit_length() - 1}
            jae     .done
            mov     dword ptr [rip + vp_vmcb + Vmcb.dr6], ecx
            and     ecx, 0x200f                     # a breakpoint or DR access at the same time is the guest's
            jne     .done
            inc     eax
    .done:  ret
    .not_yet:
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.rflags]
            and     ecx, ~Rflags.TF
            or      ecx, edx
            mov     dword ptr [rip + vp_vmcb + Vmcb.rflags], ecx
            xor     eax, eax
            ret
    """


ROUTINES = (exit_iret, end_step)
