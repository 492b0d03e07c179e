"""The virtual processor of a CPU: set up and forgotten. The half that does not know which hardware runs it.

Runs on the sidecar CPU, inside a command, on own tables and stack, interrupts off. Who gives the CPU a virtual
processor is the driver, in the privileged page; see docs/virtual_processors.md. The hardware is reached through a table
of operations, `VpOperation`; a back end is a file with such a table, listed in `vp_back_ends`.

Ref: TLFS, "Virtual Processors"; OpenHCL sidecar, `vp.rs`.
"""

from enum import IntEnum

from sidecar.kernel.arrive import find_self, private_offset
from sidecar.layout.address_map import VP_MAP, vp_page_count
from sidecar.layout.svm import VpPage


class VpOperation(IntEnum):
    """Byte offsets in a back end's table of routines. All run with interrupts off and keep rbx, rbp, r12 to r15."""

    PROBE = 0
    """In: nothing. Out: rsi 0, or the sentence that says why this CPU cannot (one argument: the command)."""
    CREATE = 8
    """Takes the CPU into its virtualisation mode and puts the virtual processor into its reset state."""
    DESTROY = 16
    """Leaves that mode."""
    RUN = 24
    """In: rbx address of the status byte. Out: eax RunEnd; with INTERCEPT the message is in the command page."""


def call_operation(operation: str) -> str:
    """Text: call an operation of the virtual processor's back end. Clobbers: rax and what the operation does."""
    return f"""
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.operations]
            call    qword ptr [rax + VpOperation.{operation}]"""


def prepare_vp() -> str:
    """Set the virtual processor up if the driver has given one and that was not done yet.

    Out: rsi 0, or a sentence whose argument is the command. Clobbers: rax, rcx, rdx, rdi, r8 to r11.
    Interrupts: off. Stack: 48 bytes and those of its callees.
    """
    return """
    prepare_vp:
            mov     rax, qword ptr [rip + privileged_page + PrivilegedPage.vp_created]
            lea     rsi, [rip + text_no_vp]
            test    rax, rax
            je      .done
            xor     esi, esi
            cmp     rax, qword ptr [rip + vp_globals + VpGlobals.vp.created]
            je      .done
            push    rax
            push    rbx
            lea     rbx, [rip + vp_back_ends]
    .probe: mov     rax, qword ptr [rbx]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.operations], rax
            call    qword ptr [rax + VpOperation.PROBE]
            test    rsi, rsi
            je      .usable
            add     rbx, 8
            cmp     qword ptr [rbx], 0
            jne     .probe
            jmp     .leave
    .usable:
            mov     rdi, qword ptr [rip + privileged_page + PrivilegedPage.vp_pages_pa]
            mov     rax, qword ptr [rip + privileged_page + PrivilegedPage.guest_root_pa]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.pages_pa], rdi
            or      rax, rdi
            mov     rcx, ~PTE_ADDRESS_MASK
            lea     rsi, [rip + text_vp_pages]
            test    rax, rcx
            jne     .leave
            test    rdi, rdi
            je      .leave
            call    link_vp_pages
            call    reset_vp_state
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.operations]
            call    qword ptr [rax + VpOperation.CREATE]
            mov     rax, qword ptr [rsp + 8]
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.created], rax
            xor     esi, esi
    .leave: pop     rbx
            pop     rax
    .done:  ret
            .section .data.rel.ro
            .align  8
    vp_back_ends:                                   # the first that can, ends with 0
            .quad   svm_operations, 0
            .section .rodata
    text_no_vp:
            .asciz  "command %u: this CPU was given no virtual processor"
    text_vp_pages:
            .asciz  "command %u: vp_pages_pa or guest_root_pa is not the address of a page"
    """


def link_vp_pages() -> str:
    """Map the virtual processor's pages at VP_VA.

    In: rdi their physical address. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 16 bytes and those of its callees.
    """
    entries = "".join(
        f"""
            lea     rdx, [rax + {(page + n)} * PAGE_SIZE]
            mov     qword ptr [rdi + 8 * {slot + n}], rdx"""
        for _, slot, page, _ in VP_MAP
        for n in range(vp_page_count(page))
    )
    return f"""
    link_vp_pages:
            push    rdi
            add     rdi, {int(VpPage.TABLE)} * PAGE_SIZE
            call    link_vp_table
            pop     rsi
            lea     rdi, [rip + vp_table]
            xor     eax, eax
            mov     ecx, TABLE_ENTRIES
            rep stosq
            lea     rdi, [rip + vp_table]
            mov     rax, Pte.NX
            or      rax, Pte.PRESENT | Pte.WRITE
            add     rax, rsi{entries}
            ret
    """


def link_vp_table() -> str:
    """Hang VpPage.TABLE into this CPU's own tables, as a table and as data, or take it out.

    Those tables are in no CPU's own map, so this goes over the transition tables, without a stack.
    In: rdi physical address of the page, 0 to take it out. Clobbers: rax, rcx, rdx, rsi, r8, r9. Interrupts: off.
    Stack: 32 bytes.
    """
    return f"""
    link_vp_table:
            push    rbx
            push    rbp
            push    r12
            push    r13
            mov     r8, cr3
            mov     rax, qword ptr [rip + transition_cr3]
            mov     cr3, rax
            {find_self("vp")}
            {private_offset()}
            add     rcx, rsi                        # private pages, through the window
            xor     eax, eax
            xor     r9d, r9d
            test    rdi, rdi
            je      .store
            lea     rax, [rdi + (Pte.PRESENT | Pte.WRITE)]
            mov     r9, Pte.NX
            or      r9, rax
    .store: mov     qword ptr [rcx + PrivatePage.PD * PAGE_SIZE + 8 * PdSlot.VP], rax
            mov     qword ptr [rcx + PrivatePage.PT * PAGE_SIZE + 8 * VP_TABLE_SLOT], r9
            mov     cr3, r8                         # no entry is global: nothing old is left in the TLB
            pop     r13
            pop     r12
            pop     rbp
            pop     rbx
            ret
    """


def forget_gone_vp() -> str:
    """Before every command and in REMOVE: forget the virtual processor if it is no longer the driver's.

    In: nothing. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 8 bytes and forget_vp's.
    """
    return """
    forget_gone_vp:
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.created]
            test    rax, rax
            je      .done
            cmp     rax, qword ptr [rip + privileged_page + PrivilegedPage.vp_created]
            jne     forget_vp
    .done:  ret
    """


def forget_vp() -> str:
    """Leave the back end's mode, unmap the virtual processor's pages; its state is gone.

    In: a virtual processor that is set up. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 40 bytes and those of its callees.
    """
    return f"""
    forget_vp:{call_operation("DESTROY")}
            xor     edi, edi
            call    link_vp_table
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.created], 0
            jmp     reset_context
    """


def reset_vp_state() -> str:
    """The virtual processor's state that no back end keeps, as after RESET.

    In: nothing. Clobbers: rax, rcx, rdx, rsi, rdi, r8, r9. Interrupts: off. Stack: 16 bytes and those of its callees.
    """
    return """
    reset_vp_state:
            mov     rsi, qword ptr [rip + vp_globals + VpGlobals.vp.operations]
            mov     r8, qword ptr [rip + vp_globals + VpGlobals.vp.pages_pa]
            mov     r9, qword ptr [rip + vp_globals + VpGlobals.vp.timer_ratio]
            lea     rdi, [rip + vp_globals + VpGlobals.vp]
            xor     eax, eax
            mov     ecx, VpState.SIZE // 8
            rep stosq
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.operations], rsi
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.pages_pa], r8
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.timer_ratio], r9
            mov     eax, APIC_BASE_RESET
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.apic_base], rax
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.check_needed], 1
            call    reset_vp                        # debug registers and MTRRs
            jmp     reset_xsave
    """


ROUTINES = (prepare_vp, link_vp_pages, link_vp_table, forget_gone_vp, forget_vp, reset_vp_state)
