"""From the root of a guest's page tables down to the page; a part of `walk_guest`.

Every entry is noted in GuestWalk with the value that was read, so that marking can tell whether it has changed since.

Ref: SDM vol. 3A, 4.3 to 4.5, 12.12 (PAT); AMD64 APM vol. 2, 5.2, 15.25.3 (PDPTEs under nested paging).
"""

from sidecar.kernel.guest_walk import RIGHTS

PDPTE_RESERVED = 0x1E6
"""Low bits of a PAE page-directory-pointer entry that must be 0. Ref: SDM vol. 3A, table 4-8."""


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


ROUTINES = (walk_tables, entry_reserved, walk_leaf)
