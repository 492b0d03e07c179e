"""GET_VP_REGISTERS and SET_VP_REGISTERS: state of the virtual processor, with a guest or without.

Without a virtual processor there are its debug registers and MTRRs, kept in the globals page; with one, all of
layout/register_table.py. SET never touches the physical CPU's registers. The client may change the page while the
command runs: every value is copied once, then checked, then used.

Ref: TLFS, "Virtual Processor Registers"; OpenHCL `sidecar_defs::GetSetVpRegisterRequest`.
"""

from sidecar.kernel.registers_vp import NEEDS_VP
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
    """


def get_vp_registers() -> str:
    """Both commands: r13d tells them apart. The first bad register ends the command; those before it are done.

    In: eax command. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 80 bytes and those of its
    callees.
    """
    return f"""
    get_vp_registers:
    set_vp_registers:
            push    rbx
            push    rbp
            push    r12
            push    r13
            push    r14
            sub     rsp, 32                         # arguments of a sentence
            mov     r13d, eax                       # the command
            mov     qword ptr [rsp], rax
            lea     rbp, [rip + command_page + CommandPage.request_data]
            mov     word ptr [rbp + GetSetVpRegisterRequest.status], HvStatus.SUCCESS
            movzx   ebx, word ptr [rbp + GetSetVpRegisterRequest.count]
            mov     qword ptr [rsp + 8], rbx
            mov     ecx, HvStatus.INVALID_PARAMETER
            lea     rsi, [rip + text_register_count]
            lea     eax, [rbx - 1]
            cmp     eax, MAX_REGISTERS
            jae     .bad
            movzx   eax, byte ptr [rbp + GetSetVpRegisterRequest.target_vtl]
            mov     qword ptr [rsp + 8], rax
            lea     rsi, [rip + text_register_vtl]
            test    eax, eax
            jne     .bad
            call    prepare_vp
            mov     r12, rsi                        # why there is no virtual processor, 0 if there is one
            lea     r14, [rbp + GetSetVpRegisterRequest.SIZE]
    .next:  mov     edx, dword ptr [r14 + HvRegisterAssoc.name]
            mov     qword ptr [rsp + 8], rdx
            call    find_register
            test    rsi, rsi
            je      .unknown
            test    byte ptr [rsi + 3], {NEEDS_VP}
            je      .known
            test    r12, r12
            jne     .no_vp
    .known: cmp     r13d, SidecarCommand.SET_VP_REGISTERS
            je      .set
            call    read_register
            mov     qword ptr [r14 + HvRegisterAssoc.value], rax
            mov     qword ptr [r14 + HvRegisterAssoc.value_high], rdx
    .stored:
            add     r14, HvRegisterAssoc.SIZE
            dec     ebx
            jne     .next
    .done:  add     rsp, 32
            pop     r14
            pop     r13
            pop     r12
            pop     rbp
            pop     rbx
            ret
    .set:   test    byte ptr [rsi + 3], {NEEDS_VP}
            je      .value
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.check_needed], 1
            mov     byte ptr [rip + vp_vmcb + Vmcb.tlb_control], TlbControl.FLUSH_ALL
    .value: mov     rax, qword ptr [r14 + HvRegisterAssoc.value]
            mov     rdx, qword ptr [r14 + HvRegisterAssoc.value_high]
            call    write_register
            test    rsi, rsi
            je      .stored
            mov     qword ptr [rsp + 16], r8
            mov     qword ptr [rsp + 24], r9
            mov     ecx, HvStatus.INVALID_REGISTER_VALUE
            jmp     .bad
    .no_vp: mov     rsi, r12
            mov     ecx, HvStatus.INVALID_VP_STATE
            jmp     .bad
    .unknown:
            lea     rsi, [rip + text_register_unknown]
            mov     ecx, HvStatus.INVALID_PARAMETER
    .bad:   mov     word ptr [rbp + GetSetVpRegisterRequest.status], cx
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
    """


ROUTINES = (reset_vp, get_vp_registers)
