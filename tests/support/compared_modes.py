"""Guests of the comparison with KVM in all modes, and with the registers that make the modes."""

from tests.support.compared_guests import (
    CODE16,
    CODE32,
    DATA16,
    DATA_SEGMENT,
    LOOK,
    PORT,
    REAL_MMIO,
    TASK,
    long_mode,
    to_long,
    to_protected,
)  # fmt: skip

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
