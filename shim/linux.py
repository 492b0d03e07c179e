"""The hand-over to Linux: bzImage by the 64-bit boot protocol.

Runs on the boot CPU, last. What the sidecar needs for good (its image, its nodes' memory, the trampoline page, the CPU
map and the ACPI tables) is reserved in the E820 map; everything else of the shim's may be overwritten by Linux.
Ref: Linux `Documentation/arch/x86/boot.rst`, "64-bit Boot Protocol".
"""

CHECKS = (
    # (name, load into edx, expected, jump if wrong)
    ("boot_flag", "movzx edx, word ptr [rbx + SetupHeader.boot_flag]", "LinuxBoot.BOOT_FLAG", "jne"),
    ("header", "mov edx, dword ptr [rbx + SetupHeader.header]", "LinuxBoot.HEADER_MAGIC", "jne"),
    ("version", "movzx edx, word ptr [rbx + SetupHeader.version]", "LinuxBoot.VERSION_2_12", "jb"),
)


def find_linux() -> str:
    """Check the bzImage in the bundle and say where it wants to run, before any memory is given away.

    In: linux_part. Out: linux_load_pa, linux_load_end, linux_image; zero without Linux; or fatal.
    Clobbers: rax, rbx, rcx, rdx, rsi. Interrupts: off. Stack: as say.
    """
    checks = "".join(
        f"""
            {load}
            mov     ecx, {expected}
            lea     rsi, [rip + text_linux_{name}]
            cmp     edx, ecx
            {jump}     fatal"""
        for name, load, expected, jump in CHECKS
    )
    texts = "".join(
        f"""
    text_linux_{name}:
            .asciz  "fatal: bundle: the Linux image has {name} %x, expected {'at least ' if jump == 'jb' else ''}%x\""""
        for name, _, _, jump in CHECKS
    )
    return f"""
    find_linux:
            mov     rax, qword ptr [rip + linux_part]
            test    rax, rax
            je      .none
            mov     rbx, qword ptr [rip + bundle_pa]
            add     rbx, qword ptr [rax + BundlePart.offset]
            mov     qword ptr [rip + linux_image], rbx
            mov     rdx, qword ptr [rax + BundlePart.size]
            mov     ecx, PAGE_SIZE
            lea     rsi, [rip + text_linux_short]
            cmp     rdx, rcx
            jb      fatal{checks}
            lea     rsi, [rip + text_linux_32]
            test    word ptr [rbx + SetupHeader.xloadflags], LinuxBoot.XLF_KERNEL_64
            je      fatal
            mov     rdx, qword ptr [rax + BundlePart.size]
            movzx   ecx, byte ptr [rbx + SetupHeader.setup_sects]
            inc     ecx
            shl     ecx, 9                          # LinuxBoot.SECTOR_BYTES
            lea     rsi, [rip + text_linux_setup]
            cmp     rdx, rcx
            jbe     fatal
            sub     rdx, rcx
            mov     ecx, dword ptr [rbx + SetupHeader.init_size]
            lea     rsi, [rip + text_linux_size]
            cmp     rdx, rcx
            ja      fatal
            mov     rdx, qword ptr [rbx + SetupHeader.pref_address]
            mov     qword ptr [rip + linux_load_pa], rdx
            lea     rsi, [rip + text_linux_memory]
            add     rcx, rdx
            jb      fatal
            mov     qword ptr [rip + linux_load_end], rcx
    .none:  ret
            .section .rodata{texts}
    text_linux_short:
            .asciz  "fatal: bundle: the Linux image has %u bytes, expected at least %u"
    text_linux_setup:
            .asciz  "fatal: bundle: the Linux image has %u bytes, its setup code alone %u: truncated?"
    text_linux_size:
            .asciz  "fatal: bundle: the Linux image has %u bytes to load, more than its init_size %u"
    text_linux_32:
            .asciz  "fatal: bundle: the Linux image has no 64-bit entry"
            .section .bss
            .align  8
    linux_image:
            .zero   8
    linux_load_pa:
            .zero   8
    linux_load_end:
            .zero   8
    """


def boot_linux() -> str:
    """Put Linux and its boot_params in place and jump to it.

    In: find_linux's results, command_line; with the sidecar: node_count, rsdp. Never returns.
    """
    return """
    boot_linux:
            call    check_linux_memory
            mov     rbx, qword ptr [rip + linux_image]
            lea     rdi, [rip + boot_params + SetupHeader.setup_sects]
            lea     rsi, [rbx + SetupHeader.setup_sects]
            movzx   ecx, byte ptr [rbx + SetupHeader.jump_offset]
            add     ecx, SetupHeader.header - SetupHeader.setup_sects
            rep movsb
            lea     rbp, [rip + boot_params]
            mov     byte ptr [rbp + SetupHeader.type_of_loader], LinuxBoot.LOADER_UNDEFINED
            or      byte ptr [rbp + SetupHeader.loadflags], LinuxBoot.LOADED_HIGH
            call    finish_command_line
            lea     rax, [rip + command_line]
            mov     dword ptr [rbp + SetupHeader.cmd_line_ptr], eax
            mov     rax, qword ptr [rip + initramfs_part]
            test    rax, rax
            je      .no_initramfs
            mov     rcx, qword ptr [rip + bundle_pa]
            add     rcx, qword ptr [rax + BundlePart.offset]
            mov     dword ptr [rbp + SetupHeader.ramdisk_image], ecx
            shr     rcx, 32
            mov     dword ptr [rbp + BootParams.ext_ramdisk_image], ecx
            mov     rcx, qword ptr [rax + BundlePart.size]
            mov     dword ptr [rbp + SetupHeader.ramdisk_size], ecx
            shr     rcx, 32
            mov     dword ptr [rbp + BootParams.ext_ramdisk_size], ecx
    .no_initramfs:
            mov     rax, qword ptr [rip + rsdp_pa]
            cmp     dword ptr [rip + node_count], 0
            je      .firmware
            lea     rax, [rip + rsdp]
    .firmware:
            mov     qword ptr [rbp + BootParams.acpi_rsdp_addr], rax
            call    write_e820
            movzx   eax, byte ptr [rbx + SetupHeader.setup_sects]
            test    eax, eax
            jne     .sectors
            mov     eax, 4                          # an old image's way to say four
    .sectors:
            inc     eax
            shl     eax, 9                          # LinuxBoot.SECTOR_BYTES
            lea     rsi, [rbx + rax]
            mov     rcx, qword ptr [rip + linux_part]
            mov     rcx, qword ptr [rcx + BundlePart.size]
            sub     rcx, rax
            mov     rdi, qword ptr [rip + linux_load_pa]
            add     rcx, 7
            shr     rcx, 3
            lea     rax, [rdi + LinuxBoot.ENTRY_64_OFFSET]
            rep movsq
            mov     rsi, rbp
            lgdt    [rip + linux_gdt_pointer]
            mov     ecx, LinuxBoot.BOOT_DS
            mov     ds, ecx
            mov     es, ecx
            mov     ss, ecx
            push    LinuxBoot.BOOT_CS
            push    rax
            retfq
            .section .rodata
            .align  8
    linux_gdt:
            .quad   0, 0, Descriptor.CODE64, Descriptor.DATA
            .word   0, 0, 0
    linux_gdt_pointer:
            .word   4 * 8 - 1
            .quad   linux_gdt
            .section .bss
            .align  PAGE_SIZE
    boot_params:
            .zero   PAGE_SIZE
    """


def check_linux_memory() -> str:
    """Is where Linux wants to run one piece of RAM, and not what is copied from?

    In: linux_load_pa, linux_load_end, memory_map, bundle. Out: returns, or fatal.
    Clobbers: rax, rcx, rdx, rsi, rdi, r8.
    """
    return """
    check_linux_memory:
            mov     rdx, qword ptr [rip + linux_load_pa]
            mov     rcx, qword ptr [rip + linux_load_end]
            lea     rsi, [rip + text_linux_overlap]
            mov     rax, qword ptr [rip + bundle_pa]
            cmp     rcx, rax
            jbe     .clear
            add     rax, qword ptr [rip + bundle_bytes]
            cmp     rdx, rax
            jb      fatal
    .clear: lea     rax, [rip + shim_start]
            cmp     rdx, rax
            jb      fatal
            lea     rax, [rip + _end]
            cmp     rdx, rax
            jb      fatal
            lea     rsi, [rip + text_linux_memory]
            lea     rdi, [rip + memory_map]
            mov     r8d, dword ptr [rip + memory_map_count]
    .entry: sub     r8d, 1
            jb      fatal
            mov     rax, qword ptr [rdi + HvmMemoryMapEntry.addr]
            cmp     rax, rdx
            ja      .next
            add     rax, qword ptr [rdi + HvmMemoryMapEntry.size]
            cmp     rax, rcx
            jb      .next
            cmp     dword ptr [rdi + HvmMemoryMapEntry.type], E820Type.RAM
            jne     .next
            ret
    .next:  add     rdi, HvmMemoryMapEntry.SIZE
            jmp     .entry
            .section .rodata
    text_linux_memory:
            .asciz  "fatal: no RAM from %x to %x, where Linux wants to run: give the machine more memory"
    text_linux_overlap:
            .asciz  "fatal: shim or bundle lies between %x and %x, where Linux wants to run: give it more memory"
    """


def finish_command_line() -> str:
    """Append what keeps Linux off the sidecar's CPUs.

    maxcpus=1: Linux boots one CPU. no_ipi_broadcast=1: once all CPUs have been online, it would otherwise send to CPUs
    that have returned.
    In: command_line, node_count. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Stack: as say.
    """
    return """
    finish_command_line:
            cmp     dword ptr [rip + node_count], 0
            je      .done
            lea     rsi, [rip + text_one_cpu_only]
            call    append_command_line
    .done:  ret
            .section .rodata
    text_one_cpu_only:
            .asciz  " maxcpus=1 no_ipi_broadcast=1"
    """


ROUTINES = (find_linux, boot_linux, check_linux_memory, finish_command_line)
