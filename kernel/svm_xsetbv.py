"""XSETBV of the guest: which state components it uses.

Ref: SDM vol. 1, 13.3 (what XCR0 may hold); vol. 2D, XSETBV.
"""

from sidecar.kernel.svm_state import GENERAL_PROTECTION


def exit_xsetbv() -> str:
    """XSETBV: which state components the guest uses. XCR0 is the guest's while a run lasts, so it is set at once.

    In: the VMCB. Out: eax 0. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    Ref: SDM vol. 1, 13.3 (what XCR0 may hold).
    """
    return f"""
    exit_xsetbv:
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.gps]
            mov     edx, dword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 2]
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 1]
            or      ecx, edx
            jne     .refuse                         # XCR0 is the only one, and has 32 bits here
            cmp     byte ptr [rip + vp_vmcb + Vmcb.cpl], 0
            jne     .refuse
            call    xcr0_allowed
            test    ecx, ecx
            je      .refuse
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.xcr0], rax
            xor     edx, edx
            xor     ecx, ecx
            xsetbv
            call    instruction_length
            mov     edi, eax
            call    advance_guest
            xor     eax, eax
            ret
    .refuse:
            mov     edi, {GENERAL_PROTECTION:#x}
            jmp     raise_in_guest
    """


def xcr0_allowed() -> str:
    """May a guest have this XCR0? x87 always; AVX with SSE; both of MPX; all three of AVX-512, with AVX.

    In: eax value. Out: ecx 0 if not. Clobbers: rdx, rcx. Interrupts: off. Stack: none.
    """
    return """
    xcr0_allowed:
            xor     ecx, ecx
            test    al, 1
            je      .done
            mov     edx, dword ptr [rip + vp_globals + VpGlobals.vp.xcr0_mask]
            not     edx
            test    edx, eax
            jne     .done
            mov     edx, eax
            and     edx, 6
            cmp     edx, 4                          # AVX without SSE
            je      .done
            mov     edx, eax
            and     edx, 0x18
            je      .no_mpx
            cmp     edx, 0x18
            jne     .done
    .no_mpx:
            mov     edx, eax
            and     edx, 0xe0
            je      .yes
            cmp     edx, 0xe0
            jne     .done
            test    al, 4
            je      .done
    .yes:   inc     ecx
    .done:  ret
    """


ROUTINES = (exit_xsetbv, xcr0_allowed)
