"""The page of guest code that was read last: it stays mapped, read-only, as long as the nested tables do not change.

Walking the guest's page tables costs as much as an exit, and most exits come from few pages.

Ref: AMD64 APM vol. 2, 4.5.3 (RIP-relative linear addresses), 15.25.
"""

MOST_BYTES = 15


def read_code() -> str:
    """Copy the bytes at the guest's CS:RIP from the page of code that was read last, if they are in that page.

    The page may have become another one by a change of the guest's own tables: who needs to be sure looks for the
    instruction that has exited. A change of the nested tables is noticed.
    Out: eax 1 with VpState.instruction, 0 if the page is another one. Clobbers: rcx, rdx, rsi. Interrupts: off.
    Stack: 8 bytes.
    """
    return f"""
    read_code:
            call    code_place
            cmp     rax, qword ptr [rip + vp_globals + VpGlobals.vp.code_page]
            jne     .other
            cmp     rcx, qword ptr [rip + vp_globals + VpGlobals.vp.code_mode]
            jne     .other
            cmp     edx, PAGE_SIZE - 16
            ja      .other
            mov     rax, qword ptr [rip + privileged_page + PrivilegedPage.guest_generation]
            cmp     rax, qword ptr [rip + privileged_page + PrivilegedPage.seen_generation]
            jne     .other
            lea     rcx, [rip + code_window]
            mov     rax, qword ptr [rcx + rdx]
            mov     rsi, qword ptr [rcx + rdx + 8]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.instruction], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.instruction + 8], rsi
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count], {MOST_BYTES}
            mov     eax, 1
            ret
    .other: xor     eax, eax
            ret
    """


def code_place() -> str:
    """Where the guest executes.

    In: the VMCB. Out: rax linear page with bit 0 set, edx offset in it, rcx CR3 with CR0.PG in bit 63.
    Clobbers: rax, rcx, rdx, rsi. Interrupts: off. Stack: none.
    """
    return """
    code_place:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LMA
            je      .segment
            test    word ptr [rip + vp_vmcb + Vmcb.cs.attributes], VmcbAttribute.LONG
            jne     .linear
    .segment:
            add     eax, dword ptr [rip + vp_vmcb + Vmcb.cs.base]
    .linear:
            mov     edx, eax
            and     edx, PAGE_SIZE - 1
            sub     rax, rdx
            inc     rax
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.cr0]
            and     ecx, Cr0.PG
            shl     rcx, 32
            or      rcx, qword ptr [rip + vp_vmcb + Vmcb.cr3]
            ret
    """


def keep_code() -> str:
    """Show the page of guest code that has just been found in code_window too, where it stays.

    In: rsi its address in a guest window. Clobbers: rax, rcx, rdx, rsi. Interrupts: off. Stack: 8 bytes.
    """
    return """
    keep_code:
            lea     rax, [rip + guest_windows]
            sub     rsi, rax
            shr     rsi, 12
            lea     rax, [rip + vp_table]
            mov     rcx, qword ptr [rax + rsi*8 + 8 * GUEST_WINDOW_SLOT]
            btr     rcx, 1                          # Pte.WRITE
            mov     qword ptr [rax + 8 * CODE_WINDOW_SLOT], rcx
            invlpg  [rip + code_window]
            call    code_place
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.code_page], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.code_mode], rcx
            ret
    """


def drop_code() -> str:
    """The nested tables have changed: code_window shows nothing any more.

    In: a virtual processor that is set up. Clobbers: rax. Interrupts: off. Stack: none.
    """
    return """
    drop_code:
            xor     eax, eax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.code_page], rax
            mov     qword ptr [rip + vp_table + 8 * CODE_WINDOW_SLOT], rax
            invlpg  [rip + code_window]
            ret
    """


ROUTINES = (read_code, code_place, keep_code, drop_code)
