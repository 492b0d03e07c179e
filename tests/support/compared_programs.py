"""What the guests of the comparison with KVM do: one program for each kind of thing that a guest can do.

LOOK is an exit that has no meaning, so that all registers are looked at there. Left out is what the emulation of SVM
under TCG does otherwise than hardware: it lets a guest set reserved bits of CR0 and CR4, where KVM looks itself, and
gives addresses that are not canonical to MSRs that KVM does not intercept.
"""

from sidecar.layout.x86 import Msr
from tests.support.compared_guests import (
    CODE16,
    CODE32,
    DATA,
    DATA16,
    DATA_SEGMENT,
    LOOK,
    MMIO,
    PD,
    PORT,
    REAL_MMIO,
    TASK,
    long_mode,
    to_long,
    to_protected,
)  # fmt: skip
from tests.support.in_guest.vp_run import INTERRUPT_PORT, ROM_ADDRESS

PORTS = """
            mov     edx, 0x3f8
            mov     eax, 0x11223344
            out     dx, al
            out     dx, ax
            out     dx, eax
            out     0x70, al
            out     0x71, ax
            mov     edx, 0xcfc
            out     dx, eax
            in      al, 0x60
            in      ax, 0x62
            in      eax, 0x64
            in      al, dx
            in      ax, dx
            in      eax, dx
            mov     sp, 0x7000
            mov     edi, 0x4000
            insb
            insw
            insd
            mov     ecx, 5
            rep insb
            mov     ecx, 4
            rep insw
            mov     ecx, 3
            rep insd
            mov     esi, 0x4000
            outsb
            outsw
            outsd
            mov     ecx, 5
            rep outsb
            mov     ecx, 4
            rep outsw
            mov     ecx, 3
            rep outsd
            std
            mov     ecx, 3
            rep insb
            mov     ecx, 3
            rep outsw
            cld
            xor     ecx, ecx
            rep insb
            rep outsb
            mov     edi, 0x4ffb
            mov     ecx, 7
            rep insw
            hlt
"""

REAL = f"""
            mov     ax, {REAL_MMIO >> 4:#x}
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            mov     sp, 0x1000
            xor     ebx, ebx
            mov     al, byte ptr [bx]
            mov     ax, word ptr [bx + 2]
            mov     eax, dword ptr [bx + 4]
            mov     byte ptr [bx + 1], ah
            mov     word ptr [bx + 3], ax
            mov     dword ptr [bx + 5], eax
            mov     word ptr [bx + 8], 0x1234
            add     word ptr [bx + 8], ax
            xor     ecx, ecx
            mov     ss, ecx
            mov     sp, 0x7000
            mov     di, 0x100
            mov     cx, 3
            rep stosw
            sti
            int     0x21
            mov     dx, 0xe1
            mov     al, 0x30
            out     dx, al
            nop
            nop
            hlt
            cli
            hlt
"""

MODES = LOOK + to_protected(LOOK) + to_long(LOOK) + f"""
            sub     rsp, 16
            lea     ecx, [rip + compatible]
            mov     dword ptr [rsp], ecx
            mov     dword ptr [rsp + 4], {CODE32}
            .byte   0xcb
            .code32
    compatible:
            out     {PORT}, al
            mov     eax, cr0
            and     eax, ~Cr0.PG
            mov     cr0, eax
            out     {PORT}, al
            mov     ecx, Msr.EFER
            xor     eax, eax
            xor     edx, edx
            wrmsr
            xor     eax, eax
            mov     cr4, eax
            out     {PORT}, al
            .byte   0xea
            .long   sixteen
            .word   {CODE16}
            .code16
    sixteen:
            mov     ax, {DATA16}
            mov     ds, eax
            mov     es, eax
            mov     ss, eax
            mov     fs, eax
            mov     gs, eax
            out     {PORT}, al
            mov     eax, cr0
            and     eax, ~Cr0.PE
            mov     cr0, eax
            out     {PORT}, al
            .byte   0xea
            .word   real_again, 0
    real_again:
            xor     eax, eax
            mov     ds, eax
            mov     ss, eax
            mov     es, eax
            out     {PORT}, al
            hlt
"""

MEMORY = long_mode(f"""
            mov     esi, r15d
            mov     al, byte ptr [r15]
            mov     ah, byte ptr [rsi + 1]
            mov     ax, word ptr [r15 + 2]
            mov     eax, dword ptr [r15 + 4]
            mov     rax, qword ptr [r15 + 8]
            mov     rcx, 0x1122334455667788
            mov     byte ptr [r15], cl
            mov     byte ptr [rsi], ch
            mov     word ptr [r15 + 2], cx
            mov     dword ptr [r15 + 4], ecx
            mov     qword ptr [r15 + 8], rcx
            mov     byte ptr [r15], 0x5a
            mov     word ptr [r15], 0x5a5a
            mov     dword ptr [r15], 0x5a5a5a5a
            mov     qword ptr [r15], -2
            movzx   edx, byte ptr [r15]
            movzx   rdx, word ptr [r15]
            movsx   edx, byte ptr [r15]
            movsx   rdx, word ptr [r15]
            movsxd  rdx, dword ptr [r15]
            xchg    dword ptr [r15], edx
            add     dword ptr [r15], ecx
            add     ecx, dword ptr [r15]
            adc     rcx, qword ptr [r15]
            sub     byte ptr [r15], 1
            sbb     word ptr [r15], cx
            and     dword ptr [r15], 0xff
            or      rcx, qword ptr [r15]
            xor     byte ptr [r15], cl
            cmp     dword ptr [r15], ecx
            cmp     rcx, qword ptr [r15]
            test    byte ptr [r15], 0x10
            inc     word ptr [r15]
            dec     qword ptr [r15]
            neg     dword ptr [r15]
            not     dword ptr [r15]
            xadd    dword ptr [r15], ecx
            cmpxchg dword ptr [r15], ecx
            bts     dword ptr [r15], 7
            bt      dword ptr [r15], 3
            btr     dword ptr [r15], 7
            btc     dword ptr [r15], 9
            sete    byte ptr [r15]
            setne   byte ptr [r15]
            cmovne  rax, qword ptr [r15]
            movbe   eax, dword ptr [r15]
            movbe   dword ptr [r15], eax
            movnti  dword ptr [r15], eax
            movdqu  xmm1, xmmword ptr [r15]
            movdqu  xmmword ptr [r15], xmm1
            mov     rax, qword ptr [r15 + r12*8 + 0x10]
            mov     edi, {MMIO}
            mov     ecx, 3
            rep stosd
            mov     esi, {DATA}
            mov     ecx, 3
            rep movsb
            mov     esi, {MMIO}
            mov     edi, {DATA}
            mov     ecx, 3
            rep movsw
            lodsq
            std
            mov     ecx, 2
            rep lodsb
            cld
            mov     eax, dword ptr [r15 + 0xffe]
            mov     dword ptr [r15 + 0xffe], eax
            mov     dword ptr [r15 + {ROM_ADDRESS - MMIO:#x}], eax
            mov     eax, dword ptr [r15 + {ROM_ADDRESS - MMIO:#x}]
""")

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

EXCEPTIONS = long_mode(f"""
            mov     ebx, 2
            xor     ecx, ecx
            div     ecx
            ud2
            int3
            int     0x30
            mov     eax, 0x123
            mov     ds, eax
            mov     eax, {TASK}
            mov     es, eax
            mov     rax, 0x8000000000000000
            mov     al, byte ptr [rax]
            mov     rax, cr0
            or      rax, Cr0.TS
            mov     cr0, rax
            fninit
            clts
            mov     rax, cr3
            mov     qword ptr [r14 - {DATA - PD - 0x400:#x}], 0
            mov     cr3, rax
            mov     ebx, 2
            mov     ecx, 0x10000000
            mov     al, byte ptr [rcx]
            mov     dword ptr [rcx], eax
            mov     qword ptr [r14 - {DATA - PD - 0x400:#x}], 0x10000083
            mov     dword ptr [rcx], eax
            pushfq
            or      qword ptr [rsp], Rflags.TF
            popfq
            nop
            pushfq
            and     qword ptr [rsp], ~Rflags.TF
            popfq{LOOK}
""".replace(f"[r14 - {DATA - PD - 0x400:#x}]", "[r14 - 0x10c00]").replace("-0x10c00", f"- {DATA - PD - 0x400:#x}"))

INTERRUPTS = long_mode(f"""
            sti
            hlt
            mov     al, 0x41
            out     {INTERRUPT_PORT}, al
            nop
            nop
            cli
            mov     al, 0x30
            out     {INTERRUPT_PORT}, al
            nop{LOOK}
            sti
            nop
            nop{LOOK}
            cli
            out     {INTERRUPT_PORT}, al
            sti
            cli
            nop{LOOK}
            mov     eax, ss
            sti
            mov     ss, eax
            nop
            nop{LOOK}
            sti
            hlt
            cli
""")

CONTROL = long_mode(f"""
            mov     rax, cr0
            or      rax, Cr0.MP
            mov     cr0, rax{LOOK}
            or      rax, Cr0.TS
            mov     cr0, rax{LOOK}
            clts{LOOK}
            smsw    eax{LOOK}
            mov     rax, cr4
            or      rax, Cr4.PGE
            mov     cr4, rax{LOOK}
            mov     eax, 5
            mov     cr8, rax
            xor     eax, eax
            mov     rax, cr8{LOOK}
            mov     rax, 0x123456789abc
            mov     cr2, rax{LOOK}
            mov     dr0, rax
            mov     dr3, rax
            mov     eax, 0x400
            mov     dr7, rax{LOOK}
            mov     rax, dr6{LOOK}
            mov     rax, dr7{LOOK}
            mov     eax, {TASK}
            ltr     ax{LOOK}
            xor     eax, eax
            lldt    ax{LOOK}
            mov     fs, eax
            mov     gs, eax{LOOK}
            mov     eax, {DATA_SEGMENT}
            mov     fs, eax{LOOK}
            sgdt    [r14]
            sidt    [r14 + 16]
            mov     rax, qword ptr [r14 + 2]
            mov     rcx, qword ptr [r14 + 18]{LOOK}
""")

TRIPLE_FAULT = long_mode("""
            mov     word ptr [r14], 0
            lidt    [r14]
            ud2
""")

GUESTS: dict[str, str] = {
    "ports": PORTS, "real": REAL, "modes": MODES, "memory": MEMORY, "cpuid": CPUID, "msrs": MSRS, "vectors": VECTORS,
    "exceptions": EXCEPTIONS, "interrupts": INTERRUPTS, "control": CONTROL, "triple-fault": TRIPLE_FAULT,
}  # fmt: skip
