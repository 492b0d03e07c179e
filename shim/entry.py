"""The ways in: PVH and Multiboot2, both in 32-bit protected mode, paging off; and the step to 64-bit mode.

Runs on the boot CPU alone, interrupts off.
Ref: Xen `docs/misc/pvh.pandoc`; Multiboot2 specification 3.3; SDM vol. 3A, 10.8.5.
"""

UNCACHED_FROM = 0xFE000000
"""I/O APIC, HPET and local APIC lie above."""


def pvh_entry() -> str:
    """PVH entry. In: ebx HvmStartInfo. Out: long_mode with rbx kept. Interrupts: off."""
    return """
            .code32
    pvh_entry:
            cli
            cld
            mov     esp, shim_stack_end
            rdtsc
            mov     dword ptr [shim_entry_tsc], eax
            mov     dword ptr [shim_entry_tsc + 4], edx
            jmp     enter_long_mode
            .section .bss
            .align  PAGE_SIZE
    shim_stack:
            .zero   4 * PAGE_SIZE
    shim_stack_end:
    shim_entry_tsc:
            .zero   8
    """


def multiboot2_entry() -> str:
    """Multiboot2 entry: recognised, so that GRUB loads the file; its information is not read by this version.

    In: eax magic. Out: a sentence on the first serial port, then halted.
    """
    return """
            .code32
    multiboot2_entry:
            cli
            cld
            mov     esi, text_multiboot2

    say_and_halt:                                   # esi zero-terminated sentence
            mov     dx, 0x3f8
    .next:  mov     al, byte ptr [esi]
            test    al, al
            je      .halt
            out     dx, al
            inc     esi
            jmp     .next
    .halt:  hlt
            jmp     .halt
            .section .rodata
    text_multiboot2:
            .ascii  "shim: fatal: started through Multiboot2, which this version only recognises: use QEMU's -kernel"
            .byte   10, 0
    text_no_long_mode:
            .ascii  "shim: fatal: this CPU has no 64-bit mode"
            .byte   10, 0
    """


def enter_long_mode() -> str:
    """Identity-map all memory and go to 64-bit mode.

    The first 4 GiB by 2 MiB pages; what is above by 1 GiB pages if the CPU has them, else not at all
    (mapped_bytes says how far).
    In: ebx kept. Out: long_mode. Clobbers: everything but rbx, rsp. Interrupts: off.
    """
    return f"""
            .code32
    enter_long_mode:
            mov     esi, text_no_long_mode
            mov     edi, ebx
            mov     eax, Cpuid.EXTENDED_MAX
            cpuid
            cmp     eax, Cpuid.EXTENDED_FEATURES
            jb      say_and_halt
            mov     eax, Cpuid.EXTENDED_FEATURES
            cpuid
            mov     ebx, edi
            bt      edx, Cpuid.EXT_EDX_LM_BIT
            jae     say_and_halt
            mov     ebp, edx                        # has 1 GiB pages?
            mov     dword ptr [shim_pml4], shim_pdpt + (Pte.PRESENT | Pte.WRITE)
            mov     eax, shim_pd + (Pte.PRESENT | Pte.WRITE)
            mov     edi, shim_pdpt
            mov     ecx, 4
    .table: mov     dword ptr [edi], eax
            add     eax, PAGE_SIZE
            add     edi, 8
            dec     ecx
            jne     .table
            mov     eax, Pte.PRESENT | Pte.WRITE | Pte.LARGE
            mov     edi, shim_pd
            mov     ecx, 4 * TABLE_ENTRIES
    .large: mov     dword ptr [edi], eax
            cmp     eax, {UNCACHED_FROM:#x}
            jb      .cached
            or      dword ptr [edi], Pte.PCD | Pte.PWT
    .cached:
            add     eax, LARGE_PAGE
            add     edi, 8
            dec     ecx
            jne     .large
            bt      ebp, Cpuid.EXT_EDX_PAGE1GB_BIT
            jae     .mapped
            mov     edi, shim_pdpt + 4 * 8
            mov     edx, 1                          # high half of the address
            mov     eax, Pte.PRESENT | Pte.WRITE | Pte.LARGE
            mov     ecx, TABLE_ENTRIES - 4
    .huge:  mov     dword ptr [edi], eax
            mov     dword ptr [edi + 4], edx
            add     eax, 0x40000000
            adc     edx, 0
            add     edi, 8
            dec     ecx
            jne     .huge
            mov     dword ptr [mapped_bytes + 4], 128       # 512 GiB
    .mapped:
            lgdt    [shim_gdt_pointer]
            mov     eax, Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
            mov     cr4, eax
            mov     eax, shim_pml4
            mov     cr3, eax
            mov     ecx, Msr.EFER
            mov     eax, Efer.LME | Efer.NXE
            xor     edx, edx
            wrmsr
            mov     eax, Cr0.PG | Cr0.WP | Cr0.NE | Cr0.ET | Cr0.MP | Cr0.PE
            mov     cr0, eax
            ljmp    Selector.CODE64:long_mode
            .code64
    long_mode:
            mov     eax, Selector.DATA
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            xor     eax, eax
            mov     fs, eax
            mov     gs, eax
            mov     ebx, ebx                        # its upper half is undefined after the switch
            mov     esp, esp
            jmp     main
            .section .rodata
            .align  8
    shim_gdt:
            .quad   0, Descriptor.CODE64, Descriptor.DATA, 0, 0, Descriptor.CODE32
    shim_gdt_pointer:
            .word   6 * 8 - 1
            .long   shim_gdt
            .section .data
            .align  8
    mapped_bytes:                                   # identity-mapped from 0 on
            .quad   0x100000000
            .section .bss
            .align  PAGE_SIZE
    shim_pml4:
            .zero   PAGE_SIZE
    shim_pdpt:
            .zero   PAGE_SIZE
    shim_pd:
            .zero   4 * PAGE_SIZE
    """


ROUTINES = (pvh_entry, multiboot2_entry, enter_long_mode)
