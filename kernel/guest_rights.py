"""What a guest's page tables allow, the fault that an access would raise, and the marks it leaves; of `walk_guest`.

Ref: SDM vol. 3A, 4.6 (rights), 4.7 (error code), 4.8 (accessed and dirty); AMD64 APM vol. 2, 5.6 (protection).
"""


def walk_rights() -> str:
    """Does the guest's own protection allow the accesses that the flags name?

    In: r13 rights of all levels, rbp GuestWalk. Out: eax HvTranslateResult. Clobbers: rcx, rdx, rsi. Interrupts: off.
    Stack: none.
    """
    validated = " | ".join(f"HvTranslateFlags.VALIDATE_{kind}" for kind in ("READ", "WRITE", "EXECUTE"))
    return f"""
    walk_rights:
            mov     esi, dword ptr [rbp + GuestWalk.flags]
            mov     edx, dword ptr [rbp + GuestWalk.modes]
            mov     rcx, qword ptr [rip + vp_vmcb + Vmcb.cr4]
            test    esi, {validated}
            je      .allowed
            test    esi, HvTranslateFlags.VALIDATE_WRITE
            je      .not_write
            test    r13d, Pte.WRITE
            jne     .not_write
            test    edx, 2
            jne     .refused
            test    dword ptr [rip + vp_vmcb + Vmcb.cr0], Cr0.WP
            jne     .refused
    .not_write:
            test    esi, HvTranslateFlags.VALIDATE_EXECUTE
            je      .not_execute
            bt      r13, 63
            jb      .refused
    .not_execute:
            test    esi, HvTranslateFlags.PRIVILEGE_EXEMPT
            jne     .allowed
            test    r13d, Pte.USER
            jne     .user_page
            test    edx, 2
            jne     .refused
            jmp     .allowed
    .user_page:
            test    edx, 1
            je      .allowed
            test    esi, HvTranslateFlags.VALIDATE_EXECUTE
            je      .may_execute
            test    ecx, Cr4.SMEP
            jne     .refused
    .may_execute:
            test    ecx, Cr4.SMAP
            je      .allowed
            test    esi, HvTranslateFlags.VALIDATE_READ | HvTranslateFlags.VALIDATE_WRITE
            je      .allowed
            test    esi, HvTranslateFlags.OVERRIDE_SMAP
            jne     .allowed
            test    esi, HvTranslateFlags.ENFORCE_SMAP
            jne     .refused
            test    dword ptr [rip + vp_vmcb + Vmcb.rflags], Rflags.AC
            je      .refused
    .allowed:
            xor     eax, eax
            ret
    .refused:
            mov     dword ptr [rbp + GuestWalk.level], 0
            mov     ecx, NestedFault.PRESENT
            mov     eax, HvTranslateResult.PRIVILEGE_VIOLATION
            jmp     walk_fault
    """


def walk_fault() -> str:
    """The page fault that an access would have raised.

    In: eax HvTranslateResult, kept; ecx NestedFault.PRESENT and RESERVED as they apply; rbx linear address, rbp
    GuestWalk. Out: GuestWalk.event. Clobbers: rcx, rdx, rsi. Interrupts: off. Stack: none.
    """
    return """
    walk_fault:
            mov     esi, dword ptr [rbp + GuestWalk.flags]
            mov     edx, esi                        # HvTranslateFlags.VALIDATE_WRITE is NestedFault.WRITE's bit
            and     edx, NestedFault.WRITE
            or      ecx, edx
            mov     edx, dword ptr [rbp + GuestWalk.modes]
            and     edx, 2
            lea     ecx, [rcx + rdx*2]              # NestedFault.USER
            and     esi, 7
            cmp     esi, HvTranslateFlags.VALIDATE_EXECUTE
            jne     .store
            test    dword ptr [rip + vp_vmcb + Vmcb.cr4], Cr4.SMEP
            jne     .execute
            cmp     dword ptr [rbp + GuestWalk.wide], 0
            je      .store
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.NXE
            je      .store
    .execute:
            or      ecx, NestedFault.EXECUTE
    .store: mov     dword ptr [rbp + GuestWalk.event + 4], ecx
            mov     ecx, HvPendingEvent.PENDING | HvPendingEvent.DELIVER_ERROR_CODE | Vector.PAGE_FAULT << 16
            mov     dword ptr [rbp + GuestWalk.event], ecx
            mov     qword ptr [rbp + GuestWalk.event + 8], rbx
            ret
    """


def walk_mark() -> str:
    """Set the accessed and dirty bits, if the flags say so, from the root on.

    In: rbp GuestWalk with the entries that were used. Out: eax HvTranslateResult or GUEST_TABLES_CHANGE.
    Clobbers: rcx, rdx, rsi, rdi, r8 to r15. Interrupts: off. Stack: 16 bytes.
    """
    return """
    walk_mark:
            xor     eax, eax
            test    dword ptr [rbp + GuestWalk.flags], HvTranslateFlags.SET_PAGE_TABLE_BITS
            je      .done
            lea     r15, [rbp + GuestWalk.entries]
            mov     r12d, dword ptr [rbp + GuestWalk.count]     # entries that are left
            cmp     dword ptr [rbp + GuestWalk.wide], 0
            je      .one
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LMA
            je      .next                           # a PDPTE of PAE is not marked
    .one:   mov     r14, qword ptr [r15 + GuestWalkEntry.value]
            mov     r13d, Pte.ACCESSED
            cmp     r12d, 1
            jne     .mark
            test    dword ptr [rbp + GuestWalk.flags], HvTranslateFlags.VALIDATE_WRITE
            je      .mark
            mov     r13d, Pte.ACCESSED | Pte.DIRTY
    .mark:  or      r13, r14
            cmp     r13, r14
            je      .next
            mov     rdi, qword ptr [r15 + GuestWalkEntry.gpa]
            xor     esi, esi
            mov     edx, NestedFault.WRITE
            call    guest_page
            test    rax, rax
            je      .no_table
            mov     rcx, rax
            mov     rax, r14
            cmp     dword ptr [rbp + GuestWalk.wide], 0
            jne     .wide
            lock cmpxchg dword ptr [rcx], r13d
            jne     .changed
            jmp     .next
    .wide:  lock cmpxchg qword ptr [rcx], r13
            jne     .changed
    .next:  add     r15, GuestWalkEntry.SIZE
            dec     r12d
            jne     .one
            xor     eax, eax
    .done:  ret
    .changed:
            mov     eax, GUEST_TABLES_CHANGE
            ret
    .no_table:
            mov     rax, qword ptr [r15 + GuestWalkEntry.gpa]
            mov     qword ptr [rbp + GuestWalk.gpa], rax
            dec     r12d
            add     dword ptr [rbp + GuestWalk.level], r12d
            mov     eax, ecx
            ret
    """


ROUTINES = (walk_rights, walk_fault, walk_mark)
