"""The shim's own IDT: a fault of the shim is a sentence and the end of the machine; interrupts are the relay's.

Runs on the boot CPU. Ref: SDM vol. 3A, 6.14.
"""

from enum import IntEnum

from sidecar.layout.x86 import EXCEPTION_VECTORS, VECTORS_WITH_ERROR_CODE


class ShimVector(IntEnum):
    """Vectors on the boot CPU while the shim owns it."""

    KICK = 0x30
    RESPONSE = 0x31


STUB_BYTES = 16


def load_idt() -> str:
    """Build and load the IDT: exception stubs, the relay's two vectors, and ignored ones.

    In: nothing. Clobbers: rax, rcx, rdx, rsi, rdi. Interrupts: off. Stack: 8 bytes.
    """
    stubs = ""
    for vector in range(EXCEPTION_VECTORS):
        if vector not in VECTORS_WITH_ERROR_CODE:
            stubs += "\n            push    0"
        stubs += f"\n            push    {vector}\n            jmp     shim_fault\n            .align  {STUB_BYTES}"
    return f"""
    load_idt:
            xor     ecx, ecx
    .gate:  lea     rdx, [rip + ignored_interrupt]
            cmp     ecx, {EXCEPTION_VECTORS}
            jae     .set
            mov     eax, ecx
            shl     eax, 4                          # STUB_BYTES
            lea     rdx, [rip + shim_stubs]
            add     rdx, rax
    .set:   call    set_gate
            inc     ecx
            cmp     ecx, 256
            jb      .gate
            lea     rdx, [rip + relay_kick]
            mov     ecx, ShimVector.KICK
            call    set_gate
            lea     rdx, [rip + relay_response]
            mov     ecx, ShimVector.RESPONSE
            call    set_gate
            lidt    [rip + shim_idt_pointer]
            ret

    set_gate:                                       # ecx vector, rdx handler; clobbers rax, rdi
            lea     rdi, [rip + shim_idt]
            mov     eax, ecx
            shl     eax, 4
            add     rdi, rax
            movzx   eax, dx
            or      eax, Selector.CODE64 << 16
            mov     dword ptr [rdi], eax
            mov     eax, edx
            and     eax, 0xffff0000
            or      eax, Gate.INTERRUPT << 8
            mov     dword ptr [rdi + 4], eax
            mov     rax, rdx
            shr     rax, 32
            mov     dword ptr [rdi + 8], eax
            mov     dword ptr [rdi + 12], 0
            ret

    ignored_interrupt:
            push    rax
            push    rcx
            push    rdx
            xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_EOI
            wrmsr
            pop     rdx
            pop     rcx
            pop     rax
            iretq

            .align  {STUB_BYTES}                    # as the stubs, so that a jump from them is as short as can be
    shim_fault:
            pop     rdx                             # vector
            pop     r8                              # error code
            pop     rcx                             # rip
            mov     r9, cr2
            lea     rsi, [rip + text_shim_fault]
            jmp     fatal

            .align  {STUB_BYTES}
    shim_stubs:{stubs}
            .section .rodata
    text_shim_fault:
            .asciz  "fatal: exception %u in the shim at %x, error code %x, cr2 %x"
            .align  8
            .word   0, 0, 0
    shim_idt_pointer:
            .word   256 * 16 - 1
            .quad   shim_idt
            .section .bss
            .align  PAGE_SIZE
    shim_idt:
            .zero   256 * 16
    """


ROUTINES = (load_idt,)
