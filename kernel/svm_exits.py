"""What to do about each exit: finished here, or a message to the VMM.

Each is jumped to by svm_exit and returns to the run loop: eax 0 to enter the guest again, 1 to end the run with the
message in the command page. MSRs, CPUID and memory have files of their own.

Ref: AMD64 APM vol. 2, 15.9 to 15.14 (intercepts), appendix C (exit codes and what EXITINFO holds).
"""

from sidecar.kernel.svm_messages import PAYLOAD
from sidecar.kernel.svm_state import GENERAL_PROTECTION
from sidecar.layout.svm import SvmExit

LAST_IN_TABLE = SvmExit.EFER_WRITTEN

_INVALID_OPCODE = (
    SvmExit.RSM, SvmExit.INVLPGA, SvmExit.VMRUN, SvmExit.VMMCALL, SvmExit.VMLOAD, SvmExit.VMSAVE, SvmExit.STGI,
    SvmExit.CLGI, SvmExit.SKINIT, SvmExit.MONITOR, SvmExit.MWAIT, SvmExit.MWAIT_ARMED, SvmExit.RDPRU,
)
HANDLERS: dict[int, str] = {
    **{SvmExit.EXCEPTION_0 + vector: "exit_exception" for vector in range(32)},
    SvmExit.CR8_WRITE: "exit_cr8",
    SvmExit.CR0_SELECTIVE: "exit_cr0",
    SvmExit.VINTR: "exit_vintr",
    SvmExit.RDPMC: "exit_general_protection",
    SvmExit.CPUID: "exit_cpuid",
    SvmExit.IRET: "exit_iret",
    SvmExit.INVD: "exit_two_bytes",
    SvmExit.PAUSE: "exit_two_bytes",
    SvmExit.HLT: "exit_hlt",
    SvmExit.IOIO: "exit_io",
    SvmExit.MSR: "exit_msr",
    SvmExit.SHUTDOWN: "exit_shutdown",
    SvmExit.XSETBV: "exit_xsetbv",
    **dict.fromkeys(_INVALID_OPCODE, "exit_invalid_opcode"),
}
"""SvmExit to routine; others are answered with exit_unknown. INTR to INIT are the run loop's."""

WITH_ERROR_CODE = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17
MACHINE_CHECK = 18


def svm_exit() -> str:
    """Handle an exit.

    In: rax exit code. Out: eax 0 or 1, by the handler it leads to. Clobbers: rcx, rdx, rsi, rdi, r8 to r11.
    Interrupts: off. Stack: 24 bytes and those of its callees.
    """
    table = ", ".join(HANDLERS.get(code, "exit_unknown") for code in range(LAST_IN_TABLE + 1))
    return f"""
    svm_exit:
            cmp     rax, {int(LAST_IN_TABLE)}
            ja      .far
            lea     rcx, [rip + svm_exits]
            jmp     qword ptr [rcx + rax*8]
    .far:   cmp     eax, SvmExit.NPF
            je      exit_memory
            cmp     eax, SvmExit.INVALID            # TCG stores only the low half
            je      exit_invalid
            jmp     exit_unknown
            .section .data.rel.ro
            .align  8
    svm_exits:                                      # by SvmExit
            .quad   {table}
    """


def exit_unknown() -> str:
    """An exit that this version asked for nowhere.

    In: the VMCB. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    """
    return f"""
    exit_unknown:
            mov     edi, HvMessageType.UNSUPPORTED_FEATURE
            mov     esi, UnsupportedFeatureMessage.SIZE
            call    begin_bare_message
            mov     dword ptr [{PAYLOAD} + UnsupportedFeatureMessage.feature_code], 1
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.exit_code]
            mov     qword ptr [{PAYLOAD} + UnsupportedFeatureMessage.feature_parameter], rax
            mov     eax, 1
            ret
    """


def begin_bare_message() -> str:
    """Write the head of a message that has no header but vp_index.

    In: edi HvMessageType, esi bytes of the payload. Clobbers: rax, rcx, rdx, rsi, rdi, r8. Interrupts: off.
    Stack: 16 bytes and those of its callees.
    """
    return f"""
    begin_bare_message:
            xor     edx, edx
            xor     ecx, ecx
            call    begin_message
            lea     rdi, [{PAYLOAD} + 8]
            xor     eax, eax
            mov     ecx, InterceptHeader.SIZE // 8 - 1
            rep stosq
            mov     dword ptr [{PAYLOAD} + InterceptHeader.vp_index + 4], eax
            ret
    """


def exit_invalid() -> str:
    """The processor refused the state. It is put back, for TCG has overwritten it with the sidecar's.

    The guest itself can come here where the processor lets it make such a state, as TCG does.
    In: the VMCB. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 24 bytes and those of its callees.
    """
    return """
    exit_invalid:
            lea     rsi, [rip + vp_globals + VpGlobals.save_area]
            lea     rdi, [rip + vp_vmcb + VMCB_SAVE_AREA]
            mov     ecx, VMCB_SAVE_BYTES // 8
            rep movsq
            mov     eax, SvmExit.INVALID
            mov     qword ptr [rip + vp_vmcb + Vmcb.exit_code], rax
            call    check_vmcb
            jmp     invalid_message
    """


def invalid_message() -> str:
    """State that no guest can be entered with.

    In: eax VmcbRule that is broken, 0 if none is known; rdx the value. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8.
    Interrupts: off. Stack: 24 bytes and those of its callees.
    """
    return f"""
    invalid_message:
            push    rax
            push    rdx
            mov     edi, HvMessageType.INVALID_VP_REGISTER_VALUE
            mov     esi, InvalidVpRegisterMessage.SIZE
            call    begin_bare_message
            pop     rdx
            pop     rax
            mov     dword ptr [{PAYLOAD} + InvalidVpRegisterMessage.rule], eax
            mov     qword ptr [{PAYLOAD} + InvalidVpRegisterMessage.value], rdx
            mov     eax, 1
            ret
    """


def exit_two_bytes() -> str:
    """PAUSE and INVD: nothing is done but to go on.

    In: the VMCB. Out: eax 0. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    """
    return """
    exit_two_bytes:
            call    instruction_length
            mov     edi, eax
            call    advance_guest
            xor     eax, eax
            ret
    """


def exit_hlt() -> str:
    """HLT: the VMM decides when the guest goes on.

    In: the VMCB. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    """
    return """
    exit_hlt:
            call    instruction_length
            mov     ecx, eax
            mov     edi, HvMessageType.X64_HALT
            mov     esi, HaltMessage.SIZE
            mov     edx, HvInterceptAccess.EXECUTE
            call    begin_message
            mov     eax, 1
            ret
    """


def exit_shutdown() -> str:
    """Triple fault: the guest cannot go on.

    In: the VMCB. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8. Interrupts: off.
    Stack: 8 bytes and those of its callees.
    """
    return """
    exit_shutdown:
            mov     edi, HvMessageType.UNRECOVERABLE_EXCEPTION
            mov     esi, UnrecoverableExceptionMessage.SIZE
            mov     edx, HvInterceptAccess.EXECUTE
            xor     ecx, ecx
            call    begin_message
            mov     eax, 1
            ret
    """


def exit_invalid_opcode() -> str:
    """What a guest is told not to have. Above privilege level 0 the processor has raised #GP by itself.

    In: the VMCB. Out: eax 0. Clobbers: rcx, rdi. Interrupts: off. Stack: none.
    """
    return f"""
    exit_invalid_opcode:
            mov     edi, Vector.INVALID_OPCODE
            jmp     raise_in_guest
    exit_general_protection:
            mov     edi, {GENERAL_PROTECTION:#x}
            jmp     raise_in_guest
    """


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


def exit_exception() -> str:
    """An exception of the guest: the VMM's if it asked for it, else delivered. A machine check is the machine's.

    In: rax exit code. Out: eax 0 or 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 16 bytes and those of its callees. Ref: APM vol. 2, 15.12.
    """
    return f"""
    exit_exception:
            lea     edi, [rax - SvmExit.EXCEPTION_0]
            bt      dword ptr [rip + vp_globals + VpGlobals.vp.exception_intercepts], edi
            jb      exception_message
            cmp     edi, {MACHINE_CHECK}
            je      .machine_check
            mov     eax, {WITH_ERROR_CODE:#x}
            bt      eax, edi
            jae     raise_in_guest
            cmp     edi, Vector.PAGE_FAULT
            jne     .code
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.exit_info_2]
            mov     qword ptr [rip + vp_vmcb + Vmcb.cr2], rax
    .code:  or      edi, {GENERAL_PROTECTION & ~0xFF:#x}
            call    raise_in_guest
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.exit_info_1]
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.pending_interruption + 4], ecx
            ret
    .machine_check:
            int     {MACHINE_CHECK}                 # recorded as a fault of this CPU
            xor     eax, eax
            ret
    """


def exception_message() -> str:
    """The exception as a message. It has not been delivered: the VMM can do so by a pending event.

    In: edi vector. Out: eax 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 16 bytes and those of its callees.
    """
    return f"""
    exception_message:
            push    rdi
            call    fetch_instruction
            mov     edi, HvMessageType.X64_EXCEPTION_INTERCEPT
            mov     esi, ExceptionMessage.SIZE
            mov     edx, HvInterceptAccess.EXECUTE
            xor     ecx, ecx
            call    begin_message
            pop     rdi
            mov     word ptr [{PAYLOAD} + ExceptionMessage.vector], di
            mov     eax, {WITH_ERROR_CODE:#x}
            bt      eax, edi
            jae     .no_code
            mov     byte ptr [{PAYLOAD} + ExceptionMessage.exception_info], HvExceptionInfo.ERROR_CODE_VALID
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.exit_info_1]
            mov     dword ptr [{PAYLOAD} + ExceptionMessage.error_code], eax
    .no_code:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.exit_info_2]
            cmp     edi, Vector.PAGE_FAULT
            je      .parameter
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.dr6]
            xor     eax, Dr.DR6_RESET
            cmp     edi, Vector.DEBUG
            je      .parameter
            xor     eax, eax
    .parameter:
            mov     qword ptr [{PAYLOAD} + ExceptionMessage.exception_parameter], rax
            lea     rdi, [{PAYLOAD} + ExceptionMessage.instruction_bytes]
            call    copy_instruction
            mov     byte ptr [{PAYLOAD} + ExceptionMessage.instruction_byte_count], al
            lea     rsi, [rip + vp_vmcb + Vmcb.ds]
            lea     rdi, [{PAYLOAD} + ExceptionMessage.ds]
            call    store_segment
            lea     rsi, [rip + vp_vmcb + Vmcb.ss]
            lea     rdi, [{PAYLOAD} + ExceptionMessage.ss]
            call    store_segment
            lea     rsi, [rip + vp_globals + VpGlobals.vp.gps]
            lea     rdi, [{PAYLOAD} + ExceptionMessage.registers]
            mov     ecx, ExceptionMessage.registers.COUNT
            rep movsq
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.rsp]
            mov     qword ptr [{PAYLOAD} + ExceptionMessage.registers + 8 * 4], rax
            mov     eax, 1
            ret
    """


def exit_memory() -> str:
    """Nested page fault. One that a change of the nested tables has made obsolete is tried again.

    The linear address is not known: the VMM has the instruction and the registers.
    In: the VMCB. Out: eax 0 or 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 24 bytes and those of its callees. Ref: APM vol. 2, 15.25.6, 15.33.5 (instruction bytes).
    """
    return f"""
    exit_memory:
            mov     rax, qword ptr [rip + privileged_page + PrivilegedPage.guest_generation]
            cmp     rax, qword ptr [rip + privileged_page + PrivilegedPage.seen_generation]
            je      .current
            xor     eax, eax
            ret
    .current:
            call    memory_instruction
            mov     ecx, dword ptr [rip + vp_vmcb + Vmcb.exit_info_1]
            mov     edx, HvInterceptAccess.EXECUTE
            test    ecx, NestedFault.EXECUTE
            jne     .access
            mov     edx, ecx
            shr     edx, 1
            and     edx, 1                          # READ 0, WRITE 1
    .access:
            mov     edi, HvMessageType.GPA_INTERCEPT
            test    ecx, NestedFault.PRESENT
            jne     .mapped
            mov     edi, HvMessageType.UNMAPPED_GPA
    .mapped:
            mov     esi, MemoryMessage.SIZE
            xor     ecx, ecx
            call    begin_message
            mov     dword ptr [{PAYLOAD} + MemoryMessage.cache_type], HvCacheType.WRITE_BACK
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.v_intr]
            and     eax, 15
            mov     byte ptr [{PAYLOAD} + MemoryMessage.tpr_priority], al
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.exit_info_2]
            mov     qword ptr [{PAYLOAD} + MemoryMessage.gpa], rax
            lea     rdi, [{PAYLOAD} + MemoryMessage.instruction_bytes]
            call    copy_instruction
            mov     byte ptr [{PAYLOAD} + MemoryMessage.instruction_byte_count], al
            mov     eax, 1
            ret
    """


ROUTINES = (
    svm_exit, exit_unknown, begin_bare_message, exit_invalid, invalid_message, exit_two_bytes, exit_hlt, exit_shutdown,
    exit_invalid_opcode, exit_io, exit_exception, exception_message, exit_memory,
)
