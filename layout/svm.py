"""AMD SVM as the hardware defines it: the VMCB, its bits, exit codes, and the pages that a virtual processor needs.

The VMCB is the processor's own layout: kernel, VMCB checker and dumps share it, nobody else.

Ref: AMD64 APM vol. 2, 15.5 (VMRUN), 15.9 to 15.14 (intercepts), 15.20 (event injection), 15.21 (interrupts), 15.25
(nested paging), appendix B (layout of the VMCB), appendix C (exit codes).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from sidecar.layout.parts import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import PAGE_SIZE, Layout, register_enum


@register_enum
class VpPage(IntEnum):
    """The pages of a virtual processor, in the order in which they follow each other from vp_pages_pa on."""

    TABLE = 0
    """Page table of the CPU's second 2 MiB: these pages, and windows onto guest memory."""
    VMCB = 1
    HOST_SAVE = 2
    """Where VMRUN keeps the sidecar's state; its layout is the processor's."""
    HOST_VMCB = 3
    """The rest of the sidecar's state, for VMLOAD."""
    XSAVE = 4
    """First of three pages: the guest's XSAVE image."""


XSAVE_PAGES = 3
VP_PAGES = VpPage.XSAVE + XSAVE_PAGES

VmcbSegment = Layout(
    "VmcbSegment",
    Struct(
        "selector" / Int16ul * "selector",
        "attributes" / Int16ul * "bits 40 to 47 and 52 to 55 of the descriptor, packed into 12; see VmcbAttribute",
        "limit" / Int32ul * "limit in bytes",
        "base" / Int64ul * "linear base",
    ),
    size=16,
    doc="A segment or table register in the VMCB's save area.",
)


class VmcbAttribute(IntFlag):
    """VmcbSegment.attributes. Ref: APM vol. 2, 15.5.1."""

    TYPE = 0xF
    CODE_DATA = 1 << 4
    DPL = 3 << 5
    PRESENT = 1 << 7
    AVAILABLE = 1 << 8
    LONG = 1 << 9
    DEFAULT = 1 << 10
    GRANULARITY = 1 << 11


Vmcb = Layout(
    "Vmcb",
    Struct(
        "intercept_cr" / Int32ul * "reads of CR0 to CR15 in bits 0 to 15, writes in bits 16 to 31",
        "intercept_dr" / Int32ul * "reads of DR0 to DR15 in bits 0 to 15, writes in bits 16 to 31",
        "intercept_exceptions" / Int32ul * "exception vectors 0 to 31",
        "intercept_misc1" / Int32ul * "Intercept1",
        "intercept_misc2" / Int32ul * "Intercept2",
        "intercept_misc3" / Int32ul * "Intercept3",
        "reserved_18" / Bytes(0x24) * "zero",
        "pause_filter_threshold" / Int16ul * "PAUSE filter threshold",
        "pause_filter_count" / Int16ul * "PAUSE filter count",
        "iopm_pa" / Int64ul * "I/O permission map, three pages",
        "msrpm_pa" / Int64ul * "MSR permission map, two pages",
        "tsc_offset" / Int64ul * "added to the TSC that the guest reads",
        "asid" / Int32ul * "address space id; 0 is the host's",
        "tlb_control" / Int8ul * "TlbControl",
        "reserved_5d" / Bytes(3) * "zero",
        "v_intr" / Int64ul * "VIntr: virtual interrupts",
        "interrupt_shadow" / Int64ul * "bit 0: the guest is in an interrupt shadow",
        "exit_code" / Int64ul * "SvmExit",
        "exit_info_1" / Int64ul * "by exit code",
        "exit_info_2" / Int64ul * "by exit code",
        "exit_int_info" / Int64ul * "VmcbEvent: event that was being delivered when the guest exited",
        "np_enable" / Int64ul * "bit 0: nested paging; the rest is SEV's",
        "avic_apic_bar" / Int64ul * "AVIC, unused",
        "ghcb_pa" / Int64ul * "SEV-ES, unused",
        "event_inj" / Int64ul * "VmcbEvent: event to deliver at entry",
        "n_cr3" / Int64ul * "root of the nested page tables",
        "lbr_control" / Int64ul * "bit 0: LBR virtualisation; bit 1: VMSAVE and VMLOAD virtualisation",
        "clean" / Int32ul * "VMCB clean bits; 0: everything is loaded",
        "reserved_c4" / Int32ul * "zero",
        "n_rip" / Int64ul * "RIP of the next instruction, 0 without the feature",
        "bytes_fetched" / Int8ul * "valid bytes of instruction_bytes, 0 without decode assists",
        "instruction_bytes" / Bytes(15) * "the instruction that caused a nested page fault",
        "avic_backing_pa" / Int64ul * "AVIC, unused",
        "reserved_e8" / Bytes(8) * "zero",
        "avic_logical_pa" / Int64ul * "AVIC, unused",
        "avic_physical_pa" / Int64ul * "AVIC, unused",
        "reserved_100" / Bytes(8) * "zero",
        "vmsa_pa" / Int64ul * "SEV-ES, unused",
        "reserved_110" / Bytes(0x2F0) * "zero",
        "es" / VmcbSegment.struct * "ES",
        "cs" / VmcbSegment.struct * "CS",
        "ss" / VmcbSegment.struct * "SS",
        "ds" / VmcbSegment.struct * "DS",
        "fs" / VmcbSegment.struct * "FS; by VMLOAD and VMSAVE",
        "gs" / VmcbSegment.struct * "GS; by VMLOAD and VMSAVE",
        "gdtr" / VmcbSegment.struct * "GDTR: base and the low 16 bits of limit",
        "ldtr" / VmcbSegment.struct * "LDTR; by VMLOAD and VMSAVE",
        "idtr" / VmcbSegment.struct * "IDTR: base and the low 16 bits of limit",
        "tr" / VmcbSegment.struct * "TR; by VMLOAD and VMSAVE",
        "reserved_4a0" / Bytes(0x2B) * "zero",
        "cpl" / Int8ul * "current privilege level",
        "reserved_4cc" / Int32ul * "zero",
        "efer" / Int64ul * "EFER; SVME must be 1",
        "reserved_4d8" / Bytes(0x70) * "zero",
        "cr4" / Int64ul * "CR4",
        "cr3" / Int64ul * "CR3",
        "cr0" / Int64ul * "CR0",
        "dr7" / Int64ul * "DR7",
        "dr6" / Int64ul * "DR6",
        "rflags" / Int64ul * "RFLAGS",
        "rip" / Int64ul * "RIP",
        "reserved_580" / Bytes(0x58) * "zero",
        "rsp" / Int64ul * "RSP",
        "s_cet" / Int64ul * "S_CET, unused",
        "ssp" / Int64ul * "SSP, unused",
        "isst_addr" / Int64ul * "interrupt shadow stack table, unused",
        "rax" / Int64ul * "RAX; the other general registers are not in the VMCB",
        "star" / Int64ul * "STAR; by VMLOAD and VMSAVE, as the next seven",
        "lstar" / Int64ul * "LSTAR",
        "cstar" / Int64ul * "CSTAR",
        "sfmask" / Int64ul * "SFMASK",
        "kernel_gs_base" / Int64ul * "KERNEL_GS_BASE",
        "sysenter_cs" / Int64ul * "SYSENTER_CS",
        "sysenter_esp" / Int64ul * "SYSENTER_ESP",
        "sysenter_eip" / Int64ul * "SYSENTER_EIP",
        "cr2" / Int64ul * "CR2",
        "reserved_648" / Bytes(0x20) * "zero",
        "g_pat" / Int64ul * "PAT of the guest, with nested paging",
        "dbgctl" / Int64ul * "DEBUGCTL, with LBR virtualisation",
        "br_from" / Int64ul * "last branch from, with LBR virtualisation",
        "br_to" / Int64ul * "last branch to, with LBR virtualisation",
        "last_excp_from" / Int64ul * "last exception from, with LBR virtualisation",
        "last_excp_to" / Int64ul * "last exception to, with LBR virtualisation",
        "reserved_698" / Bytes(PAGE_SIZE - 0x698) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Virtual machine control block: control area, and from 0x400 on the save area.",
)

VMCB_SAVE_AREA = 0x400
VMCB_SAVE_BYTES = 0x2A0
"""Bytes of the save area that are defined."""


class Intercept1(IntFlag):
    """Vmcb.intercept_misc1. Ref: APM vol. 2, table B-1, offset 0xC."""

    INTR = 1 << 0
    NMI = 1 << 1
    SMI = 1 << 2
    INIT = 1 << 3
    VINTR = 1 << 4
    CR0_SELECTIVE = 1 << 5
    IDTR_READ = 1 << 6
    GDTR_READ = 1 << 7
    LDTR_READ = 1 << 8
    TR_READ = 1 << 9
    IDTR_WRITE = 1 << 10
    GDTR_WRITE = 1 << 11
    LDTR_WRITE = 1 << 12
    TR_WRITE = 1 << 13
    RDTSC = 1 << 14
    RDPMC = 1 << 15
    PUSHF = 1 << 16
    POPF = 1 << 17
    CPUID = 1 << 18
    RSM = 1 << 19
    IRET = 1 << 20
    INT_N = 1 << 21
    INVD = 1 << 22
    PAUSE = 1 << 23
    HLT = 1 << 24
    INVLPG = 1 << 25
    INVLPGA = 1 << 26
    IOIO = 1 << 27
    MSR = 1 << 28
    TASK_SWITCH = 1 << 29
    FERR_FREEZE = 1 << 30
    SHUTDOWN = 1 << 31


class Intercept2(IntFlag):
    """Vmcb.intercept_misc2. Ref: APM vol. 2, table B-1, offset 0x10."""

    VMRUN = 1 << 0
    VMMCALL = 1 << 1
    VMLOAD = 1 << 2
    VMSAVE = 1 << 3
    STGI = 1 << 4
    CLGI = 1 << 5
    SKINIT = 1 << 6
    RDTSCP = 1 << 7
    ICEBP = 1 << 8
    WBINVD = 1 << 9
    MONITOR = 1 << 10
    MWAIT = 1 << 11
    MWAIT_ARMED = 1 << 12
    XSETBV = 1 << 13
    RDPRU = 1 << 14
    EFER_WRITTEN = 1 << 15


class Intercept3(IntFlag):
    """Vmcb.intercept_misc3. Ref: APM vol. 2, table B-1, offset 0x14."""

    INVLPGB = 1 << 0
    INVLPGB_ILLEGAL = 1 << 1
    INVPCID = 1 << 2
    MCOMMIT = 1 << 3
    TLBSYNC = 1 << 4


class TlbControl(IntEnum):
    """Vmcb.tlb_control. Ref: APM vol. 2, 15.16.1."""

    KEEP = 0
    FLUSH_ALL = 1
    FLUSH_GUEST = 3
    FLUSH_GUEST_NON_GLOBAL = 7


class VIntr(IntFlag):
    """Vmcb.v_intr. Ref: APM vol. 2, 15.21.1, table B-1 offset 0x60."""

    V_TPR = 0xFF
    V_IRQ = 1 << 8
    V_GIF = 1 << 9
    V_NMI = 1 << 11
    V_NMI_MASK = 1 << 12
    V_INTR_PRIO = 0xF << 16
    V_IGN_TPR = 1 << 20
    V_INTR_MASKING = 1 << 24
    V_GIF_ENABLE = 1 << 25
    V_NMI_ENABLE = 1 << 26
    AVIC_ENABLE = 1 << 31
    V_INTR_VECTOR = 0xFF << 32


INTERCEPT_CR8_WRITE = 1 << 24
"""In Vmcb.intercept_cr."""


class VmcbEvent(IntFlag):
    """Vmcb.event_inj and Vmcb.exit_int_info; the error code stands in the high half. Ref: APM vol. 2, 15.20."""

    VECTOR = 0xFF
    INTERRUPT = 0 << 8
    NMI = 2 << 8
    EXCEPTION = 3 << 8
    SOFTWARE = 4 << 8
    TYPE = 7 << 8
    ERROR_VALID = 1 << 11
    VALID = 1 << 31


class IoExit(IntFlag):
    """Vmcb.exit_info_1 of SvmExit.IOIO; the port stands in bits 16 to 31. Ref: APM vol. 2, 15.10.2."""

    IN = 1 << 0
    STRING = 1 << 2
    REP = 1 << 3
    SIZE_8 = 1 << 4
    SIZE_16 = 1 << 5
    SIZE_32 = 1 << 6
    ADDRESS_16 = 1 << 7
    ADDRESS_32 = 1 << 8
    ADDRESS_64 = 1 << 9
    SEGMENT = 7 << 10


class NestedFault(IntFlag):
    """Vmcb.exit_info_1 of SvmExit.NPF. Ref: APM vol. 2, 15.25.6."""

    PRESENT = 1 << 0
    WRITE = 1 << 1
    USER = 1 << 2
    RESERVED = 1 << 3
    EXECUTE = 1 << 4
    FINAL = 1 << 32
    """The fault is on the guest-physical address itself."""
    TABLE = 1 << 33
    """The fault is on a page table of the guest."""


@register_enum
class SvmExit(IntEnum):
    """Vmcb.exit_code, and exit_code of the run's answer on AMD. Ref: APM vol. 2, appendix C."""

    CR0_READ = 0x00
    CR0_WRITE = 0x10
    CR8_WRITE = 0x18
    DR0_READ = 0x20
    DR0_WRITE = 0x30
    EXCEPTION_0 = 0x40
    """The first of 32: exception vector n is 0x40 + n."""
    INTR = 0x60
    NMI = 0x61
    SMI = 0x62
    INIT = 0x63
    VINTR = 0x64
    CR0_SELECTIVE = 0x65
    IDTR_READ = 0x66
    GDTR_READ = 0x67
    LDTR_READ = 0x68
    TR_READ = 0x69
    IDTR_WRITE = 0x6A
    GDTR_WRITE = 0x6B
    LDTR_WRITE = 0x6C
    TR_WRITE = 0x6D
    RDTSC = 0x6E
    RDPMC = 0x6F
    PUSHF = 0x70
    POPF = 0x71
    CPUID = 0x72
    RSM = 0x73
    IRET = 0x74
    INT_N = 0x75
    INVD = 0x76
    PAUSE = 0x77
    HLT = 0x78
    INVLPG = 0x79
    INVLPGA = 0x7A
    IOIO = 0x7B
    MSR = 0x7C
    TASK_SWITCH = 0x7D
    FERR_FREEZE = 0x7E
    SHUTDOWN = 0x7F
    VMRUN = 0x80
    VMMCALL = 0x81
    VMLOAD = 0x82
    VMSAVE = 0x83
    STGI = 0x84
    CLGI = 0x85
    SKINIT = 0x86
    RDTSCP = 0x87
    ICEBP = 0x88
    WBINVD = 0x89
    MONITOR = 0x8A
    MWAIT = 0x8B
    MWAIT_ARMED = 0x8C
    XSETBV = 0x8D
    RDPRU = 0x8E
    EFER_WRITTEN = 0x8F
    INVPCID = 0xA2
    MCOMMIT = 0xA3
    NPF = 0x400
    INVALID = 0xFFFFFFFF
    """The low half of -1: TCG stores only that."""


class SvmFeature(IntFlag):
    """CPUID leaf 8000_000A, EDX. Ref: APM vol. 3, E.4.9."""

    NESTED_PAGING = 1 << 0
    NEXT_RIP = 1 << 3
    FLUSH_BY_ASID = 1 << 6
    DECODE_ASSISTS = 1 << 7


class VmCr(IntFlag):
    """MSR C001_0114. Ref: APM vol. 2, 15.30.1."""

    LOCK = 1 << 3
    SVMDIS = 1 << 4


APIC_BASE_RESET = 0xFEE00900
"""Enabled, at its usual place, boot CPU. Ref: SDM vol. 3A, 11.4.4."""

IOPM_PAGES = 3
MSRPM_PAGES = 2

XsaveHeader = Layout(
    "XsaveHeader",
    Struct(
        "legacy" / Bytes(512) * "FXSAVE image",
        "xstate_bv" / Int64ul * "components that are not in their initial state",
        "xcomp_bv" / Int64ul * "0: standard format",
        "reserved_210" / Array(6, Int64ul) * "zero",
    ),
    size=576,
    align=64,
    doc="Head of an XSAVE image. Ref: SDM vol. 1, 13.4.",
)
