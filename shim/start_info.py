"""What the PVH loader handed over: command line, memory map, the bundle as the first module.

All is copied into the shim's own memory at once: what it points at may lie anywhere.
Ref: Xen public headers, `arch-x86/hvm/start_info.h`.
"""

MEMORY_MAP_ENTRIES = 128


def read_start_info() -> str:
    """Copy and check. In: rbx HvmStartInfo. Out: variables below, or fatal. Clobbers: all but rbx. Interrupts: off."""
    return f"""
    read_start_info:
            mov     edx, dword ptr [rbx + HvmStartInfo.magic]
            mov     ecx, HVM_START_MAGIC
            lea     rsi, [rip + text_start_magic]
            cmp     edx, ecx
            jne     fatal
            mov     rax, qword ptr [rbx + HvmStartInfo.rsdp_paddr]
            mov     qword ptr [rip + rsdp_pa], rax
            mov     rsi, qword ptr [rbx + HvmStartInfo.cmdline_paddr]
            lea     rdi, [rip + command_line]
            test    rsi, rsi
            je      .map
            mov     ecx, LinuxBoot.COMMAND_LINE_BYTES - 1
    .copy:  movzx   eax, byte ptr [rsi]
            test    al, al
            je      .map
            mov     byte ptr [rdi], al
            inc     rsi
            inc     rdi
            dec     ecx
            jne     .copy
    .map:   mov     rsi, qword ptr [rbx + HvmStartInfo.memmap_paddr]
            mov     ecx, dword ptr [rbx + HvmStartInfo.memmap_entries]
            cmp     ecx, {MEMORY_MAP_ENTRIES}
            jbe     .room
            mov     ecx, {MEMORY_MAP_ENTRIES}
    .room:  mov     dword ptr [rip + memory_map_count], ecx
            lea     rdi, [rip + memory_map]
            imul    ecx, ecx, HvmMemoryMapEntry.SIZE
            rep movsb
            lea     rsi, [rip + text_no_memory_map]
            cmp     dword ptr [rip + memory_map_count], 0
            je      fatal
            lea     rsi, [rip + text_no_bundle]
            cmp     dword ptr [rbx + HvmStartInfo.nr_modules], 0
            je      fatal
            mov     rax, qword ptr [rbx + HvmStartInfo.modlist_paddr]
            mov     rcx, qword ptr [rax + HvmModule.paddr]
            mov     qword ptr [rip + bundle_pa], rcx
            mov     rcx, qword ptr [rax + HvmModule.size]
            mov     qword ptr [rip + bundle_bytes], rcx
            ret
            .section .rodata
    text_start_magic:
            .asciz  "fatal: PVH start info has magic %x, expected %x"
    text_no_memory_map:
            .asciz  "fatal: the loader gave no memory map"
    text_no_bundle:
            .asciz  "fatal: the loader gave no bundle: start QEMU with -initrd and the file that `sidecar build` wrote"
            .section .bss
            .align  8
    rsdp_pa:
            .zero   8
    bundle_pa:
            .zero   8
    bundle_bytes:
            .zero   8
    memory_map_count:
            .zero   8
    memory_map:
            .zero   {MEMORY_MAP_ENTRIES} * HvmMemoryMapEntry.SIZE
    command_line:
            .zero   LinuxBoot.COMMAND_LINE_BYTES
    """


def add_bundle_line() -> str:
    """Append the bundle's command line to the machine's: one line for options and Linux alike.

    In: command_line_part. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: as say.
    """
    return """
    add_bundle_line:
            mov     rax, qword ptr [rip + command_line_part]
            test    rax, rax
            je      .none
            lea     rsi, [rip + text_blank]
            call    append_command_line
            mov     rax, qword ptr [rip + command_line_part]
            mov     rsi, qword ptr [rip + bundle_pa]
            add     rsi, qword ptr [rax + BundlePart.offset]
            mov     ecx, dword ptr [rax + BundlePart.size]
            jmp     append_bytes
    .none:  ret

    append_command_line:                            # rsi zero-terminated text
            mov     ecx, LinuxBoot.COMMAND_LINE_BYTES

    append_bytes:                                   # rsi text, at most ecx bytes
            lea     rdi, [rip + command_line]
            lea     rdx, [rdi + LinuxBoot.COMMAND_LINE_BYTES - 1]
    .end:   cmp     byte ptr [rdi], 0
            je      .byte
            inc     rdi
            jmp     .end
    .byte:  test    ecx, ecx
            je      .done
            movzx   eax, byte ptr [rsi]
            test    al, al
            je      .done
            cmp     rdi, rdx
            jae     .full
            mov     byte ptr [rdi], al
            inc     rsi
            inc     rdi
            dec     ecx
            jmp     .byte
    .done:  ret
    .full:  lea     rsi, [rip + text_line_full]
            mov     edx, LinuxBoot.COMMAND_LINE_BYTES
            jmp     say
            .section .rodata
    text_blank:
            .asciz  " "
    text_line_full:
            .asciz  "note: the command line is longer than %u bytes and was cut"
    """


ROUTINES = (read_start_info, add_bundle_line)
