"""CPU state that INIT leaves alone, set or scrubbed on every arrival: a CPU that was Linux's brings Linux's values.

Ref: SDM vol. 3A, table 10-1 (state after INIT), vol. 4 (MSRs); AMD64 APM vol. 2, 14.1.3.
"""

SCRUBBED = (
    ("PAT", "PAT_RESET_VALUE"),
    ("DEBUGCTL", "0"),
    ("SYSENTER_CS", "0"),
    ("SYSENTER_ESP", "0"),
    ("SYSENTER_EIP", "0"),
    ("STAR", "0"),
    ("LSTAR", "0"),
    ("CSTAR", "0"),
    ("SFMASK", "0"),
    ("FS_BASE", "0"),
    ("GS_BASE", "0"),
    ("KERNEL_GS_BASE", "0"),
)


def scrub_state() -> str:
    """Set MSRs, control and debug registers, XCR0 and floating-point state to known values.

    In: own tables and IDT. Clobbers: rax, rcx, rdx, rbx, rsi, rdi. Interrupts: off. Stack: 16 bytes.
    """
    writes = "".join(
        f"""
            mov     ecx, Msr.{msr}
            mov     eax, {value} & 0xffffffff
            mov     edx, {value} >> 32
            wrmsr"""
        for msr, value in SCRUBBED
    )
    debug = "".join(f"\n            mov     dr{n}, rax" for n in range(4))
    return f"""
    scrub_state:
            push    rbx{writes}
            mov     eax, Cpuid.EXTENDED_FEATURES
            cpuid
            mov     edi, ecx
            mov     esi, edx
            xor     eax, eax
            xor     edx, edx
            bt      esi, Cpuid.EXT_EDX_RDTSCP_BIT
            jae     .no_rdtscp
            mov     ecx, Msr.TSC_AUX
            wrmsr
    .no_rdtscp:
            bt      edi, Cpuid.EXT_ECX_SVM_BIT
            jae     .no_svm
            mov     ecx, Msr.VM_HSAVE_PA
            wrmsr
    .no_svm:
            xor     eax, eax{debug}
            mov     eax, Dr.DR6_RESET
            mov     dr6, rax
            mov     eax, Dr.DR7_RESET
            mov     dr7, rax
            mov     esi, Cr4.PAE | Cr4.MCE | Cr4.OSFXSR | Cr4.OSXMMEXCPT
            mov     eax, Cpuid.FEATURES
            cpuid
            bt      ecx, Cpuid.ECX_XSAVE_BIT
            jae     .no_xsave
            or      esi, Cr4.OSXSAVE
            mov     cr4, rsi
            mov     eax, Cpuid.XSAVE_STATE
            xor     ecx, ecx
            cpuid                                   # edx:eax: all state components there are
            xor     ecx, ecx
            xsetbv
    .no_xsave:
            mov     cr4, rsi
            fninit
            ldmxcsr [rip + mxcsr_reset]
            pop     rbx
            ret
            .section .rodata
            .align  4
    mxcsr_reset:
            .long   Mxcsr.RESET
    """


ROUTINES = (scrub_state,)
