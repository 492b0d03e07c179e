"""Exceptions and nested page faults of the guest: passed on to it, tried again, or a message to the VMM.

Ref: AMD64 APM vol. 2, 15.12 (exception intercepts), 15.25.6 (nested page faults), 15.33.5 (instruction bytes).
"""

from sidecar.kernel.svm_messages import PAYLOAD
from sidecar.kernel.svm_state import GENERAL_PROTECTION

WITH_ERROR_CODE = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17
MACHINE_CHECK = 18


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


ROUTINES = (exit_exception, exception_message, exit_memory)
