"""The instruction that made the guest exit: its length and its bytes.

Processors with next-RIP save and decode assists tell both; the others' guests are read.

Ref: AMD64 APM vol. 2, 15.7.1 (next RIP), 15.33.5 (instruction bytes).
"""


PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3)
"""Legacy prefixes. Ref: APM vol. 3, 1.2.1."""


def instruction_length() -> str:
    """Bytes of the instruction that exited: the processor's answer if it gives one, else read from the guest.

    Of the instructions that exit with a length, HLT and PAUSE have one byte of opcode, XSETBV three, the others two. If
    the guest's memory does not show one of them (any more), it is taken to have no prefix.
    In: edi bytes without prefixes. Out: eax. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 16 bytes and those of its callees.
    """
    return """
    instruction_length:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.n_rip]
            sub     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            lea     rcx, [rax - 1]
            cmp     rcx, 15
            jb      .done
            push    rdi
            call    fetch_instruction
            call    skip_prefixes
            pop     rax
            mov     edx, dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count]
            sub     edx, edi
            jbe     .done
            lea     r8d, [rdi + 1]
            movzx   ecx, word ptr [rcx + rdi]
            cmp     cl, 0xf4                        # HLT
            je      .found
            cmp     cl, 0x90                        # PAUSE
            je      .found
            cmp     cl, 0x0f
            jne     .done
            cmp     edx, 2
            jb      .done
            inc     r8d
            cmp     ch, 0x01                        # XSETBV
            jne     .found
            inc     r8d
    .found: mov     eax, r8d
    .done:  ret
    """


def skip_prefixes() -> str:
    """Where in VpState.instruction does the opcode begin?

    Out: edi offset, not more than instruction_count; rcx address of VpState.instruction; r8d REX prefix, 0 if there is
    none. Clobbers: rax, rdx, rsi. Interrupts: off. Stack: none.
    """
    prefixes = "".join(
        f"""
            cmp     al, {prefix:#x}
            je      .legacy"""
        for prefix in PREFIXES
    )
    return f"""
    skip_prefixes:
            lea     rcx, [rip + vp_globals + VpGlobals.vp.instruction]
            mov     edx, dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count]
            xor     edi, edi
            xor     r8d, r8d
    .prefix:
            cmp     edi, edx
            jae     .done
            movzx   eax, byte ptr [rcx + rdi]{prefixes}
            test    word ptr [rip + vp_vmcb + Vmcb.cs.attributes], VmcbAttribute.LONG
            je      .done
            mov     esi, eax
            and     esi, 0xf0
            cmp     esi, 0x40
            jne     .done
            mov     r8d, eax
            jmp     .next
    .legacy:
            xor     r8d, r8d                        # a REX prefix counts only right before the opcode
    .next:  inc     edi
            jmp     .prefix
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


ROUTINES = (instruction_length, skip_prefixes, memory_instruction)
