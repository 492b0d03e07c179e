"""Page tables that all CPUs share: the image's own table, and the transition tables on which a CPU arrives.

Built once, on the BSP, before the first INIT; never written afterwards. The image's rights come from its own program
headers: no page is both writable and executable, and what relocation has finished with is read-only. So are these
tables themselves: a CPU that runs wild cannot take the others' mappings with it.

Ref: SDM vol. 3A, 4.5 (4-level paging).
"""

from collections.abc import Mapping

from sidecar.layout.msr_map import cleared_bits
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.svm import IOPM_PAGES, MSRPM_PAGES

PERMISSION_PAGES = IOPM_PAGES + MSRPM_PAGES
TABLES = ("image_table", "transition_pml4", "low_pdpt", "low_pd", "low_table", "high_pdpt", "high_pd")
"""One page each, in .bss; read-only as soon as CPUs run on them."""


def read_only_pages(symbols: Mapping[str, int]) -> list[int]:
    """Offsets of the pages of .bss that no CPU may write: the tables, and the permission maps behind them."""
    maps = symbols["permission_maps"]
    return [symbols[table] for table in TABLES] + [maps + page * PAGE_SIZE for page in range(PERMISSION_PAGES)]


def map_image() -> str:
    """Fill image_table: the image by 4 KiB pages with its segments' rights, and the CPU map at the end.

    In: r15 params, r14 output. Out: returns, or entry_fail. Clobbers: rax, rcx, rdx, rsi, rdi, rbx, rbp, r8 to r13.
    Interrupts: off. Stack: none. Ref: ELF gABI, "Program Header"; PT_GNU_RELRO: System V psABI, GNU extensions.
    """
    return """
    map_image:
            lea     r11, [rip + __ehdr_start]
            mov     r8, qword ptr [r11 + Elf64Ehdr.e_phoff]
            add     r8, r11
            movzx   r9d, word ptr [r11 + Elf64Ehdr.e_phnum]
            lea     r10, [rip + image_table]
            mov     rbx, Pte.NX
    .header:
            mov     eax, dword ptr [r8 + Elf64Phdr.p_type]
            mov     rcx, qword ptr [r8 + Elf64Phdr.p_vaddr]
            mov     rdx, qword ptr [r8 + Elf64Phdr.p_memsz]
            lea     rdx, [rdx + rcx + PAGE_SIZE - 1]
            shr     rcx, 12                         # first page
            shr     rdx, 12                         # beyond the last page
            cmp     rdx, IMAGE_MAX_BYTES // PAGE_SIZE
            ja      .too_large
            cmp     eax, SegmentType.PT_GNU_RELRO
            je      .read_only
            cmp     eax, SegmentType.PT_LOAD
            jne     .next_header
            mov     rdi, Pte.PRESENT                # rights of the segment
            mov     esi, dword ptr [r8 + Elf64Phdr.p_flags]
            mov     ebp, esi
            not     ebp
            test    ebp, SegmentFlag.PF_W | SegmentFlag.PF_X
            je      .both
            test    esi, SegmentFlag.PF_X
            jne     .executable
            or      rdi, rbx
    .executable:
            test    esi, SegmentFlag.PF_W
            je      .page
            or      rdi, Pte.WRITE
    .page:  cmp     rcx, rdx
            jae     .next_header
            mov     rax, rcx
            shl     rax, 12
            add     rax, r11
            or      rax, rdi
            mov     qword ptr [r10 + rcx*8], rax
            inc     rcx
            jmp     .page
    .read_only:
            cmp     rcx, rdx
            jae     .next_header
            and     qword ptr [r10 + rcx*8], ~Pte.WRITE
            inc     rcx
            jmp     .read_only
    .next_header:
            add     r8, Elf64Phdr.SIZE
            dec     r9d
            jne     .header
            lea     rcx, [rip + _end + PAGE_SIZE - 1]
            sub     rcx, r11
            shr     rcx, 12                         # pages that this image was linked with
            xor     edx, edx
            lea     rsi, [rip + text_image_page]
    .whole: cmp     qword ptr [r10 + rdx*8], 0
            je      entry_fail
            inc     edx
            cmp     edx, ecx
            jb      .whole
            mov     eax, dword ptr [r15 + SidecarParams.cpu_map_count]
            add     eax, PAGE_SIZE // CpuMapEntry.SIZE - 1
            shr     eax, 8                          # pages of 256 entries
            mov     rdi, qword ptr [r15 + SidecarParams.cpu_map_pa]
            or      rdi, Pte.PRESENT
            or      rdi, rbx
            mov     ecx, CPU_MAP_SLOT
    .map:   mov     qword ptr [r10 + rcx*8], rdi
            add     rdi, PAGE_SIZE
            inc     ecx
            dec     eax
            jne     .map
            ret
    .too_large:
            lea     rsi, [rip + text_image_size]
            mov     ecx, IMAGE_MAX_BYTES // PAGE_SIZE
            jmp     entry_fail
    .both:  lea     rsi, [rip + text_image_rights]
            mov     rdx, rcx
            jmp     entry_fail
            .section .rodata
    text_image_rights:
            .asciz  "sidecar image: the segment from page %u on is both writable and executable"
    text_image_page:
            .asciz  "sidecar image: page %u of its %u is in no segment"
    text_image_size:
            .asciz  "sidecar image: a segment ends at page %u, expected at most %u"
    """


def map_transition() -> str:
    """Link the transition tables: the trampoline page at its own address, the image at IMAGE_VA, tables read-only.

    The node windows are added by prepare_nodes.
    The permission maps of SVM lie behind the tables, and are filled here: in the file they would be five pages of ones.
    In: r15 params. Clobbers: rax, rcx, rdx, rsi, rdi. Interrupts: off. Stack: none. Ref: APM vol. 2, 15.10.1, 15.11.
    """

    def link(table: str, slot: str, target: str) -> str:
        return f"""
            lea     rax, [rip + {target}]
            or      rax, Pte.PRESENT | Pte.WRITE
            mov     qword ptr [rip + {table} + 8 * ({slot})], rax"""

    passed = "".join(
        f"""
            and     byte ptr [rip + permission_maps + {IOPM_PAGES} * PAGE_SIZE + {byte:#x}], {~bits & 0xFF:#x}"""
        for byte, bits in cleared_bits().items()
    )
    tables = "".join(
        f"""
    {table}:
            .zero   PAGE_SIZE"""
        for table in TABLES
    )
    return f"""
    map_transition:{link("transition_pml4", "0", "low_pdpt")}{link("low_pdpt", "0", "low_pd")}
            {link("low_pd", "0", "low_table")}
            {link("transition_pml4", "PML4_SLOT", "high_pdpt")}{link("high_pdpt", "0", "high_pd")}
            {link("high_pd", "PdSlot.IMAGE", "image_table")}
            mov     rax, qword ptr [r15 + SidecarParams.trampoline_pa]
            mov     rcx, rax
            shr     rcx, 12
            or      rax, Pte.PRESENT                # executable, so not writable
            lea     rdx, [rip + low_table]
            mov     qword ptr [rdx + rcx*8], rax
            lea     rax, [rip + transition_pml4]
            mov     qword ptr [rip + transition_cr3], rax
            lea     rax, [rip + image_table]
            mov     qword ptr [rip + image_table_pa], rax
            lea     rdx, [rip + permission_maps]
            mov     qword ptr [rip + permission_maps_pa], rdx
            lea     rdi, [rip + permission_maps]
            mov     ecx, {PERMISSION_PAGES} * PAGE_SIZE // 8
            or      rax, -1
            rep stosq{passed}
            lea     rax, [rip + image_table]
            mov     esi, {len(TABLES) + PERMISSION_PAGES}
            lea     rcx, [rip + {TABLES[0]}]
            lea     rdx, [rip + __ehdr_start]
            sub     rcx, rdx
            shr     rcx, 12                         # first page of the tables in the image
    .read_only:
            and     qword ptr [rax + rcx*8], ~Pte.WRITE
            inc     rcx
            dec     esi
            jne     .read_only
            ret
            .section .bss
            .align  PAGE_SIZE{tables}
    permission_maps:                                # I/O, three pages, and MSRs, two: one for all CPUs
            .zero   {PERMISSION_PAGES} * PAGE_SIZE
    transition_cr3:                                 # physical addresses, for CPUs that run at IMAGE_VA
            .zero   8
    image_table_pa:
            .zero   8
    permission_maps_pa:
            .zero   8
    """


ROUTINES = (map_image, map_transition)
