"""The sidecar's entry: a System V function that the shim calls on the BSP, before any other CPU runs.

Runs on the caller's stack and identity map, interrupts off, position independent: nothing here may use an absolute
address, for the image is relocated to IMAGE_VA, where only the other CPUs run it.
"""


def entry() -> str:
    """`bool entry(const SidecarParams *params, SidecarOutput *output)`.

    In: rdi params, rsi output, both identity-mapped; BSP in x2APIC mode. Out: rax 1, or 0 with output.error set.
    Clobbers: as System V allows. Interrupts: off. Stack: 64 bytes and those of its callees.
    """
    return """
    entry:  push    rbx
            push    rbp
            push    r12
            push    r13
            push    r14
            push    r15
            sub     rsp, 8
            mov     r15, rdi                        # params, for every step
            mov     r14, rsi                        # output, for every step
            mov     qword ptr [rip + entry_stack], rsp
            cld
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     qword ptr [r14 + SidecarOutput.entry_tsc], rax
            call    relocate_image
            call    check_params
            call    keep_params
            call    map_image
            call    map_transition
            call    prepare_nodes
            call    install_trampoline
            rdtsc
            shl     rdx, 32
            or      rax, rdx
            mov     qword ptr [r14 + SidecarOutput.first_init_tsc], rax
            call    start_all
            call    wait_for_all
            test    dword ptr [r15 + SidecarParams.flags], ParamsFlags.SERIAL_UNTIL_RETURN
            je      .log
            mov     dword ptr [rip + log_port], 0   # all CPUs are idle: none is writing
    .log:   mov     eax, 1
    .leave: add     rsp, 8
            pop     r15
            pop     r14
            pop     r13
            pop     r12
            pop     rbp
            pop     rbx
            ret

    entry_fail:                                     # from any step: rsi template, rdx, rcx, r8 its arguments
            mov     rsp, qword ptr [rip + entry_stack]
            sub     rsp, 32
            mov     qword ptr [rsp], rdx
            mov     qword ptr [rsp + 8], rcx
            mov     qword ptr [rsp + 16], r8
            mov     rdx, rsp
            lea     rdi, [r14 + SidecarOutput.error.text]
            mov     ecx, SidecarOutput.error.text.SIZE
            call    format_text
            mov     byte ptr [r14 + SidecarOutput.error.length], al
            add     rsp, 32
            xor     eax, eax
            jmp     .leave

            .section .bss
            .align  8
    entry_stack:
            .zero   8
    """


def relocate_image() -> str:
    """Apply .rela.dyn for IMAGE_VA: every R_X86_64_RELATIVE field gets IMAGE_VA plus its addend.

    In: r14 output. Out: relocated image, or entry_fail. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11.
    Interrupts: off. Stack: none. Ref: ELF gABI, "Dynamic Section"; x86-64 psABI, 4.4.1.
    """
    return """
    relocate_image:
            lea     rdi, [rip + _DYNAMIC]
            lea     r11, [rip + __ehdr_start]       # physical address of the image
            xor     r8d, r8d                        # DT_RELA
            xor     r9d, r9d                        # DT_RELASZ
    .tag:   mov     rax, qword ptr [rdi + Elf64Dyn.d_tag]
            mov     rdx, qword ptr [rdi + Elf64Dyn.d_un]
            add     rdi, Elf64Dyn.SIZE
            test    rax, rax                        # DT_NULL
            je      .apply
            cmp     rax, DynamicTag.DT_RELA
            cmove   r8, rdx
            cmp     rax, DynamicTag.DT_RELASZ
            cmove   r9, rdx
            jmp     .tag
    .apply: add     r8, r11
            mov     r10, IMAGE_VA
    .next:  sub     r9, Elf64Rela.SIZE
            jb      .done
            mov     rdx, qword ptr [r8 + Elf64Rela.r_info]
            mov     rcx, qword ptr [r8 + Elf64Rela.r_offset]
            lea     rsi, [rip + text_relocation]
            cmp     rdx, RelocationType.R_X86_64_RELATIVE
            jne     entry_fail
            lea     rsi, [rip + text_relocation_range]
            lea     rax, [rip + _end - 8]
            sub     rax, r11
            cmp     rcx, rax
            ja      entry_fail
            mov     rax, qword ptr [r8 + Elf64Rela.r_addend]
            add     rax, r10
            mov     qword ptr [r11 + rcx], rax
            add     r8, Elf64Rela.SIZE
            jmp     .next
    .done:  ret
            .section .rodata
    text_relocation:
            .asciz  "sidecar image: relocation type %u at %x, expected R_X86_64_RELATIVE (8)"
    text_relocation_range:
            .asciz  "sidecar image: relocation type %u at %x lies outside the image"
    """


ROUTINES = (entry, relocate_image)
