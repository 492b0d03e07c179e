"""MOV to CR8 while an interrupt waits for the guest: the task priority decides whether the window may open.

Intercepted only then. So the window is opened by the sidecar's own comparison, and the processor's never matters: TCG's
differs from the manual's, and TCG aborts when a guest writes CR8 while a virtual interrupt is requested.

Ref: AMD64 APM vol. 2, 15.8.1 (decode assists of CR writes), 15.21.2; vol. 3, MOV CRn.
"""

from sidecar.kernel.svm_state import GENERAL_PROTECTION


def exit_cr8() -> str:
    """Set V_TPR from the instruction's register. If the instruction cannot be read, the guest executes it unwatched.

    In: the VMCB. Out: eax 0. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    """
    return f"""
    exit_cr8:
            call    fetch_instruction
            call    mov_to_cr
            test    edi, edi
            je      .unread
            lea     rcx, [rip + vp_globals + VpGlobals.vp.gps]
            mov     rdx, qword ptr [rcx + rsi*8]
            cmp     esi, 4
            jne     .value
            mov     rdx, qword ptr [rip + vp_vmcb + Vmcb.rsp]
    .value: test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LMA
            jne     .wide
            mov     edx, edx
    .wide:  cmp     rdx, 15
            ja      .refuse
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.v_intr]
            and     eax, ~VIntr.V_TPR
            or      eax, edx
            mov     dword ptr [rip + vp_vmcb + Vmcb.v_intr], eax
            call    advance_guest
            xor     eax, eax
            ret
    .refuse:
            mov     edi, {GENERAL_PROTECTION:#x}
            jmp     raise_in_guest
    .unread:
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.window_held], 1
            xor     eax, eax
            ret
    """


def mov_to_cr() -> str:
    """Decode MOV CRn, register, in VpState.instruction.

    Out: esi number of the register, edi bytes of the instruction, 0 if it is another one. Clobbers: rax, rcx, rdx, r8.
    Interrupts: off. Stack: 8 bytes.
    """
    return """
    mov_to_cr:
            call    skip_prefixes
            lea     eax, [rdi + 3]
            cmp     eax, dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count]
            ja      .none
            cmp     word ptr [rcx + rdi], 0x220f
            jne     .none
            movzx   esi, byte ptr [rcx + rdi + 2]
            and     esi, 7
            and     r8d, 1                          # REX.B
            shl     r8d, 3
            or      esi, r8d
            add     edi, 3
            ret
    .none:  xor     edi, edi
            ret
    """


ROUTINES = (exit_cr8, mov_to_cr)
