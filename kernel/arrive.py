"""A CPU's arrival: from the trampoline to the park loop. First start, restart and return from Linux are all this.

Runs on each arriving CPU, at IMAGE_VA, first on the transition tables and without a stack, beside any number of
others. Whatever the CPU's own pages held, its page tables, GDT and TSS are built anew, so a CPU whose tables were
corrupted comes back whole. A CPU whose status is neither RUN, STOP nor IDLE was not asked for: its claim is revoked
and it halts until the next INIT.

Ref: SDM vol. 2A, CPUID leaf 0xB; vol. 3A, 4.5, 9.1.1 (state after INIT).
"""

from sidecar.kernel.recorder import record
from sidecar.layout.address_map import PER_CPU_MAP, Source

LINE_BYTES = 64


def clear_line() -> str:
    """Text: clear a cache line at rdi. In: rax 0. An emulator runs this several times faster than REP STOSQ."""
    return "".join(f"\n            mov     qword ptr [rdi + {offset}], rax" for offset in range(0, LINE_BYTES, 8))


def find_self(label: str) -> str:
    """Text, used where a CPU has nothing but its registers and the transition tables: which CPU is this?

    In: nothing. Out: r12 its CPU map entry, rbx its node's state, rbp its index in the node (zero-extended),
    r13d its x2APIC id, rsi the node's window. Jumps to halt_forever if it is not in the map.
    Clobbers: rax, rcx, rdx.
    """
    return f"""
            mov     eax, Cpuid.TOPOLOGY
            xor     ecx, ecx
            cpuid
            mov     r13d, edx                       # x2APIC id, valid in any APIC mode
            lea     r12, [rip + cpu_map]
            mov     ecx, dword ptr [rip + cpu_count]
    .{label}_find:
            cmp     dword ptr [r12 + CpuMapEntry.apic_id], r13d
            je      .{label}_found
            add     r12, CpuMapEntry.SIZE
            dec     ecx
            jne     .{label}_find
            jmp     halt_forever
    .{label}_found:
            movzx   eax, word ptr [r12 + CpuMapEntry.node]
            cmp     eax, dword ptr [rip + node_count]
            jae     halt_forever                    # it belongs to no node
            shl     eax, 6                          # NodeState.SIZE
            lea     rbx, [rip + node_states]
            add     rbx, rax
            mov     ebp, dword ptr [r12 + CpuMapEntry.linux_number]
            sub     ebp, dword ptr [rbx + NodeState.base_vp]
            cmp     ebp, dword ptr [rbx + NodeState.vp_count]
            jae     halt_forever
            mov     rsi, qword ptr [rbx + NodeState.window_va]
    """


def private_offset() -> str:
    """Text: offset of this CPU's private pages in node memory. In: rbx, rbp as find_self left them. Out: rcx."""
    return """
            mov     eax, dword ptr [rbx + NodeState.vp_count]
            lea     eax, [rax*SHARED_PAGES + 1]
            imul    ecx, ebp, PRIVATE_PAGES
            add     ecx, eax
            shl     rcx, 12
    """


def stamp(phase: str, page: str) -> str:
    """Text: store the TSC as the boot record's stamp of `phase`; `page` addresses the diagnostic page."""
    return f"""
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     qword ptr [{page} + DiagnosticPage.boot.stamps + 8 * BootPhase.{phase}], rax
    """


def arrive() -> str:
    """The 64-bit part of an arrival, in its order.

    In: esi and edi halves of the TRAMPOLINE stamp; transition tables, no stack. Out: park. Interrupts: off.
    """
    return f"""
    arrive:
            mov     eax, Selector.DATA
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            xor     eax, eax
            mov     fs, eax
            mov     gs, eax
            mov     r15d, esi
            shl     rdi, 32
            or      r15, rdi                        # stamp of TRAMPOLINE
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     r14, rax                        # stamp of LONG_MODE
            {find_self("arrive")}
            movzx   eax, byte ptr [rsi + rbp + ControlPage.cpu_status]
            cmp     eax, CpuStatus.IDLE
            jb      halt_forever                    # REMOVED: the claim was revoked
            cmp     eax, CpuStatus.STOP
            ja      halt_forever                    # REMOVE or FAULTED: nobody asked for a start
            {private_offset()}
            lea     r9, [rsi + rcx]                 # private pages, through the window
            mov     r8, qword ptr [rbx + NodeState.memory_base]
            add     r8, rcx                         # and their physical address
            jmp     own_tables

    own_tables:                                     # rbx, rbp, rsi, r8, r9, r12 to r15 as above
            lea     r11, [r9 + PrivatePage.DIAGNOSTIC * PAGE_SIZE]
            xor     eax, eax
            mov     rdi, r9
            lea     rcx, [r9 + (PrivatePage.PT + 1) * PAGE_SIZE]
            cmp     qword ptr [r11 + DiagnosticPage.boot.arrivals], 0
            jne     .clear
            lea     rcx, [r9 + PRIVATE_PAGES * PAGE_SIZE]       # the first time nothing in them is ours
    .clear:{clear_line()}
            add     rdi, {LINE_BYTES}
            cmp     rdi, rcx
            jb      .clear
            {link_tables()}
            {map_own_pages()}
            lea     rdi, [r11 + DiagnosticPage.boot.stamps]
            mov     ecx, DiagnosticPage.boot.stamps.COUNT
            rep stosq                               # rax is 0
            mov     qword ptr [r11 + DiagnosticPage.boot.stamps + 8 * BootPhase.TRAMPOLINE], r15
            mov     qword ptr [r11 + DiagnosticPage.boot.stamps + 8 * BootPhase.LONG_MODE], r14
            {stamp("FOUND", "r11")}
            mov     cr3, r8                         # PrivatePage.PML4 is the first
            lea     rsp, [rip + stack_end]
            call    load_descriptors
            inc     qword ptr [rip + diagnostic_page + DiagnosticPage.boot.arrivals]
            mov     dword ptr [rip + diagnostic_page + DiagnosticPage.boot.apic_id], r13d
            mov     eax, dword ptr [r12 + CpuMapEntry.linux_number]
            mov     dword ptr [rip + diagnostic_page + DiagnosticPage.boot.linux_number], eax
            mov     dword ptr [rip + vp_globals + VpGlobals.linux_number], eax
            mov     dword ptr [rip + vp_globals + VpGlobals.node_cpu_index], ebp
            mov     dword ptr [rip + vp_globals + VpGlobals.apic_id], r13d
            movzx   eax, word ptr [r12 + CpuMapEntry.node]
            mov     dword ptr [rip + vp_globals + VpGlobals.node_index], eax
            {stamp("MAPPED", "rip + diagnostic_page")}
            jmp     prepare_cpu
    """


def link_tables() -> str:
    """Text: PML4 to page directory. In: r8, r9 private pages, physical and through the window. Clobbers: rax, rcx.

    Out: rax is 0. The shared image table and the CPU's own table hang in its page directory.
    """

    def link(table: str, slot: str, page: str) -> str:
        return f"""
            lea     rcx, [r8 + PrivatePage.{page} * PAGE_SIZE + (Pte.PRESENT | Pte.WRITE)]
            mov     qword ptr [r9 + PrivatePage.{table} * PAGE_SIZE + 8 * {slot}], rcx"""

    return f"""{link("PML4", "PML4_SLOT", "PDPT")}{link("PDPT", "0", "PD")}{link("PD", "PdSlot.PER_CPU", "PT")}
            mov     rcx, qword ptr [rip + image_table_pa]
            or      rcx, Pte.PRESENT | Pte.WRITE
            mov     qword ptr [r9 + PrivatePage.PD * PAGE_SIZE + 8 * PdSlot.IMAGE], rcx
            xor     eax, eax
    """


def map_own_pages() -> str:
    """Text: the CPU's own table, one entry per row of the address map.

    In: rbx, rbp as find_self left them, r8, r9 as above. Out: rax is 0. Clobbers: rcx, rdx, rdi, r10.
    """
    text = """
            mov     rcx, qword ptr [rbx + NodeState.memory_base]
            lea     rdx, [rbp*SHARED_PAGES + 1]
            shl     rdx, 12
            add     rdx, rcx                        # shared pages
            mov     r10, Pte.NX"""
    base = {Source.CONTROL: "rcx", Source.SHARED: "rdx", Source.PRIVATE: "r8"}
    for mapping in PER_CPU_MAP:
        rights = "(Pte.PRESENT | Pte.WRITE)" if mapping.writable else "Pte.PRESENT"
        text += f"""
            lea     rdi, [{base[mapping.source]} + {int(mapping.index)} * PAGE_SIZE + {rights}]
            or      rdi, r10
            mov     qword ptr [r9 + PrivatePage.PT * PAGE_SIZE + 8 * {mapping.slot}], rdi   # {mapping.symbol}"""
    return text


def prepare_cpu() -> str:
    """The rest of an arrival, on own tables, with own stack and IDT: faults are contained from here on.

    In: own tables; vp_globals filled. Out: park. Interrupts: off. Stack: own, from its end.
    """
    return f"""
    prepare_cpu:
            mov     r9d, dword ptr [rip + diagnostic_page + DiagnosticPage.boot.arrivals]{record("ARRIVED", "r9d")}
            call    scrub_state
            call    enable_x2apic
            {stamp("APIC", "rip + diagnostic_page")}
            lea     rdi, [rip + cpu_map]
            mov     r10d, dword ptr [rip + helped_by_each]
            call    fan_out
            mov     dword ptr [rip + diagnostic_page + DiagnosticPage.boot.started_by_it], eax
            {stamp("FAN_OUT", "rip + diagnostic_page")}
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.created], 0  # its own tables know of none either
            call    reset_vp
            call    reset_pages
            sub     rsp, 16
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.apic_id]
            mov     qword ptr [rsp], rax
            mov     rax, qword ptr [rip + diagnostic_page + DiagnosticPage.boot.arrivals]
            mov     qword ptr [rsp + 8], rax
            lea     rsi, [rip + text_arrived]
            mov     rdx, rsp
            call    log_line
            {stamp("IDLE", "rip + diagnostic_page")}
            jmp     finish                          # RUN -> IDLE, attention, park
            .section .rodata
    text_arrived:
            .asciz  "APIC id %u: arrival %u"
    """


def reset_pages() -> str:
    """Zero what a former owner may have left in the shared pages, and put version and hash on all.

    Not if the status is IDLE: then the arrival is a second one that nobody waits for, and the pages may be in use.
    In: own tables. Clobbers: rax, rcx, rdx, rdi. Interrupts: off. Stack: 8 bytes.
    """
    stamps = "".join(
        f"""
            mov     dword ptr [rip + {page} + {layout}.abi_version], ABI_VERSION
            mov     qword ptr [rip + {page} + {layout}.abi_hash], rcx"""
        for page, layout in (("command_page", "CommandPage"), ("privileged_page", "PrivilegedPage"))
    )
    clears = "".join(
        f"""
            lea     rdi, [rip + {page}]
            mov     ecx, PAGE_SIZE // 8
            rep stosq"""
        for page in ("command_page", "register_page")
    )
    return f"""
    reset_pages:
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.node_cpu_index]
            lea     rdi, [rip + control_page + ControlPage.cpu_status]
            cmp     byte ptr [rdi + rax], CpuStatus.IDLE
            je      .done
            xor     eax, eax{clears}
            mov     rcx, ABI_HASH{stamps}
            jmp     reset_context
    .done:  ret
    """


ROUTINES = (arrive, prepare_cpu, reset_pages)
