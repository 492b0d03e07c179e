"""The trampoline page: where SIPI sends a CPU, in real mode, any number of them at once, without a lock.

Entered by an arriving CPU at CS:IP = page:0, after INIT: paging off, all of CR4 and EFER zero. The page is only read.
From real mode straight to 64-bit mode on the transition tables, then to `arrive` in the image.

Ref: SDM vol. 3A, 9.4.4 (INIT-SIPI-SIPI), 10.8.5 (IA-32e mode); AMD64 APM vol. 2, 14.6.1.
"""


def trampoline() -> str:
    """Copied to the trampoline page; the page's data fields are filled by install_trampoline.

    In: real mode, CS base = page. Out: 64-bit mode at arrive, esi and edi the halves of the first TSC stamp.
    Clobbers: everything. Interrupts: off. Stack: none.
    """
    return """
    trampoline:
            .code16
            cli
            cld
            rdtsc                                   # stamp of BootPhase.TRAMPOLINE
            mov     esi, eax
            mov     edi, edx
            mov     ax, cs
            mov     ds, eax
            lgdtd   [TrampolinePage.gdt_limit]
            mov     eax, Cr4.PAE
            mov     cr4, eax
            mov     eax, dword ptr [TrampolinePage.transition_cr3]
            mov     cr3, eax
            mov     ecx, Msr.EFER                   # NXE before any entry with NX is used
            mov     eax, Efer.LME | Efer.NXE
            xor     edx, edx
            wrmsr
            mov     eax, Cr0.PG | Cr0.WP | Cr0.NE | Cr0.ET | Cr0.MP | Cr0.PE
            mov     cr0, eax
            ljmp    fword ptr [TrampolinePage.long_mode_offset]
            .code64
    trampoline_long_mode:
            mov     rax, qword ptr [rip + trampoline + TrampolinePage.arrive_va]
            jmp     rax
    trampoline_end:
            nop
    """


def install_trampoline() -> str:
    """Copy the trampoline to its page and fill the page's fields: once, before the first INIT.

    In: r15 params. Clobbers: rax, rcx, rdx, rsi, rdi, rbx. Interrupts: off. Stack: none.
    """
    return """
    install_trampoline:
            mov     rbx, qword ptr [r15 + SidecarParams.trampoline_pa]
            mov     rdi, rbx
            mov     ecx, PAGE_SIZE // 8
            xor     eax, eax
            rep stosq
            mov     rdi, rbx
            lea     rsi, [rip + trampoline]
            lea     rcx, [rip + trampoline_end]
            sub     rcx, rsi
            rep movsb
            mov     rax, Descriptor.CODE64
            mov     qword ptr [rbx + TrampolinePage.gdt + Selector.CODE64], rax
            mov     rax, Descriptor.DATA
            mov     qword ptr [rbx + TrampolinePage.gdt + Selector.DATA], rax
            mov     word ptr [rbx + TrampolinePage.gdt_limit], TrampolinePage.gdt.SIZE - 1
            lea     rax, [rbx + TrampolinePage.gdt]
            mov     dword ptr [rbx + TrampolinePage.gdt_base_low], eax
            lea     rax, [rip + trampoline_long_mode]
            lea     rcx, [rip + trampoline]
            sub     rax, rcx
            add     rax, rbx
            mov     dword ptr [rbx + TrampolinePage.long_mode_offset], eax
            mov     word ptr [rbx + TrampolinePage.long_mode_selector], Selector.CODE64
            mov     rax, qword ptr [rip + transition_cr3]
            mov     qword ptr [rbx + TrampolinePage.transition_cr3], rax
            lea     rax, [rip + arrive]
            lea     rcx, [rip + __ehdr_start]
            sub     rax, rcx
            mov     rcx, IMAGE_VA
            add     rax, rcx
            mov     qword ptr [rbx + TrampolinePage.arrive_va], rax
            mov     dword ptr [rbx + TrampolinePage.abi_version], ABI_VERSION
            mov     rax, ABI_HASH
            mov     qword ptr [rbx + TrampolinePage.abi_hash], rax
            mov     rax, qword ptr [r15 + SidecarParams.sdcr_pa]
            mov     qword ptr [rbx + TrampolinePage.sdcr_pa], rax
            mov     rax, TRAMPOLINE_MAGIC
            mov     qword ptr [rbx + TrampolinePage.magic], rax
            ret
    """


ROUTINES = (trampoline, install_trampoline)
