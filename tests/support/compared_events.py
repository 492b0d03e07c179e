"""Guests of the comparison with KVM to which exceptions and interrupts happen."""

from tests.support.compared_guests import DATA, LOOK, PD, TASK, long_mode
from tests.support.in_guest.vp_run import INTERRUPT_PORT

ENTRY = f"[r14 - {DATA - PD - 0x400:#x}]"
"""In the page directory, what 0x10000000 is mapped by."""

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
            mov     qword ptr {ENTRY}, 0
            mov     cr3, rax
            mov     ebx, 2
            mov     ecx, 0x10000000
            mov     al, byte ptr [rcx]
            mov     dword ptr [rcx], eax
            mov     qword ptr {ENTRY}, 0x10000083
            mov     dword ptr [rcx], eax
            pushfq
            or      qword ptr [rsp], Rflags.TF
            popfq
            nop
            pushfq
            and     qword ptr [rsp], ~Rflags.TF
            popfq{LOOK}
""")

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

TRIPLE_FAULT = long_mode("""
            mov     word ptr [r14], 0
            lidt    [r14]
            ud2
""")
