"""The boot bundle: checked before anything in it is used. A bundle that contradicts itself ends the machine.

Runs on the boot CPU. Layout and parties: `layout/boot.py`.
"""


def check_bundle() -> str:
    """Check head and parts, and find them.

    In: bundle_pa, bundle_bytes. Out: sidecar_part, linux_part, initramfs_part, command_line_part (addresses of
    BundlePart, 0 for none), or fatal.
    Clobbers: rax, rbx, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: as say.
    """
    return """
    check_bundle:
            mov     rbx, qword ptr [rip + bundle_pa]
            mov     rdx, qword ptr [rip + bundle_bytes]
            mov     ecx, Bundle.SIZE
            lea     rsi, [rip + text_bundle_short]
            cmp     rdx, rcx
            jb      fatal
            mov     rdx, qword ptr [rbx + Bundle.magic]
            mov     rcx, BUNDLE_MAGIC
            lea     rsi, [rip + text_bundle_magic]
            cmp     rdx, rcx
            jne     fatal
            mov     edx, dword ptr [rbx + Bundle.abi_version]
            mov     ecx, ABI_VERSION
            lea     rsi, [rip + text_bundle_version]
            cmp     edx, ecx
            jne     fatal
            mov     rdx, qword ptr [rbx + Bundle.abi_hash]
            mov     rcx, ABI_HASH
            lea     rsi, [rip + text_bundle_hash]
            cmp     rdx, rcx
            jne     fatal
            mov     rdx, qword ptr [rip + bundle_bytes]
            mov     rcx, qword ptr [rbx + Bundle.total_bytes]
            lea     rsi, [rip + text_bundle_truncated]
            cmp     rdx, rcx
            jb      fatal
            mov     edx, dword ptr [rbx + Bundle.part_count]
            lea     rsi, [rip + text_bundle_parts]
            lea     eax, [rdx - 1]
            cmp     eax, BUNDLE_PARTS
            jae     fatal
            mov     r9d, edx
            lea     rdi, [rbx + Bundle.parts]
            xor     r10d, r10d                      # number of the part
    .part:  mov     edx, r10d
            mov     rcx, qword ptr [rdi + BundlePart.offset]
            lea     rsi, [rip + text_part_offset]
            test    ecx, PAGE_SIZE - 1
            jne     fatal
            mov     r8, qword ptr [rdi + BundlePart.size]
            mov     rax, qword ptr [rbx + Bundle.total_bytes]
            lea     rsi, [rip + text_part_range]
            cmp     rcx, rax
            ja      fatal
            sub     rax, rcx
            cmp     r8, rax
            ja      fatal
            mov     eax, dword ptr [rdi + BundlePart.kind]
            cmp     eax, BundleKind.SIDECAR
            jne     .not_sidecar
            mov     qword ptr [rip + sidecar_part], rdi
            call    check_sum
    .not_sidecar:
            cmp     eax, BundleKind.LINUX
            jne     .not_linux
            mov     qword ptr [rip + linux_part], rdi
    .not_linux:
            cmp     eax, BundleKind.INITRAMFS
            jne     .not_initramfs
            mov     qword ptr [rip + initramfs_part], rdi
    .not_initramfs:
            cmp     eax, BundleKind.COMMAND_LINE
            jne     .next
            mov     qword ptr [rip + command_line_part], rdi
    .next:  add     rdi, BundlePart.SIZE
            inc     r10d
            cmp     r10d, r9d
            jb      .part
            ret

    check_sum:                                      # rdi part, r10d its number, rbx bundle; keeps rax
            push    rax
            mov     rsi, qword ptr [rdi + BundlePart.offset]
            add     rsi, rbx
            mov     rcx, qword ptr [rdi + BundlePart.size]
            add     rcx, 3
            shr     rcx, 2
            xor     eax, eax
            jmp     .test
    .word:  add     eax, dword ptr [rsi]
            add     rsi, 4
            dec     rcx
    .test:  test    rcx, rcx
            jne     .word
            mov     edx, r10d
            mov     ecx, eax
            mov     r8d, dword ptr [rdi + BundlePart.checksum]
            lea     rsi, [rip + text_part_checksum]
            cmp     ecx, r8d
            jne     fatal
            pop     rax
            ret
            .section .rodata
    text_bundle_short:
            .asciz  "fatal: bundle: %u bytes, expected at least %u"
    text_bundle_magic:
            .asciz  "fatal: bundle: magic %x, expected %x: -initrd names something else than a bundle"
    text_bundle_version:
            .asciz  "fatal: bundle: abi_version %u, expected %u: build bundle and shim together"
    text_bundle_hash:
            .asciz  "fatal: bundle: abi_hash %x, expected %x: build bundle and shim together"
    text_bundle_truncated:
            .asciz  "fatal: bundle: truncated: %u bytes of %u"
    text_bundle_parts:
            .asciz  "fatal: bundle: part_count %u, expected 1 to 8"
    text_part_offset:
            .asciz  "fatal: bundle: part %u has offset %x, expected page alignment"
    text_part_range:
            .asciz  "fatal: bundle: part %u at %x with %u bytes ends outside the bundle"
    text_part_checksum:
            .asciz  "fatal: bundle: part %u has checksum %x, expected %x"
            .section .bss
            .align  8
    sidecar_part:
            .zero   8
    linux_part:
            .zero   8
    initramfs_part:
            .zero   8
    command_line_part:
            .zero   8
    """


ROUTINES = (check_bundle,)
