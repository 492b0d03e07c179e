"""Single steps: an instruction that the guest executes itself, with an exit right after it.

IRET of an NMI handler: NMIs are masked up to its end, and a further one before would be delivered on the stack that the
IRET is about to give back. So when the VMM waits for that moment, the IRET is stepped.

Writes of CR0 that change more than TS and MP: EFER.LME is in the VMCB only while the guest's paging is on, or for the
step that may switch it on. By the manual it could stay; but TCG does not find back to the sidecar's CR0 from a guest
with LME and neither paging nor PAE. A guest cannot tell the difference, since its RDMSR and WRMSR of EFER exit.

While stepping every exception exits, so that no frame of the guest's shows the TF that is not its own.

Ref: AMD64 APM vol. 2, 13.1.4 (single-step traps), 15.8.3 (selective CR0 writes), 15.13 (NMI and IRET intercepts), 8.1.3
(masking of NMIs), 14.6 (long mode is entered when paging is switched on).
"""

from enum import IntEnum

from sidecar.kernel.svm_state import GENERAL_PROTECTION, SINGLE_STEP


class Step(IntEnum):
    """VpState.step, with the guest's own RFLAGS.TF beside it."""

    NONE = 0
    IRET = 1
    CR0 = 2


def exit_iret() -> str:
    """The guest is about to execute IRET in its NMI handler.

    In: the VMCB. Out: eax 0. Clobbers: rax, rcx, rdi. Interrupts: off. Stack: none.
    """
    return """
    exit_iret:
            mov     edi, Step.IRET
            test    dword ptr [rip + vp_globals + VpGlobals.vp.deliverability], HvDeliverability.NMI
            jne     begin_step
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked], 0
            xor     eax, eax
            ret
    """


def exit_cr0() -> str:
    """The guest is about to change CR0.

    In: the VMCB. Out: eax 0. Clobbers: rax, rcx, rdi. Interrupts: off. Stack: none.
    """
    return """
    exit_cr0:
            mov     edi, Step.CR0
    begin_step:                                     # edi: Step
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.rflags]
            mov     ecx, eax
            and     ecx, Rflags.TF
            or      ecx, edi
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.step], ecx
            or      eax, Rflags.TF
            mov     dword ptr [rip + vp_vmcb + Vmcb.rflags], eax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.step_rip], rax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.cr0]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.step_cr0], rax
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.intercept_exceptions]
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.step_exceptions], eax
            mov     dword ptr [rip + vp_vmcb + Vmcb.intercept_exceptions], -1
            xor     eax, eax
            ret
    """


def end_step() -> str:
    """After the exit of a step: was the instruction executed? The sidecar's TF is gone in any case.

    In: the VMCB, LME back in EFER; VpState.step is not 0. Out: eax 1 if the exit needs nothing else, because it was the
    step's trap, or the guest gets #GP for paging with LME and without PAE. Clobbers: rcx, rdx, rdi. Interrupts: off.
    Stack: 8 bytes.
    """
    return f"""
    end_step:
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.step_exceptions]
            mov     dword ptr [rip + vp_vmcb + Vmcb.intercept_exceptions], eax
            xor     edx, edx
            xchg    edx, dword ptr [rip + vp_globals + VpGlobals.vp.step]
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            cmp     rax, qword ptr [rip + vp_globals + VpGlobals.vp.step_rip]
            je      .not_yet
            test    edx, Step.CR0
            je      .iret
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.rflags]
            and     ecx, ~Rflags.TF
            mov     eax, edx
            and     eax, Rflags.TF
            or      ecx, eax
            mov     dword ptr [rip + vp_vmcb + Vmcb.rflags], ecx
            test    dword ptr [rip + vp_vmcb + Vmcb.cr0], Cr0.PG
            je      .trap
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LME
            je      .trap
            test    dword ptr [rip + vp_vmcb + Vmcb.cr4], Cr4.PAE
            jne     .trap
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.step_cr0]
            mov     qword ptr [rip + vp_vmcb + Vmcb.cr0], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.step_rip]
            mov     qword ptr [rip + vp_vmcb + Vmcb.rip], rax
            btr     dword ptr [rip + vp_vmcb + Vmcb.dr6], {SINGLE_STEP.bit_length() - 1}
            mov     edi, {GENERAL_PROTECTION:#x}
            call    raise_in_guest
            inc     eax
            ret
    .iret:  mov     dword ptr [rip + vp_globals + VpGlobals.vp.nmi_masked], 0
    .trap:  xor     eax, eax
            cmp     qword ptr [rip + vp_vmcb + Vmcb.exit_code], SvmExit.EXCEPTION_0 + Vector.DEBUG
            jne     .done
            test    edx, Rflags.TF
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
            and     edx, Rflags.TF
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.rflags]
            and     ecx, ~Rflags.TF
            or      ecx, edx
            mov     dword ptr [rip + vp_vmcb + Vmcb.rflags], ecx
            xor     eax, eax
            ret
    """


def hide_lme() -> str:
    """Before an entry: take EFER.LME out of the VMCB while the guest's paging is off, but for a step that may end that.

    In: the VMCB. Clobbers: rax. Interrupts: off. Stack: none.
    """
    return """
    hide_lme:
            test    dword ptr [rip + vp_vmcb + Vmcb.cr0], Cr0.PG
            jne     .done
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LME
            je      .done
            test    dword ptr [rip + vp_globals + VpGlobals.vp.step], Step.CR0
            je      .hide
            test    dword ptr [rip + vp_vmcb + Vmcb.cr4], Cr4.PAE
            jne     .done
    .hide:  and     dword ptr [rip + vp_vmcb + Vmcb.efer], ~Efer.LME
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.lme_hidden], 1
    .done:  ret
    """


def show_lme() -> str:
    """After an exit: EFER is the guest's again.

    In: the VMCB. Clobbers: rax. Interrupts: off. Stack: none.
    """
    return """
    show_lme:
            xor     eax, eax
            xchg    eax, dword ptr [rip + vp_globals + VpGlobals.vp.lme_hidden]
            test    eax, eax
            je      .done
            or      dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LME
    .done:  ret
    """


ROUTINES = (exit_iret, exit_cr0, end_step, hide_lme, show_lme)
