"""Guests of the comparison with KVM that ask what the processor has, and use it: CPUID, MSRs, vectors."""

from sidecar.layout.x86 import Msr
from tests.support.compared_guests import LOOK, long_mode

LEAVES = (
    *((leaf, 0) for leaf in (0, 1, 7, *range(0x80000000, 0x80000005), 0x80000008)), (7, 1), (0xD, 0), (0xD, 2),
    (0x20, 0), (0x40000000, 0), (0x80000009, 0),
)  # fmt: skip
CPUID = long_mode("".join(f"""
            mov     eax, {leaf:#x}
            mov     ecx, {subleaf}
            cpuid{LOOK}""" for leaf, subleaf in LEAVES) + """
            mov     rax, cr4
            or      rax, Cr4.OSXSAVE
            mov     cr4, rax
            mov     eax, 1
            cpuid""" + LOOK + """
            mov     eax, 7
            xor     ecx, ecx
            xor     edx, edx
            xsetbv
            mov     eax, 0xd
            cpuid""" + LOOK)

UNKNOWN_MSR = 0x12345
VALUES = (
    (Msr.PAT, 0x0007040600070406), (Msr.PAT, 0x0207040600070406), (Msr.STAR, 0x0023001000000000),
    (Msr.LSTAR, 0xFFFF800012345678), (Msr.CSTAR, 0x00007FFF12345678),
    (Msr.SFMASK, 0x47700), (Msr.KERNEL_GS_BASE, 0xFFFF888000001000),
    (Msr.FS_BASE, 0x00007F0012345000), (Msr.GS_BASE, 0xFFFF888000002000),
    (Msr.SYSENTER_CS, 0x10), (Msr.SYSENTER_ESP, 0x3000), (Msr.SYSENTER_EIP, 0x81000000),
    (Msr.EFER, 0xD01), (Msr.EFER, 0x501), (Msr.EFER, 0xD00), (Msr.EFER, 0xFD01), (Msr.EFER, 0x1D01),
    (Msr.MTRR_PHYS_BASE0, 0x80000000), (Msr.MTRR_PHYS_BASE0 + 1, 0x80000800),
    (Msr.MTRR_FIX64K_00000, 0x0606060606060606), (Msr.MTRR_FIX64K_00000, 0x0606060206060606),
    (Msr.MTRR_DEF_TYPE, 0xC06), (Msr.MTRR_DEF_TYPE, 0xC02), (Msr.MTRR_PHYS_BASE0, 0x80000002),
    (UNKNOWN_MSR, 0x1122334455667788),
)  # fmt: skip
MSRS = long_mode("            mov     ebx, 2\n" + "".join(f"""
            mov     ecx, {number:#x}
            mov     eax, {value & 0xFFFFFFFF:#x}
            mov     edx, {value >> 32:#x}
            wrmsr{LOOK}
            rdmsr{LOOK}""" for number, value in VALUES))

VECTORS = long_mode(f"""
            mov     rax, 0x1122334455667788
            movq    xmm0, rax
            movddup xmm1, xmm0
            movdqa  xmm15, xmm1{LOOK}
            paddq   xmm15, xmm0
            pxor    xmm1, xmm1{LOOK}
            mov     dword ptr [r14], 0x9f80
            ldmxcsr [r14]
            cvtsi2sd xmm2, rax
            sqrtsd  xmm3, xmm2{LOOK}
            fninit
            fld1
            fldpi
            .byte   0xd8, 0xc1{LOOK}
            mov     word ptr [r14], 0x27f
            fldcw   [r14]{LOOK}
            emms
            .byte   0x48, 0x0f, 0x6e, 0xd8{LOOK}
            emms
            mov     rax, cr4
            or      rax, Cr4.OSXSAVE
            mov     cr4, rax
            xor     ecx, ecx
            xor     edx, edx
            mov     eax, 7
            xsetbv{LOOK}
            vmovdqu ymm5, ymmword ptr [rip + long_mode]
            vpaddq  ymm6, ymm5, ymm5{LOOK}
            vzeroupper{LOOK}
            xgetbv{LOOK}
            mov     ebx, 3
            mov     eax, 2
            xsetbv{LOOK}
""")
