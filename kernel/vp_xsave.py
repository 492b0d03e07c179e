"""GET_VP_XSAVE and SET_VP_XSAVE: the XSAVE image of a stopped virtual processor through the register page.

For who saves a virtual processor as a whole: the command page has only the legacy 512 bytes, and each run takes these
from there. The components that a guest may have (GUEST_COMPONENTS) fit into one page in the standard format. What the
client gives is copied first, and then made harmless: XRSTOR faults for a header with other bits.

Ref: SDM vol. 1, 13.4.2 (XSAVE header), 13.8 (XRSTOR), 13.5 (offsets of the components).
"""


def get_vp_xsave() -> str:
    """Both commands, told apart by their number. SET drops components that the guest cannot have.

    In: eax command. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 16 bytes and those of its
    callees.
    """
    return """
    get_vp_xsave:
    set_vp_xsave:
            push    rax
            call    prepare_vp
            test    rsi, rsi
            jne     .refused
            lea     rsi, [rip + vp_xsave]
            lea     rdi, [rip + register_page]
            cmp     dword ptr [rsp], SidecarCommand.GET_VP_XSAVE
            je      .copy
            xchg    rsi, rdi
    .copy:  mov     ecx, PAGE_SIZE // 8
            rep movsq
            pop     rax
            cmp     eax, SidecarCommand.GET_VP_XSAVE
            je      .done
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.xcr0_mask]
            lea     rdi, [rip + vp_xsave + XsaveHeader.xstate_bv]
            and     qword ptr [rdi], rax
            add     rdi, 8
            xor     eax, eax
            mov     ecx, (XsaveHeader.SIZE - XsaveHeader.xcomp_bv) // 8
            rep stosq
    .done:  ret
    .refused:
            mov     rdx, rsp
            call    command_error
            pop     rax
            ret
    """


ROUTINES = (get_vp_xsave,)
