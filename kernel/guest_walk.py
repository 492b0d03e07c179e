"""The guest's own page tables, walked as the processor walks them: without paging, 32-bit, PAE, 4 and 5 levels.

Runs inside a command or between two entries of the guest; see guest_memory. Other CPUs may run the same guest: an entry
is marked accessed or dirty only if it still is what was read, else the walk starts again, a bounded number of times.
What the guest calls physical goes through the nested page tables, tables included.

Ref: SDM vol. 3A, 4.3 (32-bit), 4.4 (PAE), 4.5 (4 and 5 levels), 4.6 (rights), 4.7 (error code), 4.8 (accessed and
dirty), 12.12 (PAT); AMD64 APM vol. 2, 5.2 (PSE-36, PAE), 5.6 (protection), 15.25.3 (PDPTEs under nested paging).
"""

HIGH_RESERVED = 0x7FF << 52
"""Bits 52 to 62, reserved under PAE outside of long mode."""
PDPTE_RESERVED = 0x1E6
"""Low bits of a PAE page-directory-pointer entry that must be 0. Ref: SDM vol. 3A, table 4-8."""
RIGHTS = "(Pte.WRITE | Pte.USER)"


def walk_guest() -> str:
    """Translate a linear address of the stopped guest, check it, mark the entries, map the page in window 0.

    In: rbp GuestWalk: linear, flags. Out: eax HvTranslateResult, or GUEST_TABLES_CHANGE; GuestWalk filled.
    Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 88 bytes.
    """
    return """
    walk_guest:
            push    rbx
            push    r12
            push    r13
            push    r14
            push    r15
            mov     dword ptr [rbp + GuestWalk.tries], WALK_TRIES
            call    walk_modes
    .again: xor     eax, eax
            mov     qword ptr [rbp + GuestWalk.event], rax
            mov     qword ptr [rbp + GuestWalk.event + 8], rax
            mov     dword ptr [rbp + GuestWalk.count], eax
            mov     byte ptr [rbp + GuestWalk.cache_type], HvCacheType.WRITE_BACK
            mov     rbx, qword ptr [rbp + GuestWalk.linear]
            mov     eax, ebx                        # without paging 32 bits of it
            mov     qword ptr [rbp + GuestWalk.gpa], rax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.cr0]
            test    eax, Cr0.PG
            je      .page
            call    walk_start
            test    eax, eax
            jne     .done
            call    walk_tables
            test    eax, eax
            jne     .done
            call    walk_rights
            test    eax, eax
            jne     .done
            call    walk_mark
            test    eax, eax
            je      .page
            cmp     eax, GUEST_TABLES_CHANGE
            jne     .done
            dec     dword ptr [rbp + GuestWalk.tries]
            jne     .again
            jmp     .done
    .page:  mov     dword ptr [rbp + GuestWalk.level], 0
            mov     eax, dword ptr [rbp + GuestWalk.flags]
            xor     edx, edx
            mov     ecx, NestedFault.WRITE
            test    eax, HvTranslateFlags.VALIDATE_WRITE
            cmovne  edx, ecx
            lea     ecx, [rdx + NestedFault.EXECUTE]
            test    eax, HvTranslateFlags.VALIDATE_EXECUTE
            cmovne  edx, ecx
            mov     rdi, qword ptr [rbp + GuestWalk.gpa]
            xor     esi, esi
            call    guest_page
            mov     qword ptr [rbp + GuestWalk.va], rax
            test    rax, rax
            mov     eax, HvTranslateResult.SUCCESS
            cmove   eax, ecx
    .done:  pop     r15
            pop     r14
            pop     r13
            pop     r12
            pop     rbx
            ret
    """


def walk_modes() -> str:
    """As whom the access is checked: by the flags, else by the current privilege level.

    In: rbp GuestWalk. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    walk_modes:
            mov     edx, dword ptr [rbp + GuestWalk.flags]
            mov     eax, edx
            shr     eax, 6                          # SUPERVISOR_ACCESS to bit 0, USER_ACCESS to bit 1
            and     eax, 3
            jne     .given
            cmp     byte ptr [rip + vp_vmcb + Vmcb.cpl], 3
            sete    al
            inc     eax
    .given: mov     ecx, 1
            test    edx, HvTranslateFlags.PRIVILEGE_EXEMPT
            cmovne  eax, ecx
            mov     dword ptr [rbp + GuestWalk.modes], eax
            ret
    """


def walk_start() -> str:
    """Root, number of levels, and the bits that are reserved in every entry.

    In: rbp GuestWalk, rbx linear address. Out: eax 0, or HvTranslateResult if the address is not canonical; r12 root,
    r13 rights so far, r14d shift of the first index, r15d its level, rbx the address as this mode has it.
    Clobbers: rcx, rdx. Interrupts: off. Stack: 32 bytes.
    """
    return f"""
    walk_start:
            call    reserved_address_bits           # to rdx
            mov     r13d, {RIGHTS}
            mov     r12, qword ptr [rip + vp_vmcb + Vmcb.cr3]
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.cr4]
            mov     dword ptr [rbp + GuestWalk.wide], 0
            test    eax, Cr4.PAE
            jne     .wide
            shr     rdx, 32 - 13                    # where a page of 4 MiB has address bits 32 to 39
            and     edx, 0xff << 13
            or      edx, 1 << 21
            mov     qword ptr [rbp + GuestWalk.forbidden], rdx
            and     r12d, ~(PAGE_SIZE - 1)
            mov     ebx, ebx
            mov     r14d, 22
            mov     r15d, 2
    .none:  xor     eax, eax
            ret
    .wide:  inc     dword ptr [rbp + GuestWalk.wide]
            mov     rcx, qword ptr [rip + vp_vmcb + Vmcb.efer]
            test    ecx, Efer.NXE
            jne     .may_have_nx
            bts     rdx, 63
    .may_have_nx:
            mov     qword ptr [rbp + GuestWalk.forbidden], rdx
            test    ecx, Efer.LMA
            jne     .long
            mov     rcx, {HIGH_RESERVED:#x}
            or      qword ptr [rbp + GuestWalk.forbidden], rcx
            and     r12d, ~31                       # four entries
            mov     ebx, ebx
            mov     r14d, 30
            mov     r15d, 3
            jmp     .none
    .long:  mov     rcx, PTE_ADDRESS_MASK
            and     r12, rcx
            mov     r14d, 39
            mov     r15d, 4
            test    eax, Cr4.LA57
            je      .four
            mov     r14d, 48
            inc     r15d
    .four:  mov     ecx, 55
            sub     ecx, r14d                       # bits above the linear address
            mov     rax, rbx
            shl     rax, cl
            sar     rax, cl
            cmp     rax, rbx
            je      .none
            mov     dword ptr [rbp + GuestWalk.level], r15d
            mov     eax, HvPendingEvent.PENDING | HvPendingEvent.DELIVER_ERROR_CODE | Vector.GENERAL_PROTECTION << 16
            mov     qword ptr [rbp + GuestWalk.event], rax
            mov     qword ptr [rbp + GuestWalk.gpa], 0
            mov     eax, HvTranslateResult.PAGE_NOT_PRESENT
            ret
    """


def reserved_address_bits() -> str:
    """The bits of a physical address that this processor does not have.

    Out: rdx bits MAXPHYADDR to 51. Clobbers: rax, rcx. Interrupts: off. Stack: 8 bytes.
    """
    return """
    reserved_address_bits:
            mov     rdx, qword ptr [rip + reserved_address]
            test    rdx, rdx
            jne     .known
            push    rbx
            mov     eax, Cpuid.ADDRESS_SIZES
            cpuid
            pop     rbx
            mov     ecx, eax
            mov     rdx, -1
            shl     rdx, cl                         # by bits 0 to 5 of MAXPHYADDR, which is at most 52
            mov     rcx, (1 << 53) - 1              # bit 52 tells that it is known
            and     rdx, rcx
            mov     qword ptr [rip + reserved_address], rdx
    .known: btr     rdx, 52
            ret
            .section .bss
            .align  8
    reserved_address:                               # every CPU stores the same
            .zero   8
    """


def walk_tables() -> str:
    """From the root to the page.

    In: as walk_start leaves them. Out: eax HvTranslateResult; GuestWalk: gpa, level, entries, count, cache_type; r13
    rights that all levels give. Clobbers: rcx, rdx, rsi, rdi, r8 to r12, r14, r15. Interrupts: off. Stack: 16 bytes.
    """
    return f"""
    walk_tables:
            mov     dword ptr [rbp + GuestWalk.level], r15d
            mov     ecx, r14d
            mov     rax, rbx
            shr     rax, cl
            mov     ecx, dword ptr [rbp + GuestWalk.wide]
            test    ecx, ecx
            jne     .wide
            and     eax, 0x3ff
            lea     rdi, [r12 + rax*4]
            jmp     .read
    .wide:  and     eax, TABLE_ENTRIES - 1
            lea     rdi, [r12 + rax*8]
    .read:  mov     qword ptr [rbp + GuestWalk.gpa], rdi
            xor     esi, esi
            xor     edx, edx
            call    guest_page
            test    rax, rax
            je      .no_table
            mov     rdx, rax
            mov     eax, dword ptr [rdx]
            cmp     dword ptr [rbp + GuestWalk.wide], 0
            je      .note
            mov     rax, qword ptr [rdx]
    .note:  mov     ecx, dword ptr [rbp + GuestWalk.count]
            inc     dword ptr [rbp + GuestWalk.count]
            shl     ecx, 4                          # GuestWalkEntry.SIZE
            mov     rdx, qword ptr [rbp + GuestWalk.gpa]
            mov     qword ptr [rbp + rcx + GuestWalk.entries + GuestWalkEntry.gpa], rdx
            mov     qword ptr [rbp + rcx + GuestWalk.entries + GuestWalkEntry.value], rax
            test    al, Pte.PRESENT
            je      .not_present
            call    entry_reserved
            jb      .reserved
            cmp     r15d, ecx
            je      .down                           # a PDPTE of PAE gives and takes no rights
            mov     rcx, rax
            or      rcx, r13
            mov     rdx, Pte.NX
            and     rcx, rdx
            and     r13d, eax
            and     r13d, {RIGHTS}
            or      r13, rcx
            cmp     r14d, 12
            je      walk_leaf
            test    al, Pte.LARGE
            je      .down
            cmp     dword ptr [rbp + GuestWalk.wide], 0
            jne     walk_leaf
            test    dword ptr [rip + vp_vmcb + Vmcb.cr4], Cr4.PSE
            jne     walk_leaf
    .down:  mov     r12, PTE_ADDRESS_MASK
            and     r12, rax
            mov     ecx, 10
            sub     ecx, dword ptr [rbp + GuestWalk.wide]
            sub     r14d, ecx
            dec     r15d
            jmp     walk_tables
    .no_table:
            mov     eax, ecx
            ret
    .not_present:
            xor     ecx, ecx
            mov     eax, HvTranslateResult.PAGE_NOT_PRESENT
            jmp     walk_fault
    .reserved:
            mov     ecx, NestedFault.PRESENT | NestedFault.RESERVED
            mov     eax, HvTranslateResult.INVALID_PAGE_TABLE_FLAGS
            jmp     walk_fault
    """


def entry_reserved() -> str:
    """Has an entry bits that must be 0?

    In: rax entry, r14d shift of its level, rbp GuestWalk. Out: carry set if so; ecx 3 if the entry is a PDPTE of PAE,
    else 0. Clobbers: rdx, rdi. Interrupts: off. Stack: none.
    """
    return f"""
    entry_reserved:
            mov     rdx, qword ptr [rbp + GuestWalk.forbidden]
            cmp     dword ptr [rbp + GuestWalk.wide], 0
            je      .narrow
            cmp     r14d, 30
            ja      .top
            jne     .low
            test    dword ptr [rip + vp_vmcb + Vmcb.efer], Efer.LMA
            jne     .low
            or      rdx, {PDPTE_RESERVED:#x}
            bts     rdx, 63
            mov     ecx, 3
            jmp     .test
    .top:   or      rdx, Pte.LARGE                  # no page is that large
            jmp     .plain
    .low:   cmp     r14d, 12
            je      .plain
            test    al, Pte.LARGE
            je      .plain
            mov     ecx, r14d
            mov     edi, 1
            shl     edi, cl
            sub     edi, 2 * PAGE_SIZE              # from bit 13 up to the page's size; bit 12 is PAT
            or      rdx, rdi
    .plain: xor     ecx, ecx
    .test:  test    rdx, rax
            je      .done                           # TEST leaves carry clear
            stc
    .done:  ret
    .narrow:
            cmp     r14d, 12
            je      .free
            test    al, Pte.LARGE
            je      .free
            test    dword ptr [rip + vp_vmcb + Vmcb.cr4], Cr4.PSE
            jne     .plain
    .free:  xor     edx, edx
            jmp     .plain
    """


def walk_leaf() -> str:
    """Guest-physical address and cache type.

    In: rax entry of the page, r14d its shift, rbx linear address, rbp GuestWalk. Out: eax 0; GuestWalk: gpa,
    cache_type. Clobbers: rcx, rdx, rdi. Interrupts: off. Stack: none.
    """
    return """
    walk_leaf:
            mov     ecx, r14d
            mov     edi, 1
            shl     rdi, cl
            dec     rdi                             # bits within the page
            mov     rdx, PTE_ADDRESS_MASK
            and     rdx, rax
            mov     rcx, rdi
            not     rcx
            and     rdx, rcx
            and     rdi, rbx
            or      rdx, rdi
            mov     ecx, 12
            mov     edi, 7
            cmp     r14d, 12
            cmove   ecx, edi                        # the PAT bit
            cmp     r14d, 22
            jne     .address
            mov     edi, eax                        # 4 MiB: bits 13 to 20 are bits 32 to 39 of the address
            shr     edi, 13
            and     edi, 0xff
            shl     rdi, 32
            or      rdx, rdi
    .address:
            mov     qword ptr [rbp + GuestWalk.gpa], rdx
            bt      rax, rcx
            sbb     ecx, ecx
            and     ecx, 4
            shr     eax, 3                          # Pte.PWT, Pte.PCD
            and     eax, 3
            or      ecx, eax
            shl     ecx, 3
            mov     rdx, qword ptr [rip + vp_vmcb + Vmcb.g_pat]
            shr     rdx, cl
            and     edx, 7
            xor     eax, eax
            cmp     edx, 7                          # UC-
            cmove   edx, eax
            mov     byte ptr [rbp + GuestWalk.cache_type], dl
            ret
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


ROUTINES = (
    walk_guest, walk_modes, walk_start, reserved_address_bits, walk_tables, entry_reserved, walk_leaf, walk_rights,
    walk_fault, walk_mark,
)
