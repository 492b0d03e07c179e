"""What to do about each exit: finished here, or a message to the VMM.

Each is jumped to by svm_exit and returns to the run loop: eax 0 to enter the guest again, 1 to end the run with the
message in the command page. I/O, MSRs, CPUID, faults and steps have files of their own.

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


ROUTINES = (
    svm_exit, exit_unknown, begin_bare_message, exit_invalid, invalid_message, exit_two_bytes, exit_hlt,
    exit_shutdown, exit_invalid_opcode,
)
