"""The VMCB checker: the manual's rules for VMRUN, tried before a run that follows a change of registers.

What hardware would refuse with an exit that names no reason is refused here with the rule. Runs on the CPU of the
virtual processor, on own tables, with the VMCB mapped.

Ref: AMD64 APM vol. 2, 15.5.1; the rules themselves are data in `layout/vmcb_rules.py`.
"""

from itertools import groupby

from sidecar.layout.vmcb_rules import (
    CR4_ALWAYS,
    CR4_FEATURES,
    EFER_ALWAYS,
    EFER_FEATURES,
    FeatureBit,
    VmcbLimit,
    entries,
)


def check_vmcb() -> str:
    """Find the first broken rule.

    In: own tables, vp_vmcb mapped. Out: eax VmcbRule, 0 if none is broken; rdx the 64 bits from the field on.
    Clobbers: rcx, rsi, rdi, r8 to r11. Interrupts: off. Stack: 24 bytes.
    """
    table = "".join(
        f"""
            .word   {entry["offset"]}
            .byte   {entry["rule"]}, {entry["last"]}, {entry["limit"]}, {entry["equal"]}
            .word   {entry["shows"]}
            .quad   {entry["mask"]:#x}, {entry["value"]:#x}"""
        for entry in entries()
    )
    return f"""
    check_vmcb:
            cmp     qword ptr [rip + vp_globals + VpGlobals.vp.missing_bits], 0
            jne     .known
            call    ask_missing_bits
    .known: lea     rsi, [rip + vmcb_tests]
            lea     rdi, [rip + vp_vmcb]
    .test:  movzx   eax, byte ptr [rsi + VmcbTestEntry.rule]
            test    eax, eax
            je      .done                           # the end of the table: nothing is broken
            movzx   ecx, word ptr [rsi + VmcbTestEntry.offset]
            mov     rdx, qword ptr [rdi + rcx]
            movzx   ecx, byte ptr [rsi + VmcbTestEntry.limit]
            mov     r8, qword ptr [rsi + VmcbTestEntry.mask]
            test    ecx, ecx
            je      .mask
            lea     r8, [rip + vp_globals + VpGlobals.vp.missing_bits - 8]
            mov     r8, qword ptr [r8 + rcx*8]
    .mask:  and     rdx, r8
            xor     r9d, r9d
            cmp     rdx, qword ptr [rsi + VmcbTestEntry.value]
            sete    r9b
            cmp     r9b, byte ptr [rsi + VmcbTestEntry.equal]
            jne     .skip
            cmp     byte ptr [rsi + VmcbTestEntry.last], 0
            jne     .broken
            add     rsi, VmcbTestEntry.SIZE
            jmp     .test
    .skip:  movzx   ecx, byte ptr [rsi + VmcbTestEntry.last]    # to the next alternative
            add     rsi, VmcbTestEntry.SIZE
            test    ecx, ecx
            je      .skip
            jmp     .test
    .broken:
            movzx   ecx, word ptr [rsi + VmcbTestEntry.shows]
            mov     rdx, qword ptr [rdi + rcx]
    .done:  ret
            .section .rodata
            .align  8
    vmcb_tests:{table}
            .zero   VmcbTestEntry.SIZE
    """


def ask_missing_bits() -> str:
    """What this processor lacks, as masks of reserved bits.

    In: own tables. Out: VpState.missing_bits. Clobbers: rax, rcx, rdx, rsi, r8 to r11. Interrupts: off.
    Stack: 8 bytes.
    """
    return f"""
    ask_missing_bits:
            push    rbx
            mov     eax, Cpuid.EXTENDED_MAX
            cpuid
            mov     r11d, eax
            xor     eax, eax
            cpuid
            mov     r10d, eax                       # r10d, r11d: highest leaves
            mov     r8d, {CR4_ALWAYS:#x}
            mov     r9d, {EFER_ALWAYS:#x}{_allow((("r8", CR4_FEATURES), ("r9", EFER_FEATURES)))}
            not     r8
            not     r9
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.missing_bits + {8 * VmcbLimit.CR4}], r8
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.missing_bits + {8 * VmcbLimit.EFER}], r9
            mov     eax, Cpuid.ADDRESS_SIZES
            cpuid
            movzx   ecx, al                         # bits of a physical address
            mov     rax, -1
            shl     rax, cl
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.missing_bits], rax
            pop     rbx
            ret
    """


def _allow(registers: tuple[tuple[str, tuple[FeatureBit, ...]], ...]) -> str:
    """Text: set the bits of `registers` that the processor has, leaf by leaf."""
    wanted = sorted(
        ((feature.leaf, feature.register, feature.cpuid_bit, into, feature.bit) for into, group in registers
         for feature in group),
    )
    text = ""
    for number, (leaf, features) in enumerate(groupby(wanted, key=lambda wish: wish[0])):
        text += f"""
            cmp     {"r11d" if leaf >> 31 else "r10d"}, {leaf:#x}
            jb      .without_{number}
            mov     eax, {leaf:#x}
            xor     ecx, ecx
            cpuid"""
        for _, register, cpuid_bit, into, bit in features:
            text += f"""
            bt      {register}, {cpuid_bit}
            jae     .not_{into}_{bit}
            bts     {into}, {bit}
    .not_{into}_{bit}:"""
        text += f"""
    .without_{number}:"""
    return text


ROUTINES = (check_vmcb, ask_missing_bits)
