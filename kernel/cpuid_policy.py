"""CPUID as a guest sees it: the physical CPU's answer, through a table of masks.

Only what is listed is shown, so a feature that needs the host's help stays hidden until somebody thinks about it.
Hidden are SVM, x2APIC and the TSC deadline timer, MONITOR, machine checks, performance counters, power management and
topology.

Ref: SDM vol. 2A, CPUID; AMD64 APM vol. 3, appendix E.
"""

from sidecar.kernel.svm_messages import PAYLOAD

ALL = 0xFFFFFFFF


def bits(*numbers: int | range) -> int:
    """A mask of bit numbers and ranges of them."""
    return sum(1 << n for part in numbers for n in (part if isinstance(part, range) else (part,)))


_FEATURES_ECX = bits(0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 27, 28, 29, 30, 31)
"""SSE3 PCLMULQDQ SSSE3 FMA CX16 PCID SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE OSXSAVE AVX F16C RDRAND hypervisor."""
_FEATURES_EDX = bits(range(7), 8, 11, 12, 13, 15, 16, 17, 19, 23, 24, 25, 26, 27)
"""FPU VME DE PSE TSC MSR PAE CX8 SEP MTRR PGE CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2 SS."""
_STRUCTURED_EBX = bits(0, 3, 5, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31)
"""FSGSBASE BMI1 AVX2 SMEP BMI2 ERMS INVPCID AVX512F, DQ, RDSEED ADX SMAP IFMA CLFLUSHOPT CLWB AVX512CD, SHA, BW, VL."""
_STRUCTURED_ECX = bits(1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 16, 22, 27, 28)
"""VBMI UMIP PKU VBMI2 GFNI VAES VPCLMULQDQ VNNI BITALG VPOPCNTDQ LA57 RDPID MOVDIRI MOVDIR64B."""
_STRUCTURED_EDX = bits(4)
"""Fast short REP MOV."""
_EXTENDED_ECX = bits(0, 4, 5, 6, 7, 8, 11, 16, 21)
"""LAHF AltMovCr8 ABM SSE4A MisAlignSse 3DNowPrefetch XOP FMA4 TBM."""
_EXTENDED_EDX = _FEATURES_EDX & bits(range(10), range(12, 18), 23, 24) | bits(11, 20, 22, 26, 27, 29, 30, 31)
"""The old ones again, SYSCALL NX MMXEXT Page1GB RDTSCP LM 3DNowExt 3DNow."""

LAST_LEAF = 0xD
LAST_EXTENDED_LEAF = 0x80000008

POLICY: dict[int, tuple[int, int, int, int]] = {
    0: (ALL, ALL, ALL, ALL),
    1: (ALL, 0x0000FF00, _FEATURES_ECX, _FEATURES_EDX),
    2: (ALL, ALL, ALL, ALL),
    7: (0, _STRUCTURED_EBX, _STRUCTURED_ECX, _STRUCTURED_EDX),
    0xD: (ALL, ALL, ALL, 0),
    0x80000000: (ALL, ALL, ALL, ALL),
    0x80000001: (ALL, 0, _EXTENDED_ECX, _EXTENDED_EDX),
    **dict.fromkeys(range(0x80000002, 0x80000007), (ALL, ALL, ALL, ALL)),
    0x80000007: (0, 0, 0, bits(8)),
    0x80000008: (0x0000FFFF, 0, 0, 0),
}
"""Leaf to masks of EAX, EBX, ECX, EDX; a leaf that is not there answers zeros."""


def guest_cpuid() -> str:
    """What CPUID answers to a guest whose XCR0 is in the CPU.

    In: eax leaf, ecx subleaf. Out: eax, ebx, ecx, edx. Clobbers: rsi, rdi, r8, r9. Interrupts: off. Stack: none.
    """
    rows = "".join(
        f"""
            .long   {leaf:#x}, {", ".join(f"{mask:#x}" for mask in masks)}"""
        for leaf, masks in POLICY.items()
    )
    return f"""
    guest_cpuid:
            mov     r8d, eax                        # leaf
            mov     r9d, ecx                        # subleaf
            lea     rsi, [rip + cpuid_policy]
            mov     edi, {len(POLICY)}
    .find:  cmp     dword ptr [rsi], eax
            je      .found
            add     rsi, 20
            dec     edi
            jne     .find
    .zeros: xor     eax, eax
            xor     ebx, ebx
            xor     ecx, ecx
            xor     edx, edx
            ret
    .found: cpuid
            and     eax, dword ptr [rsi + 4]
            and     ebx, dword ptr [rsi + 8]
            and     ecx, dword ptr [rsi + 12]
            and     edx, dword ptr [rsi + 16]
            mov     esi, dword ptr [rip + vp_vmcb + Vmcb.cr4]
            cmp     r8d, 0
            je      .leaf_0
            cmp     r8d, 1
            je      .leaf_1
            cmp     r8d, 7
            je      .leaf_7
            cmp     r8d, 0xd
            je      .leaf_d
            cmp     r8d, 0x80000000
            je      .leaf_80000000
            ret
    .leaf_0:
            mov     edi, {LAST_LEAF:#x}
            cmp     eax, edi
            cmova   eax, edi
            ret
    .leaf_80000000:
            mov     edi, {LAST_EXTENDED_LEAF:#x}
            cmp     eax, edi
            cmova   eax, edi
            ret
    .leaf_1:
            mov     edi, dword ptr [rip + vp_globals + VpGlobals.vp.initial_apic_id]
            shl     edi, 24
            or      ebx, edi
            and     ecx, {~bits(27) & ALL:#x}       # OSXSAVE is the guest's CR4
            or      ecx, {bits(31):#x}              # there is a hypervisor
            test    esi, Cr4.OSXSAVE
            je      .done
            or      ecx, {bits(27):#x}
            ret
    .leaf_7:
            test    r9d, r9d
            jne     .zeros
            test    esi, Cr4.PKE                    # OSPKE likewise
            je      .done
            bt      ecx, 3
            jae     .done
            or      ecx, {bits(4):#x}
            ret
    .leaf_d:
            cmp     r9d, 1
            je      .leaf_d_1
            ja      .component
            and     eax, dword ptr [rip + vp_globals + VpGlobals.vp.xcr0_mask]
            ret
    .leaf_d_1:
            and     eax, {bits(0, 1, 2):#x}         # XSAVEOPT, XSAVEC, XGETBV with ECX 1; no XSAVES
            xor     ebx, ebx
            xor     ecx, ecx
            ret
    .component:
            cmp     r9d, 31
            ja      .zeros
            bt      dword ptr [rip + vp_globals + VpGlobals.vp.xcr0_mask], r9d
            jae     .zeros
    .done:  ret
            .section .rodata
            .align  4
    cpuid_policy:                                   # leaf, masks of EAX, EBX, ECX, EDX{rows}
    """


def exit_cpuid() -> str:
    """CPUID: answered here, or with what would be answered given to the VMM.

    In: the VMCB. Out: eax 0 or 1. Clobbers: rcx, rdx, rsi, rdi, r8 to r11. Interrupts: off.
    Stack: 40 bytes and those of its callees.
    """
    return f"""
    exit_cpuid:
            push    rbx
            mov     eax, dword ptr [rip + vp_globals + VpGlobals.vp.gps]
            mov     ecx, dword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 1]
            call    guest_cpuid
            test    dword ptr [rip + vp_globals + VpGlobals.vp.flags], RunFlags.CPUID_EXITS
            jne     .message
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.gps], rax
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 1], rcx
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 2], rdx
            mov     qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 3], rbx
            pop     rbx
            jmp     exit_two_bytes
    .message:
            push    rax
            push    rcx
            push    rdx
            call    instruction_length
            mov     ecx, eax
            mov     edi, HvMessageType.X64_CPUID_INTERCEPT
            mov     esi, CpuidMessage.SIZE
            mov     edx, HvInterceptAccess.EXECUTE
            call    begin_message
            mov     qword ptr [{PAYLOAD} + CpuidMessage.default_rbx], rbx
            pop     rax
            mov     qword ptr [{PAYLOAD} + CpuidMessage.default_rdx], rax
            pop     rax
            mov     qword ptr [{PAYLOAD} + CpuidMessage.default_rcx], rax
            pop     rax
            mov     qword ptr [{PAYLOAD} + CpuidMessage.default_rax], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps]
            mov     qword ptr [{PAYLOAD} + CpuidMessage.rax], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 1]
            mov     qword ptr [{PAYLOAD} + CpuidMessage.rcx], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 2]
            mov     qword ptr [{PAYLOAD} + CpuidMessage.rdx], rax
            mov     rax, qword ptr [rip + vp_globals + VpGlobals.vp.gps + 8 * 3]
            mov     qword ptr [{PAYLOAD} + CpuidMessage.rbx], rax
            pop     rbx
            mov     eax, 1
            ret
    """


ROUTINES = (guest_cpuid, exit_cpuid)
