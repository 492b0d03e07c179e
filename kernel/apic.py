"""Telling the node's base CPU, through the x2APIC.

Ref: SDM vol. 3A, 11.12.9 (ICR), 11.12.3 (MSR writes are not serialising), 11.5.2 (valid interrupt vectors).
"""

from sidecar.layout.x86 import EXCEPTION_VECTORS

INTERRUPT_VECTORS = 256 - EXCEPTION_VECTORS


def raise_attention() -> str:
    """Set the node's needs_attention and interrupt the CPU that the driver named, if it named one.

    A vector below 32 is none: the CPU that got it would take it for an exception.
    In: own tables; status already stored. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return f"""
    raise_attention:
            mov     dword ptr [rip + control_page + ControlPage.needs_attention], 1
            mov     rdx, qword ptr [rip + control_page + ControlPage.response_cpu]  # the pair, in one load
            mov     rax, rdx
            shr     rax, 32                         # response_vector
            lea     ecx, [rax - {EXCEPTION_VECTORS}]
            cmp     ecx, {INTERRUPT_VECTORS}
            jae     .silent
            or      eax, Icr.FIXED
            mfence                                  # x2APIC ICR writes are not serialising
            lfence
            mov     ecx, Msr.X2APIC_ICR
            wrmsr                                   # edx: response_cpu
    .silent:
            ret
    """


ROUTINES = (raise_attention,)
