"""Between the VMCB and the rest of a virtual processor's state: what a run begins and ends with, and steps over.

Ref: AMD64 APM vol. 2, 15.5.1 (state loaded by VMRUN), 15.25.3 (nested paging control), 13.1.4 (single-step traps).
"""

from sidecar.kernel.svm import INTERCEPTED_EXCEPTIONS
from sidecar.kernel.vp_context import vp_register
from sidecar.layout.x86 import EXCEPTION_VECTORS

REQUESTABLE_EXCEPTIONS = sum(1 << n for n in range(EXCEPTION_VECTORS) if n not in (2, 9, 15, 18) and n < 20)
"""What a VMM may ask to see. Others do not exist as exceptions of a guest."""

SINGLE_STEP = 1 << 14
"""DR6.BS. Ref: APM vol. 2, 13.1.1.3."""


def svm_begin() -> str:
    """Put the inputs of a run into the VMCB, and try the manual's rules on state that somebody has set.

    In: VpState. Out: eax 0, or 1 with a message that a rule is broken. Clobbers: rcx, rdx, rsi, rdi, r8 to r11.
    Interrupts: off. Stack: 24 bytes and those of its callees.
    """
    return f"""
    svm_begin:
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 4]
            mov     qword ptr [rip + vp_vmcb + Vmcb.cr2], rax
            mov     rax, {vp_register("Dr6")}
            mov     qword ptr [rip + vp_vmcb + Vmcb.dr6], rax
            mov     rax, {vp_register("Dr7")}
            mov     qword ptr [rip + vp_vmcb + Vmcb.dr7], rax
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.exception_intercepts]
            and     eax, {REQUESTABLE_EXCEPTIONS:#x}
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.exception_intercepts], eax
            or      eax, {INTERCEPTED_EXCEPTIONS:#x}
            mov     dword ptr [rip + vp_vmcb + Vmcb.intercept_exceptions], eax
            mov     rax, qword ptr [rip + privileged_page + PrivilegedPage.guest_root_pa]
            mov     qword ptr [rip + vp_vmcb + Vmcb.n_cr3], rax
            mov     rax, qword ptr [rip + permission_maps_pa]
            lea     rcx, [rax + IOPM_PAGES * PAGE_SIZE]
            mov     qword ptr [rip + vp_vmcb + Vmcb.msrpm_pa], rcx
            mov     rcx, qword ptr [rip + privileged_page + PrivilegedPage.iopm_pa]
            test    rcx, rcx
            cmovne  rax, rcx
            mov     qword ptr [rip + vp_vmcb + Vmcb.iopm_pa], rax
            mov     edi, dword ptr [rip + vp_globals + VpGlobals.vp.advance]
            test    edi, edi
            je      .kept
            call    advance_guest
    .kept:  xor     eax, eax
            cmp     dword ptr [rip + vp_globals + VpGlobals.vp.check_needed], eax
            je      .done
            call    check_vmcb
            test    eax, eax
            jne     invalid_message
    .done:  ret
    """


def svm_end() -> str:
    """Take the outcome of a run out of the VMCB. A step that was not made is forgotten: its cause comes again.

    In: the VMCB. Clobbers: rax, rcx, rdx, rdi. Interrupts: off. Stack: 16 bytes.
    """
    copies = "".join(
        f"""
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.{field}]
            mov     qword ptr [rip + command_page + CommandPage.run.{field}], rax"""
        for field in ("rip", "rsp", "rflags", "cr0", "cr3", "cr4")
    )
    exits = "".join(
        f"""
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.{field}]
            mov     qword ptr [rip + command_page + CommandPage.run.{field}], rax"""
        for field in ("exit_code", "exit_info_1", "exit_info_2")
    )
    return f"""
    svm_end:
            cmp     dword ptr [rip + vp_globals + VpGlobals.vp.step], 0
            je      .no_step
            call    end_step
    .no_step:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.cr2]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 4], rax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.dr6]
            mov     {vp_register("Dr6")}, rax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.dr7]
            mov     {vp_register("Dr7")}, rax{copies}
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.efer]
            and     eax, ~Efer.SVME
            mov     qword ptr [rip + command_page + CommandPage.run.efer], rax
            movzx   eax, word ptr [rip + vp_vmcb + Vmcb.cs.attributes]
            mov     ecx, eax
            and     eax, 0xff
            and     ecx, 0xf00
            shl     ecx, 4
            or      eax, ecx
            mov     dword ptr [rip + command_page + CommandPage.run.cs_attributes], eax
            movzx   eax, byte ptr [rip + vp_vmcb + Vmcb.cpl]
            mov     dword ptr [rip + command_page + CommandPage.run.cpl], eax
            cmp     qword ptr [rip + vp_globals + VpGlobals.vp.guest_entries], 0
            je      .done                           # the last exit is of another run{exits}
    .done:  ret
    """


def advance_guest() -> str:
    """Step over the guest's instruction: RIP, RF, the interrupt shadow, and the trap if the guest single-steps.

    In: edi its bytes. Clobbers: rax, rcx, rdi. Interrupts: off. Stack: none.
    Ref: SDM vol. 3B, 18.3.1.1 (RF: cleared by every instruction that is finished).
    """
    return f"""
    advance_guest:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            mov     ecx, edi
            add     rax, rcx
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LMA
            je      .legacy
            test    word ptr [rip + vp_vmcb + Vmcb.cs.attributes], VmcbAttribute.LONG
            jne     .store
    .legacy:
            mov     eax, eax
    .store: mov     qword ptr [rip + vp_vmcb + Vmcb.rip], rax
            and     qword ptr [rip + vp_vmcb + Vmcb.interrupt_shadow], ~1
            and     qword ptr [rip + vp_vmcb + Vmcb.rflags], ~Rflags.RF
            test    dword ptr [rip + vp_vmcb + Vmcb.rflags], Rflags.TF
            je      .done
            or      dword ptr [rip + vp_vmcb + Vmcb.dr6], {SINGLE_STEP:#x}
            mov     edi, Vector.DEBUG
            jmp     raise_in_guest
    .done:  ret
    """


def raise_in_guest() -> str:
    """Let the next entry deliver an exception, as HvRegisterPendingInterruption.

    An interruption that was pending is lost with it, unless it is an interrupt, which goes on pending as an event.
    In: edi vector; with GUEST_ERROR_CODE or'ed in, an error code of 0 is pushed. Out: eax 0.
    Clobbers: rax, rcx, rdi. Interrupts: off. Stack: none.
    """
    return f"""
    raise_in_guest:
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.pending_interruption]
            mov     ecx, eax
            and     ecx, HvPendingInterruption.PENDING | HvPendingInterruption.TYPE
            cmp     ecx, HvPendingInterruption.PENDING | HvInterruptionType.INTERRUPT << 1
            jne     .store
            test    byte ptr [rip + vp_globals + VpGlobals.vp.pending_event], HvPendingEvent.PENDING
            jne     .store
            shr     eax, 8                          # vector: from bits 16 to 23 into bits 8 to 15
            and     eax, 0xff00
            or      eax, HvPendingEvent.PENDING | HvPendingEventType.EXTERNAL_INTERRUPT << 1
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.pending_event], rax
    .store: mov     eax, edi
            and     eax, 0xff
            shl     eax, 16
            or      eax, HvPendingInterruption.PENDING | HvInterruptionType.EXCEPTION << 1
            test    edi, {GUEST_ERROR_CODE:#x}
            je      .plain
            or      eax, HvPendingInterruption.DELIVER_ERROR_CODE
    .plain: mov     qword ptr [rip + vp_globals + VpGlobals.vp.pending_interruption], rax
            xor     eax, eax
            ret
    """


GUEST_ERROR_CODE = 0x100
GENERAL_PROTECTION = 13 | GUEST_ERROR_CODE

ROUTINES = (svm_begin, svm_end, advance_guest, raise_in_guest)
