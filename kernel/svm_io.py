"""I/O ports of the guest: those that an I/O permission map does not give it are the VMM's.

Ref: AMD64 APM vol. 2, 15.10 (I/O intercepts and what EXITINFO holds).
"""

from sidecar.kernel.svm_messages import PAYLOAD


def exit_io() -> str:
    """IN, OUT, INS, OUTS on a port that is not the guest's own. EXITINFO2 is the next instruction's address.

    In: the VMCB. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 16 bytes and those of its callees.
    """
    return f"""
    exit_io:
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count], 0
            test    dword ptr [rip + vp_vmcb + Vmcb.exit_info_1], IoExit.STRING
            je      .plain
            call    fetch_instruction
    .plain: mov     rcx, qword ptr [rip + vp_vmcb + Vmcb.exit_info_2]
            sub     rcx, qword ptr [rip + vp_vmcb + Vmcb.rip]
            and     ecx, 15
            mov     edx, dword ptr [rip + vp_vmcb + Vmcb.exit_info_1]
            not     edx
            and     edx, IoExit.IN                  # READ is 0, WRITE 1
            mov     edi, HvMessageType.X64_IO_PORT_INTERCEPT
            mov     esi, IoPortMessage.SIZE
            call    begin_message
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.exit_info_1]
            mov     ecx, eax
            shr     ecx, 16
            mov     word ptr [{PAYLOAD} + IoPortMessage.port], cx
            mov     ecx, eax
            shr     ecx, 4
            and     ecx, HvIoAccess.SIZE            # SIZE_8, SIZE_16, SIZE_32: 1, 2, 4
            and     eax, IoExit.STRING | IoExit.REP
            shl     eax, 1
            or      eax, ecx
            mov     byte ptr [{PAYLOAD} + IoPortMessage.access_info], al
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps]
            mov     qword ptr [{PAYLOAD} + IoPortMessage.rax], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 1]
            mov     qword ptr [{PAYLOAD} + IoPortMessage.rcx], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 6]
            mov     qword ptr [{PAYLOAD} + IoPortMessage.rsi], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 7]
            mov     qword ptr [{PAYLOAD} + IoPortMessage.rdi], rax
            lea     rsi, [rip + vp_vmcb + Vmcb.ds]
            lea     rdi, [{PAYLOAD} + IoPortMessage.ds]
            call    store_segment
            lea     rsi, [rip + vp_vmcb + Vmcb.es]
            lea     rdi, [{PAYLOAD} + IoPortMessage.es]
            call    store_segment
            cmp     dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count], 0
            je      .done
            lea     rdi, [{PAYLOAD} + IoPortMessage.instruction_bytes]
            call    copy_instruction
            mov     byte ptr [{PAYLOAD} + IoPortMessage.instruction_byte_count], al
    .done:  mov     eax, 1
            ret
    """


ROUTINES = (exit_io,)
