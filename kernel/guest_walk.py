"""The guest's own page tables, walked as the processor walks them: without paging, 32-bit, PAE, 4 and 5 levels.

The story, and where it begins: mode, root, reserved bits. `guest_tables` goes down the levels, `guest_rights` checks
the access and marks the entries. Runs inside a command or between two entries of the guest; see guest_memory. Other
CPUs may run the same guest: an entry is marked accessed or dirty only if it still is what was read, else the walk
starts again, a bounded number of times. What the guest calls physical goes through the nested page tables, tables
included.

Ref: SDM vol. 3A, 4.3 (32-bit), 4.4 (PAE), 4.5 (4 and 5 levels); AMD64 APM vol. 2, 5.2 (PSE-36, PAE).
"""

HIGH_RESERVED = 0x7FF << 52
"""Bits 52 to 62, reserved under PAE outside of long mode."""
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


ROUTINES = (walk_guest, walk_modes, walk_start, reserved_address_bits)
