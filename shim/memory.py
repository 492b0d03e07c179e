"""Free memory by NUMA node, and its allocation for the sidecar: from the end of the largest range.

Runs on the boot CPU. What is taken here is what Linux must not have.
"""

from enum import IntEnum

MEMORY_AFFINITIES = 128
FREE_RANGES = 256
USED_RANGES = 3
"""The shim, the bundle, where Linux will run."""


class Range(IntEnum):
    """Byte offsets in a range: first byte, first byte behind it, NUMA node; u64 each."""

    base = 0
    end = 8
    numa = 16
    SIZE = 24


def list_free_memory() -> str:
    """RAM above 1 MiB that is identity-mapped and not the shim's, the bundle's or Linux's, cut by NUMA node.

    In: memory_map, memory_affinity, mapped_bytes. Out: free_ranges, free_count; trampoline_pa, 0 if there is no page
    below 640 KiB. Clobbers: all. Interrupts: off. Stack: 24 bytes.
    """
    return f"""
    list_free_memory:
            lea     rax, [rip + shim_start]
            mov     qword ptr [rip + used_ranges + Range.base], rax
            lea     rax, [rip + _end]
            mov     qword ptr [rip + used_ranges + Range.end], rax
            mov     rax, qword ptr [rip + bundle_pa]
            mov     qword ptr [rip + used_ranges + Range.SIZE + Range.base], rax
            add     rax, qword ptr [rip + bundle_bytes]
            mov     qword ptr [rip + used_ranges + Range.SIZE + Range.end], rax
            mov     rax, qword ptr [rip + linux_load_pa]
            mov     qword ptr [rip + used_ranges + 2 * Range.SIZE + Range.base], rax
            mov     rax, qword ptr [rip + linux_load_end]
            mov     qword ptr [rip + used_ranges + 2 * Range.SIZE + Range.end], rax
            lea     rbx, [rip + memory_map]
            mov     ebp, dword ptr [rip + memory_map_count]
    .entry: cmp     dword ptr [rbx + HvmMemoryMapEntry.type], 1
            jne     .next
            mov     r8, qword ptr [rbx + HvmMemoryMapEntry.addr]
            mov     r9, qword ptr [rbx + HvmMemoryMapEntry.size]
            add     r9, r8
            call    low_page
            lea     r12, [rip + memory_affinity]
            mov     r13d, dword ptr [rip + memory_affinity_count]
    .part:  mov     rsi, qword ptr [r12 + Range.base]   # the part of the entry in this NUMA node
            cmp     rsi, r8
            cmovb   rsi, r8
            mov     eax, 0x100000
            cmp     rsi, rax
            cmovb   rsi, rax
            mov     rdi, qword ptr [r12 + Range.end]
            cmp     rdi, r9
            cmova   rdi, r9
            mov     rax, qword ptr [rip + mapped_bytes]
            cmp     rdi, rax
            cmova   rdi, rax
            mov     rdx, qword ptr [r12 + Range.numa]
            call    add_free
            add     r12, Range.SIZE
            dec     r13d
            jne     .part
    .next:  add     rbx, HvmMemoryMapEntry.SIZE
            dec     ebp
            jne     .entry
            ret

    low_page:                                       # r8 to r9 is RAM: the highest page below 636 KiB for the trampoline
            mov     rax, r9
            mov     ecx, 0x9f000
            cmp     rax, rcx
            cmova   rax, rcx
            and     rax, -PAGE_SIZE
            sub     rax, PAGE_SIZE
            jbe     .none                           # page 0 is the real-mode vector table
            cmp     rax, r8
            jb      .none
            cmp     rax, qword ptr [rip + trampoline_pa]
            jbe     .none
            mov     qword ptr [rip + trampoline_pa], rax
    .none:  ret

    add_free:                                       # rsi to rdi without what is used, NUMA node rdx
            add     rsi, PAGE_SIZE - 1
            and     rsi, -PAGE_SIZE
            and     rdi, -PAGE_SIZE
    .from:  cmp     rsi, rdi
            jae     .done
            mov     r10, rdi                        # end of this piece
            lea     rcx, [rip + used_ranges]
            mov     r11d, {USED_RANGES}
    .used:  mov     rax, qword ptr [rcx + Range.end]
            cmp     rsi, rax
            jae     .free                           # it lies before
            mov     rax, qword ptr [rcx + Range.base]
            and     rax, -PAGE_SIZE
            cmp     rsi, rax
            jb      .before
            mov     rsi, qword ptr [rcx + Range.end]    # inside: go on behind it
            add     rsi, PAGE_SIZE - 1
            and     rsi, -PAGE_SIZE
            jmp     .from
    .before:
            cmp     r10, rax
            cmova   r10, rax
    .free:  add     rcx, Range.SIZE
            dec     r11d
            jne     .used
            mov     eax, dword ptr [rip + free_count]
            cmp     eax, {FREE_RANGES}
            jae     .done
            cmp     rsi, r10
            jae     .put
            inc     dword ptr [rip + free_count]
            imul    eax, eax, Range.SIZE
            lea     rcx, [rip + free_ranges]
            add     rcx, rax
            mov     qword ptr [rcx + Range.base], rsi
            mov     qword ptr [rcx + Range.end], r10
            mov     qword ptr [rcx + Range.numa], rdx
    .put:   cmp     rsi, r10
            cmovb   rsi, r10
            jae     .done
            jmp     .from
    .done:  ret
            .section .bss
            .align  8
    used_ranges:
            .zero   {USED_RANGES} * Range.SIZE
    free_count:
            .zero   8
    free_ranges:
            .zero   {FREE_RANGES} * Range.SIZE
    trampoline_pa:
            .zero   8
    """


def allocate() -> str:
    """Take memory from the end of the largest range of a NUMA node, else of the next node that has enough.

    In: rdi bytes, a multiple of the page size; esi NUMA node; rdx limit: only ranges that end at or below it.
    Out: rax physical address, 0 if there is none; ecx NUMA node it came from.
    Clobbers: rdx, r8 to r11. Stack: 16 bytes.
    """
    return """
    allocate:
            push    rbx
            mov     ecx, esi
            mov     ebx, MAX_NUMA_NODES
    .node:  xor     r8d, r8d                        # best range
            xor     r9d, r9d                        # its bytes
            lea     r10, [rip + free_ranges]
            mov     r11d, dword ptr [rip + free_count]
    .range: test    r11d, r11d
            je      .best
            cmp     qword ptr [r10 + Range.numa], rcx
            jne     .next
            mov     rax, qword ptr [r10 + Range.end]
            cmp     rax, rdx
            ja      .next
            sub     rax, qword ptr [r10 + Range.base]
            cmp     rax, r9
            jbe     .next
            mov     r9, rax
            mov     r8, r10
    .next:  add     r10, Range.SIZE
            dec     r11d
            jmp     .range
    .best:  cmp     r9, rdi
            jae     .take
            inc     ecx                             # the next node, round about
            and     ecx, MAX_NUMA_NODES - 1
            dec     ebx
            jne     .node
            xor     eax, eax
            pop     rbx
            ret
    .take:  mov     rax, qword ptr [r8 + Range.end]
            sub     rax, rdi
            mov     qword ptr [r8 + Range.end], rax
            pop     rbx
            ret
    """


ROUTINES = (list_free_memory, allocate)
