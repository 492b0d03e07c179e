"""The instruction that made the guest exit: its length and its bytes.

Processors with next-RIP save and decode assists tell both; the others' guests are read.

Ref: AMD64 APM vol. 2, 15.7.1 (next RIP), 15.33.5 (instruction bytes).
"""


def instruction_length() -> str:
    """Bytes of the instruction that exited: the processor's answer if it gives one.

    In: edi bytes without prefixes. Out: eax. Clobbers: rcx. Interrupts: off. Stack: none.
    """
    return """
    instruction_length:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.n_rip]
            sub     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            lea     rcx, [rax - 1]
            cmp     rcx, 15
            jb      .done
            mov     eax, edi
    .done:  ret
    """


def memory_instruction() -> str:
    """The instruction of a nested page fault into VpState.instruction: from the processor, or read from the guest.

    In: the VMCB. Clobbers: rax, rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 192 bytes and those of its callees.
    """
    return """
    memory_instruction:
            movzx   eax, byte ptr [rip + vp_vmcb + Vmcb.bytes_fetched]
            and     eax, 15
            je      fetch_instruction
            mov     dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count], eax
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.instruction_bytes]
            mov     rcx, qword ptr [rip + vp_vmcb + Vmcb.instruction_bytes + 7]
            shr     rcx, 8                          # 15 bytes
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.instruction], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.instruction + 8], rcx
            ret
    """


ROUTINES = (instruction_length, memory_instruction)
