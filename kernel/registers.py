"""GET_VP_REGISTERS and SET_VP_REGISTERS: the registers that exist without a guest, as state of the virtual processor.

SET never touches the physical CPU's debug registers or MTRRs. The client may change the page while the command runs:
every value is copied once, then checked, then used.

Ref: TLFS, "Virtual Processor Registers"; OpenHCL `sidecar_defs::GetSetVpRegisterRequest`.
"""

from sidecar.layout.command import VP_REGISTERS


def reset_vp() -> str:
    """Give the virtual processor its reset values.

    In: own tables. Clobbers: rcx, rsi, rdi. Interrupts: off. Stack: none.
    """
    def quads(values: list[int]) -> str:
        return ", ".join(f"{value:#x}" for value in values)

    return f"""
    reset_vp:
            lea     rsi, [rip + vp_register_reset]
            lea     rdi, [rip + vp_globals + VpGlobals.registers]
            mov     ecx, VP_REGISTER_COUNT
            rep movsq
            ret
            .section .rodata
            .align  8
    vp_register_reset:
            .quad   {quads([register.reset for register in VP_REGISTERS])}
    vp_register_writable:
            .quad   {quads([register.writable for register in VP_REGISTERS])}
    vp_register_names:
            .long   {quads([register.number for register in VP_REGISTERS])}
    """


def get_vp_registers() -> str:
    """Both commands: r13d tells them apart. The first bad register ends the command; those before it are done.

    In: eax command. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 64 bytes and command_error's.
    """
    return """
    get_vp_registers:
    set_vp_registers:
            push    rbx
            push    rbp
            push    r13
            push    r14
            sub     rsp, 24                         # arguments of a sentence
            mov     r13d, eax                       # the command
            mov     qword ptr [rsp], rax
            lea     rbp, [rip + command_page + CommandPage.request_data]
            mov     word ptr [rbp + GetSetVpRegisterRequest.status], HvStatus.SUCCESS
            movzx   ebx, word ptr [rbp + GetSetVpRegisterRequest.count]
            mov     qword ptr [rsp + 8], rbx
            lea     rsi, [rip + text_register_count]
            lea     eax, [rbx - 1]
            cmp     eax, MAX_REGISTERS
            jae     .bad
            movzx   eax, byte ptr [rbp + GetSetVpRegisterRequest.target_vtl]
            mov     qword ptr [rsp + 8], rax
            lea     rsi, [rip + text_register_vtl]
            test    eax, eax
            jne     .bad
            lea     r14, [rbp + GetSetVpRegisterRequest.SIZE]
    .next:  mov     edx, dword ptr [r14 + HvRegisterAssoc.name]
            mov     qword ptr [rsp + 8], rdx
            lea     rsi, [rip + vp_register_names]
            xor     ecx, ecx
    .find:  cmp     dword ptr [rsi + rcx*4], edx
            je      .found
            inc     ecx
            cmp     ecx, VP_REGISTER_COUNT
            jb      .find
            lea     rsi, [rip + text_register_unknown]
    .bad:   mov     word ptr [rbp + GetSetVpRegisterRequest.status], HvStatus.INVALID_PARAMETER
            mov     rdx, rsp
            call    command_error
            jmp     .done
    .found: lea     rdi, [rip + vp_globals + VpGlobals.registers]
            cmp     r13d, SidecarCommand.SET_VP_REGISTERS
            je      .set
            mov     rax, qword ptr [rdi + rcx*8]
            mov     qword ptr [r14 + HvRegisterAssoc.value], rax
            mov     qword ptr [r14 + HvRegisterAssoc.value_high], 0
    .stored:
            add     r14, HvRegisterAssoc.SIZE
            dec     ebx
            jne     .next
    .done:  add     rsp, 24
            pop     r14
            pop     r13
            pop     rbp
            pop     rbx
            ret
    .set:   lea     rsi, [rip + vp_register_writable]
            cmp     qword ptr [rsi + rcx*8], 0
            lea     rsi, [rip + text_register_read_only]
            je      .bad_value
            mov     rax, qword ptr [r14 + HvRegisterAssoc.value]
            mov     rdx, qword ptr [r14 + HvRegisterAssoc.value_high]
            mov     qword ptr [rsp + 16], rdx
            lea     rsi, [rip + text_register_high]
            test    rdx, rdx
            jne     .bad_value
            lea     rsi, [rip + vp_register_writable]
            mov     rdx, qword ptr [rsi + rcx*8]
            not     rdx
            and     rdx, rax                        # bits that may not be given
            mov     qword ptr [rsp + 16], rdx
            lea     rsi, [rip + text_register_bits]
            test    rdx, rdx
            jne     .bad_value
            lea     rsi, [rip + vp_register_reset]
            or      rax, qword ptr [rsi + rcx*8]        # bits that reset to 1 are hard-wired
            mov     qword ptr [rdi + rcx*8], rax
            jmp     .stored
    .bad_value:
            mov     word ptr [rbp + GetSetVpRegisterRequest.status], HvStatus.INVALID_REGISTER_VALUE
            mov     rdx, rsp
            call    command_error
            jmp     .done
            .section .rodata
    text_register_count:
            .asciz  "command %u: count %u, expected 1 to 31"
    text_register_vtl:
            .asciz  "command %u: target_vtl %u, expected 0"
    text_register_unknown:
            .asciz  "command %u: register %x is not known"
    text_register_high:
            .asciz  "command %u: register %x has 64 bits, its high half must be 0 and is %x"
    text_register_bits:
            .asciz  "command %u: register %x: bits %x must be 0"
    text_register_read_only:
            .asciz  "command %u: register %x is read-only"
    """


ROUTINES = (reset_vp, get_vp_registers)
