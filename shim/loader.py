"""The sidecar image, loaded: an ET_DYN file whose every loaded byte lies at its own offset from the base.

Runs on the boot CPU. The image relocates itself. Ref: ELF gABI, "ELF Header", "Program Header".
"""

from sidecar.layout.address_map import IMAGE_MAX_BYTES

HEADER_CHECKS = (
    # (name for the sentence, load of the value into edx, expected)
    ("magic", "mov edx, dword ptr [rbx]", "ELF_MAGIC"),
    ("class", "movzx edx, byte ptr [rbx + Elf64Ehdr.ei_class]", "2"),
    ("data encoding", "movzx edx, byte ptr [rbx + Elf64Ehdr.ei_data]", "1"),
    ("type", "movzx edx, word ptr [rbx + Elf64Ehdr.e_type]", "ElfType.ET_DYN"),
    ("machine", "movzx edx, word ptr [rbx + Elf64Ehdr.e_machine]", "Machine.EM_X86_64"),
    ("program header size", "movzx edx, word ptr [rbx + Elf64Ehdr.e_phentsize]", "Elf64Phdr.SIZE"),
)


def load_image() -> str:
    """Check the ELF file in the bundle, give it memory below 4 GiB, copy it there, clear its .bss.

    In: sidecar_part. Out: image_pa, image_bytes, image_entry, or no_sidecar. Clobbers: all. Stack: as say.
    """
    checks = "".join(
        f"""
            {load}
            mov     ecx, {expected}
            lea     rsi, [rip + text_elf_{index}]
            cmp     edx, ecx
            jne     no_sidecar"""
        for index, (_, load, expected) in enumerate(HEADER_CHECKS)
    )
    texts = "".join(
        f"""
    text_elf_{index}:
            .asciz  "the sidecar image has ELF {name} %x, expected %x\""""
        for index, (name, _, _) in enumerate(HEADER_CHECKS)
    )
    return f"""
    load_image:
            mov     rax, qword ptr [rip + sidecar_part]
            mov     rbx, qword ptr [rip + bundle_pa]
            add     rbx, qword ptr [rax + BundlePart.offset]
            mov     r12, qword ptr [rax + BundlePart.size]
            mov     rdx, r12
            mov     ecx, Elf64Ehdr.SIZE
            lea     rsi, [rip + text_elf_short]
            cmp     rdx, rcx
            jb      no_sidecar{checks}
            mov     rdx, qword ptr [rbx + Elf64Ehdr.e_phoff]
            movzx   r13d, word ptr [rbx + Elf64Ehdr.e_phnum]
            imul    eax, r13d, Elf64Phdr.SIZE
            mov     rcx, r12
            lea     rsi, [rip + text_elf_headers]
            cmp     rdx, r12
            ja      no_sidecar
            add     rax, rdx
            cmp     rax, r12
            ja      no_sidecar
            lea     rbp, [rbx + rdx]                # program headers
            xor     r14d, r14d                      # bytes in memory
            xor     r15d, r15d                      # bytes to copy
            xor     r8d, r8d                        # number of the header
            xor     r11d, r11d                      # executable segments with the entry in them
    .header:
            cmp     r8d, r13d
            jae     .loaded
            cmp     dword ptr [rbp + Elf64Phdr.p_type], SegmentType.PT_LOAD
            jne     .next
            mov     edx, r8d
            mov     rcx, qword ptr [rbp + Elf64Phdr.p_vaddr]
            lea     rsi, [rip + text_elf_offset]
            cmp     rcx, qword ptr [rbp + Elf64Phdr.p_offset]
            jne     no_sidecar
            lea     rsi, [rip + text_elf_segment]
            cmp     rcx, r12
            ja      no_sidecar
            mov     rax, qword ptr [rbp + Elf64Phdr.p_filesz]
            mov     r9, r12
            sub     r9, rcx
            cmp     rax, r9
            ja      no_sidecar
            mov     r9, qword ptr [rbp + Elf64Phdr.p_memsz]
            cmp     rax, r9
            ja      no_sidecar
            add     rax, rcx
            cmp     r15, rax
            cmovb   r15, rax
            test    dword ptr [rbp + Elf64Phdr.p_flags], SegmentFlag.PF_X
            je      .data
            mov     r10, qword ptr [rbx + Elf64Ehdr.e_entry]
            cmp     r10, rcx
            jb      .data
            cmp     r10, rax
            jae     .data
            inc     r11d
    .data:
            lea     rsi, [rip + text_elf_large]
            mov     eax, IMAGE_MAX_BYTES
            cmp     r9, rax
            ja      no_sidecar
            add     r9, rcx
            cmp     r9, rax
            ja      no_sidecar
            cmp     r14, r9
            cmovb   r14, r9
    .next:  add     rbp, Elf64Phdr.SIZE
            inc     r8d
            jmp     .header
    .loaded:
            mov     rdx, qword ptr [rbx + Elf64Ehdr.e_entry]
            lea     rsi, [rip + text_elf_entry]
            test    r11d, r11d
            je      no_sidecar
            mov     qword ptr [rip + image_entry], rdx
            lea     rdi, [r14 + PAGE_SIZE - 1]
            and     rdi, -PAGE_SIZE
            mov     qword ptr [rip + image_bytes], rdi
            xor     esi, esi
            mov     edx, 0xffffffff
            call    allocate
            lea     rsi, [rip + text_elf_memory]
            mov     rdx, r14
            test    rax, rax
            je      no_sidecar
            mov     qword ptr [rip + image_pa], rax
            add     qword ptr [rip + image_entry], rax
            mov     rdi, rax
            mov     rsi, rbx
            mov     rcx, r15
            rep movsb
            mov     rcx, qword ptr [rip + image_bytes]
            sub     rcx, r15
            xor     eax, eax
            rep stosb
            ret
            .section .rodata{texts}
    text_elf_short:
            .asciz  "the sidecar image has %u bytes, expected at least %u"
    text_elf_headers:
            .asciz  "the sidecar image has its program headers at %x, outside its %u bytes: truncated?"
    text_elf_offset:
            .asciz  "the sidecar image has segment %u at %x, not at its offset in the file"
    text_elf_segment:
            .asciz  "the sidecar image has segment %u at %x ending outside the file: truncated?"
    text_elf_large:
            .asciz  "the sidecar image has segment %u at %x ending beyond {IMAGE_MAX_BYTES:#x}"
    text_elf_entry:
            .asciz  "the sidecar image has its entry at %x, in no executable segment"
    text_elf_memory:
            .asciz  "not enough memory below 4 GiB for the sidecar image (%u bytes)"
            .section .bss
            .align  8
    image_pa:
            .zero   8
    image_bytes:
            .zero   8
    image_entry:
            .zero   8
    """


ROUTINES = (load_image,)
