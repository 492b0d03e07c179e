"""Guest-physical memory, a page at a time, through the guest windows of this CPU.

Runs inside a command or between two entries of the guest, on own tables with the virtual processor's table mapped,
interrupts off, beside other CPUs that run the same guest and a driver that may change the nested page tables. The
driver waits for the end of the command or for the next entry before it releases a page, so a window must be unmapped
before either: whoever calls `guest_page` calls `drop_windows`.

Ref: AMD64 APM vol. 2, 15.25 (nested paging), 5.3 (long-mode page translation).
"""


def guest_page() -> str:
    """Walk the nested page tables and map the page at a guest-physical address in a window, writable only to write.

    The same window shows the nested tables on the way. Accesses are the user's, as the hardware's nested ones.
    In: rdi guest-physical address, esi window, edx NestedFault.WRITE, NestedFault.EXECUTE, both or 0. Out: rax its
    address in the window; if that is 0, ecx HvTranslateResult says why. Clobbers: rcx, rsi, rdi, r8 to r11.
    Interrupts: off. Stack: 8 bytes.
    """
    return """
    guest_page:
            lea     r10, [rip + vp_table + 8 * GUEST_WINDOW_SLOT]
            lea     r10, [r10 + rsi*8]              # the window's entry
            shl     esi, 12
            lea     r11, [rip + guest_windows]
            add     r11, rsi                        # and its address
            mov     rax, rdi
            shr     rax, 48
            jne     .unmapped
            xor     esi, esi                        # WRITE, NX: what a level has taken away
            mov     r8, qword ptr [rip + privileged_page + PrivilegedPage.guest_root_pa]
            mov     ecx, 39                         # shift of this level's index
    .level: mov     eax, Pte.PRESENT
            call    point_window
            mov     rax, rdi
            shr     rax, cl
            and     eax, TABLE_ENTRIES - 1
            mov     r8, qword ptr [r11 + rax*8]
            mov     eax, r8d
            not     eax
            test    eax, Pte.PRESENT | Pte.USER
            jne     .unmapped
            and     eax, Pte.WRITE
            or      rsi, rax
            mov     rax, Pte.NX
            and     rax, r8
            or      rsi, rax
            cmp     ecx, 12
            je      .page
            cmp     ecx, 39
            je      .next                           # no page is that large
            test    r8d, Pte.LARGE
            jne     .page
    .next:  sub     ecx, 9
            jmp     .level
    .page:  mov     eax, 1
            shl     rax, cl
            dec     rax                             # bits within the page
            mov     r9, PTE_ADDRESS_MASK
            and     r8, r9
            mov     r9, rax
            not     r9
            and     r8, r9
            and     rax, rdi
            or      r8, rax
            mov     ecx, HvTranslateResult.GPA_NO_READ_ACCESS
            test    edx, NestedFault.EXECUTE
            je      .data
            bt      rsi, 63
            jb      .failed
    .data:  mov     ecx, HvTranslateResult.GPA_NO_WRITE_ACCESS
            and     esi, edx                        # NestedFault.WRITE is Pte.WRITE's bit
            test    esi, Pte.WRITE
            jne     .failed
            mov     eax, edx
            and     eax, Pte.WRITE
            or      eax, Pte.PRESENT
            call    point_window
            and     edi, PAGE_SIZE - 1
            lea     rax, [r11 + rdi]
            ret
    .unmapped:
            mov     ecx, HvTranslateResult.GPA_UNMAPPED
    .failed:
            xor     eax, eax
            ret
    """


def point_window() -> str:
    """Show another page in a window.

    In: r8 physical address, its low and high bits of no meaning, eax Pte.PRESENT with or without Pte.WRITE, r10 the
    window's entry, r11 its address. Clobbers: rax, r8, r9. Interrupts: off. Stack: none.
    """
    return """
    point_window:
            mov     r9, PTE_ADDRESS_MASK
            and     r9, r8
            or      rax, r9
            bts     rax, 63                         # Pte.NX
            mov     qword ptr [r10], rax
            invlpg  [r11]
            ret
    """


def drop_windows() -> str:
    """Unmap every window that shows something.

    In: a virtual processor that is set up. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    drop_windows:
            lea     rdx, [rip + vp_table + 8 * GUEST_WINDOW_SLOT]
            lea     rax, [rip + guest_windows]
            mov     ecx, GUEST_WINDOWS
    .one:   cmp     qword ptr [rdx], 0
            je      .next
            mov     qword ptr [rdx], 0
            invlpg  [rax]
    .next:  add     rdx, 8
            add     rax, PAGE_SIZE
            dec     ecx
            jne     .one
            ret
    """


ROUTINES = (guest_page, point_window, drop_windows)
