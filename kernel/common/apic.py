"""The local APIC, brought to x2APIC mode: on the boot CPU by the shim, on every other CPU by its arrival.

Ref: SDM vol. 3A, 11.4.7 (states), 11.12 (x2APIC).
"""


def enable_x2apic() -> str:
    """Bring the APIC to x2APIC mode from whatever mode it is in, and enable it.

    From disabled, the manual allows only the step over xAPIC mode; both steps are harmless in x2APIC mode.
    In: nothing. Clobbers: rax, rcx, rdx. Interrupts: off. Stack: none.
    """
    return """
    enable_x2apic:
            mov     ecx, Msr.APIC_BASE
            rdmsr
            or      eax, ApicBase.EN
            wrmsr
            or      eax, ApicBase.EXTD
            wrmsr
            xor     eax, eax
            xor     edx, edx
            mov     ecx, Msr.X2APIC_TPR
            wrmsr
            mov     ecx, Msr.X2APIC_ESR
            wrmsr
            mov     eax, Sivr.APIC_SOFTWARE_ENABLE | SPURIOUS_VECTOR
            mov     ecx, Msr.X2APIC_SIVR
            wrmsr
            ret
    """


ROUTINES = (enable_x2apic,)
