"""Guests of the comparison with KVM that reach devices: at ports, and at addresses without memory and in the ROM."""

from tests.support.compared_guests import DATA, MMIO, long_mode
from tests.support.in_guest.vp_run import ROM_ADDRESS

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
