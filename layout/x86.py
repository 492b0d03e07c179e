"""The x86-64 facts that kernel, shim and tools use, once, under the manual's names.

Ref: Intel SDM vol. 3A (chapters 2, 4, 6, 11 "APIC", 18) and vol. 4 "Model-Specific Registers"; AMD64 APM vol. 2.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Cr0(IntFlag):
    """Ref: SDM vol. 3A, 2.5."""

    PE = 1 << 0
    MP = 1 << 1
    EM = 1 << 2
    TS = 1 << 3
    ET = 1 << 4
    NE = 1 << 5
    WP = 1 << 16
    AM = 1 << 18
    NW = 1 << 29
    CD = 1 << 30
    PG = 1 << 31


class Cr4(IntFlag):
    """Ref: SDM vol. 3A, 2.5."""

    VME = 1 << 0
    PVI = 1 << 1
    TSD = 1 << 2
    DE = 1 << 3
    PSE = 1 << 4
    PAE = 1 << 5
    MCE = 1 << 6
    PGE = 1 << 7
    PCE = 1 << 8
    OSFXSR = 1 << 9
    OSXMMEXCPT = 1 << 10
    UMIP = 1 << 11
    LA57 = 1 << 12
    FSGSBASE = 1 << 16
    PCIDE = 1 << 17
    OSXSAVE = 1 << 18
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23


class Efer(IntFlag):
    """Ref: APM vol. 2, 3.1.7."""

    SCE = 1 << 0
    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11
    SVME = 1 << 12
    FFXSR = 1 << 14


class Rflags(IntFlag):
    """Ref: SDM vol. 1, 3.4.3."""

    FIXED = 1 << 1
    TF = 1 << 8
    IF = 1 << 9
    RF = 1 << 16
    AC = 1 << 18


class Dr(IntEnum):
    """Values of the debug registers after reset. Ref: SDM vol. 3A, 10.1.1, "IA-32 and Intel 64 Processor States"."""

    DR6_RESET = 0xFFFF0FF0
    DR7_RESET = 0x400


class Mxcsr(IntEnum):
    """Ref: SDM vol. 1, 10.2.3."""

    RESET = 0x1F80
    UNMASKED_DIVIDE = 0x1D80


class Fcw(IntEnum):
    """The x87 control word. Ref: SDM vol. 1, 8.1.5."""

    INITIAL = 0x37F
    UNMASKED_ZERO_DIVIDE = 0x37B


class Msr(IntEnum):
    """Ref: SDM vol. 4; AMD64 APM vol. 2, appendix A. x2APIC registers: SDM vol. 3A, table 11-6."""

    TSC = 0x10
    APIC_BASE = 0x1B
    MTRR_CAP = 0xFE
    SYSENTER_CS = 0x174
    SYSENTER_ESP = 0x175
    SYSENTER_EIP = 0x176
    DEBUGCTL = 0x1D9
    MTRR_PHYS_BASE0 = 0x200
    MTRR_FIX64K_00000 = 0x250
    MTRR_FIX16K_80000 = 0x258
    MTRR_FIX16K_A0000 = 0x259
    MTRR_FIX4K_C0000 = 0x268
    PAT = 0x277
    MTRR_DEF_TYPE = 0x2FF
    XSS = 0xDA0
    X2APIC_APICID = 0x802
    X2APIC_TPR = 0x808
    X2APIC_EOI = 0x80B
    X2APIC_SIVR = 0x80F
    X2APIC_ESR = 0x828
    X2APIC_ICR = 0x830
    X2APIC_LVT_TIMER = 0x832
    X2APIC_LVT_LINT0 = 0x835
    X2APIC_LVT_LINT1 = 0x836
    X2APIC_TIMER_INITIAL = 0x838
    X2APIC_TIMER_CURRENT = 0x839
    X2APIC_TIMER_DIVIDE = 0x83E
    X2APIC_SELF_IPI = 0x83F
    EFER = 0xC0000080
    STAR = 0xC0000081
    LSTAR = 0xC0000082
    CSTAR = 0xC0000083
    SFMASK = 0xC0000084
    FS_BASE = 0xC0000100
    GS_BASE = 0xC0000101
    KERNEL_GS_BASE = 0xC0000102
    TSC_AUX = 0xC0000103
    VM_CR = 0xC0010114
    VM_HSAVE_PA = 0xC0010117


class ApicBase(IntFlag):
    """Ref: SDM vol. 3A, 11.12.1."""

    BSP = 1 << 8
    EXTD = 1 << 10
    EN = 1 << 11


class Lvt(IntFlag):
    """Ref: SDM vol. 3A, 11.5.1."""

    MASKED = 1 << 16


class TimerDivide(IntEnum):
    """Ref: SDM vol. 3A, figure 11-10."""

    BY_1 = 0xB


class Sivr(IntFlag):
    """Ref: SDM vol. 3A, 11.9."""

    APIC_SOFTWARE_ENABLE = 1 << 8


class Icr(IntEnum):
    """Low halves of interrupt commands, physical destination. Ref: SDM vol. 3A, 11.6.1 and 11.12.9."""

    FIXED = 0x4000
    NMI = 0x4400
    INIT = 0x4500
    STARTUP = 0x4600
    SELF_FIXED = 0x44000
    SELF_NMI = 0x44400


PAT_RESET_VALUE = 0x0007040600070406
"""Write-back, write-through, UC-, UC, twice. Ref: SDM vol. 3A, 12.12.4."""


class Pte(IntFlag):
    """Bits of every level of page table. Ref: SDM vol. 3A, 4.5."""

    PRESENT = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    PWT = 1 << 3
    PCD = 1 << 4
    ACCESSED = 1 << 5
    DIRTY = 1 << 6
    LARGE = 1 << 7
    NX = 1 << 63


PTE_ADDRESS_MASK = 0x000FFFFFFFFFF000
"""Physical address of a 4 KiB page or table in an entry. Ref: SDM vol. 3A, table 4-20."""


class Vector(IntEnum):
    """Ref: SDM vol. 3A, table 6-1; AMD64 APM vol. 2, 8.2."""

    DIVIDE_ERROR = 0
    DEBUG = 1
    NMI = 2
    BREAKPOINT = 3
    OVERFLOW = 4
    BOUND_RANGE = 5
    INVALID_OPCODE = 6
    DEVICE_NOT_AVAILABLE = 7
    DOUBLE_FAULT = 8
    COPROCESSOR_OVERRUN = 9
    INVALID_TSS = 10
    SEGMENT_NOT_PRESENT = 11
    STACK_FAULT = 12
    GENERAL_PROTECTION = 13
    PAGE_FAULT = 14
    X87_FLOATING_POINT = 16
    ALIGNMENT_CHECK = 17
    MACHINE_CHECK = 18
    SIMD_FLOATING_POINT = 19
    VIRTUALIZATION = 20
    CONTROL_PROTECTION = 21
    HYPERVISOR_INJECTION = 28
    VMM_COMMUNICATION = 29
    SECURITY = 30


VECTORS_WITH_ERROR_CODE = frozenset({8, 10, 11, 12, 13, 14, 17, 21, 29, 30})
EXCEPTION_VECTORS = 32

MNEMONICS = {
    0: "#DE", 1: "#DB", 2: "NMI", 3: "#BP", 4: "#OF", 5: "#BR", 6: "#UD", 7: "#NM", 8: "#DF", 10: "#TS", 11: "#NP",
    12: "#SS", 13: "#GP", 14: "#PF", 16: "#MF", 17: "#AC", 18: "#MC", 19: "#XM", 20: "#VE", 21: "#CP", 28: "#HV",
    29: "#VC", 30: "#SX",
}


class Cpuid(IntEnum):
    """Leaves and bits. Ref: SDM vol. 2A, CPUID."""

    FEATURES = 1
    TOPOLOGY = 0xB
    XSAVE_STATE = 0xD
    EXTENDED_MAX = 0x80000000
    EXTENDED_FEATURES = 0x80000001
    ADDRESS_SIZES = 0x80000008
    SVM = 0x8000000A
    ECX_X2APIC_BIT = 21
    ECX_XSAVE_BIT = 26
    ECX_OSXSAVE_BIT = 27
    EXT_ECX_SVM_BIT = 2
    EXT_EDX_NX_BIT = 20
    EXT_EDX_RDTSCP_BIT = 27
    EXT_EDX_PAGE1GB_BIT = 26
    EXT_EDX_LM_BIT = 29


class Selector(IntEnum):
    """Our GDT's selectors, the same in shim, trampoline and kernel."""

    CODE64 = 0x08
    DATA = 0x10
    TSS = 0x18
    CODE32 = 0x28
    NOT_PRESENT = 0x30


class Descriptor(IntEnum):
    """Flat segment descriptors. Ref: SDM vol. 3A, 3.4.5."""

    CODE64 = 0x00209B0000000000
    DATA = 0x00CF93000000FFFF
    CODE32 = 0x00CF9B000000FFFF
    TSS_ATTRIBUTES = 0x0000890000000000
    NOT_PRESENT_DATA = 0x0000120000000000


class Gate(IntEnum):
    """Ref: SDM vol. 3A, 6.14.1."""

    INTERRUPT = 0x8E


class Ist(IntEnum):
    """Which interrupt stack a gate switches to. Ref: SDM vol. 3A, 6.14.5."""

    DOUBLE_FAULT = 1
    NMI = 2
    MACHINE_CHECK = 3
