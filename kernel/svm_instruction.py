"""The instruction that made the guest exit: its length and its bytes.

Processors with next-RIP save and decode assists tell both; the others' guests are read, for lengths through `svm_code`.

Ref: AMD64 APM vol. 2, 15.7.1 (next RIP), 15.33.5 (instruction bytes).
"""


from dataclasses import dataclass

from sidecar.layout.svm import SvmExit

PREFIXES = (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3)
"""Legacy prefixes. Ref: APM vol. 3, 1.2.1."""


@dataclass(frozen=True, slots=True)
class Exiting:
    """An instruction whose length is asked for: opcode as a number, its bits that count, its bytes; usual length."""

    exit: SvmExit
    opcode: int
    mask: int
    bytes: int
    usual: int


EXITING = (
    Exiting(SvmExit.CPUID, 0xA20F, 0xFFFF, 2, 2),
    Exiting(SvmExit.MSR, 0x300F, 0xFDFF, 2, 2),  # RDMSR is 0F 32
    Exiting(SvmExit.HLT, 0xF4, 0xFF, 1, 1),
    Exiting(SvmExit.PAUSE, 0x90, 0xFF, 1, 2),  # NOP with F3
    Exiting(SvmExit.XSETBV, 0xD1010F, 0xFFFFFF, 3, 3),
    Exiting(SvmExit.INVD, 0x080F, 0xFFFF, 2, 2),
)


def instruction_length() -> str:
    """Bytes of the instruction that exited: the processor's answer if it gives one, else read from the guest.

    If the guest's memory does not show that instruction (any more), it is taken to have no more prefixes than usual.
    In: the VMCB, with one of EXITING. Out: eax. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 16 bytes and those of its callees.
    """
    rows = "".join(
        f"""
            .long   {row.exit:#x}, {row.opcode:#x}, {row.mask:#x}, {row.bytes}, {row.usual}"""
        for row in EXITING
    )
    return f"""
    instruction_length:
            mov     rax, qword ptr [rip + vp_vmcb + Vmcb.n_rip]
            sub     rax, qword ptr [rip + vp_vmcb + Vmcb.rip]
            lea     rcx, [rax - 1]
            cmp     rcx, 15
            jb      .done
            push    rbx
            mov     eax, dword ptr [rip + vp_vmcb + Vmcb.exit_code]
            lea     rbx, [rip + exiting - {ROW_BYTES}]
    .find:  add     rbx, {ROW_BYTES}
            cmp     dword ptr [rbx], eax
            jne     .find
            call    read_code
            test    eax, eax
            je      .fetch
            call    match_opcode
            test    eax, eax
            jne     .known
    .fetch: call    fetch_instruction
            call    match_opcode
            test    eax, eax
            jne     .known
            mov     eax, dword ptr [rbx + 16]
    .known: pop     rbx
    .done:  ret
            .section .rodata
            .align  4
    exiting:                                        # SvmExit, opcode, mask, bytes, usual length{rows}
    """


ROW_BYTES = 20


def match_opcode() -> str:
    """Is the instruction in VpState.instruction the one that exited?

    In: rbx row of `exiting`. Out: eax its bytes, 0 if it is another one. Clobbers: rcx, rdx, rsi, rdi, r8.
    Interrupts: off. Stack: 8 bytes.
    """
    return """
    match_opcode:
            call    skip_prefixes
            mov     eax, dword ptr [rbx + 12]
            add     eax, edi                        # bytes with prefixes
            cmp     eax, dword ptr [rip + vp_globals + VpGlobals.vp.instruction_count]
            ja      .other
            mov     edx, dword ptr [rcx + rdi]      # may reach beyond the bytes, into other fields
            and     edx, dword ptr [rbx + 8]
            cmp     edx, dword ptr [rbx + 4]
            je      .done
    .other: xor     eax, eax
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
    Stack: 200 bytes and those of its callees.
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


ROUTINES = (instruction_length, match_opcode, skip_prefixes, memory_instruction)
