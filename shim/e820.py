"""The E820 map for Linux: the loader's, with the sidecar's memory cut out of its RAM as reserved.

Runs on the boot CPU. Ref: Linux `Documentation/arch/x86/zero-page.rst`; ACPI 6.5, 15.
"""

RESERVED_EXTRA = 3
"""Beside the nodes' memory: image, trampoline page, the shim's lasting tables."""


def write_e820() -> str:
    """Fill boot_params' E820 table.

    In: memory_map, what the sidecar was given. Out: boot_params, or fatal if there are too many entries.
    Clobbers: all but rbx, rbp. Interrupts: off. Stack: as say.
    """
    return """
    write_e820:
            push    rbx
            push    rbp
            call    list_reserved
            lea     rbx, [rip + memory_map]
            mov     ebp, dword ptr [rip + memory_map_count]
    .entry: mov     r8, qword ptr [rbx + HvmMemoryMapEntry.addr]
            mov     r9, qword ptr [rbx + HvmMemoryMapEntry.size]
            add     r9, r8
            mov     r10d, dword ptr [rbx + HvmMemoryMapEntry.type]
            cmp     r10d, E820Type.RAM
            jne     .whole
    .cut:   call    next_reserved                   # rsi to rdi: the first reserved part of r8 to r9
            jae     .whole
            mov     r12, rdi
            mov     r13, r9
            mov     r9, rsi
            call    add_e820                        # RAM before it
            mov     r8, r9
            mov     r9, r12
            mov     r10d, E820Type.RESERVED
            call    add_e820
            mov     r10d, E820Type.RAM
            mov     r8, r12
            mov     r9, r13
            jmp     .cut
    .whole: call    add_e820
            add     rbx, HvmMemoryMapEntry.SIZE
            dec     ebp
            jne     .entry
            pop     rbp
            pop     rbx
            ret

    add_e820:                                       # r8 to r9 of type r10d, joined to the entry it continues
            cmp     r8, r9
            jae     .done
            movzx   eax, byte ptr [rip + boot_params + BootParams.e820_entries]
            imul    ecx, eax, LinuxBoot.E820_ENTRY_BYTES
            lea     rdi, [rip + boot_params + BootParams.e820_table]
            add     rdi, rcx
            test    eax, eax
            je      .new
            cmp     dword ptr [rdi - 4], r10d
            jne     .new
            mov     rcx, qword ptr [rdi - 20]
            add     rcx, qword ptr [rdi - 12]
            cmp     rcx, r8
            jne     .new
            mov     rcx, r9
            sub     rcx, r8
            add     qword ptr [rdi - 12], rcx
    .done:  ret
    .new:   lea     rsi, [rip + text_e820_full]
            mov     edx, LinuxBoot.E820_MAX_ENTRIES
            cmp     eax, LinuxBoot.E820_MAX_ENTRIES
            jae     fatal
            mov     qword ptr [rdi], r8
            mov     rcx, r9
            sub     rcx, r8
            mov     qword ptr [rdi + 8], rcx
            mov     dword ptr [rdi + 16], r10d
            inc     byte ptr [rip + boot_params + BootParams.e820_entries]
            ret
            .section .rodata
    text_e820_full:
            .asciz  "fatal: the memory map for Linux needs more than %u entries"
    """


def list_reserved() -> str:
    """What the sidecar keeps: nodes' memory, image, trampoline page, CPU map and ACPI tables.

    In: node_count (0: nothing). Out: reserved_ranges, reserved_count. Clobbers: rax, rcx, rdx, rsi, rdi. Stack: none.
    """
    return f"""
    list_reserved:
            mov     ecx, dword ptr [rip + node_count]
            test    ecx, ecx
            je      .none
            lea     rsi, [rip + params_page + SidecarParams.nodes]
            lea     rdi, [rip + reserved_ranges]
            lea     eax, [rcx + {RESERVED_EXTRA}]
            mov     dword ptr [rip + reserved_count], eax
    .node:  mov     rax, qword ptr [rsi + SidecarNodeParams.memory_base]
            mov     qword ptr [rdi + Range.base], rax
            add     rax, qword ptr [rsi + SidecarNodeParams.memory_size]
            mov     qword ptr [rdi + Range.end], rax
            add     rsi, SidecarNodeParams.SIZE
            add     rdi, Range.SIZE
            dec     ecx
            jne     .node
            mov     rax, qword ptr [rip + image_pa]
            mov     qword ptr [rdi + Range.base], rax
            add     rax, qword ptr [rip + image_bytes]
            mov     qword ptr [rdi + Range.end], rax
            mov     rax, qword ptr [rip + trampoline_pa]
            mov     qword ptr [rdi + Range.SIZE + Range.base], rax
            add     rax, PAGE_SIZE
            mov     qword ptr [rdi + Range.SIZE + Range.end], rax
            lea     rax, [rip + lasting_tables]
            mov     qword ptr [rdi + 2 * Range.SIZE + Range.base], rax
            lea     rax, [rip + lasting_tables_end]
            mov     qword ptr [rdi + 2 * Range.SIZE + Range.end], rax
    .none:  ret
            .section .bss
            .align  8
    reserved_count:
            .zero   8
    reserved_ranges:
            .zero   (MAX_NODES + {RESERVED_EXTRA}) * Range.SIZE
    """


def next_reserved() -> str:
    """The lowest reserved part of a range.

    In: r8 to r9. Out: CF and rsi to rdi if there is one. Clobbers: rax, rcx, rdx. Stack: none.
    """
    return """
    next_reserved:
            mov     rsi, r9                         # lowest start found
            lea     rcx, [rip + reserved_ranges]
            mov     edx, dword ptr [rip + reserved_count]
    .range: sub     edx, 1
            jb      .found
            mov     rax, qword ptr [rcx + Range.end]
            cmp     rax, r8
            jbe     .next                           # it ends before
            mov     rax, qword ptr [rcx + Range.base]
            cmp     rax, r8
            cmovb   rax, r8
            cmp     rax, rsi
            jae     .next                           # it begins behind, or behind a lower one
            mov     rsi, rax
            mov     rdi, qword ptr [rcx + Range.end]
            cmp     rdi, r9
            cmova   rdi, r9
    .next:  add     rcx, Range.SIZE
            jmp     .range
    .found: cmp     rsi, r9
            ret
    """


ROUTINES = (write_e820, list_reserved, next_reserved)
