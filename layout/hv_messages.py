"""The intercept messages of the Hyper-V TLFS: why a virtual processor stopped.

A run that ends with an intercept leaves one of them in the payload of CommandPage.intercept_message. Fields that no
back end can fill are zero. Where a message is longer than TLFS has it, it says so.

Ref: Hyper-V Top-Level Functional Specification, "Intercepts"; OpenHCL `hvdef`.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from sidecar.layout.hv import HvX64SegmentRegister
from sidecar.layout.parts import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import Layout, register_enum


@register_enum
class HvMessageType(IntEnum):
    """HvMessage.message_type. Ref: TLFS, "Intercept Message Types"."""

    NONE = 0
    UNMAPPED_GPA = 0x80000000
    """Memory that is not mapped."""
    GPA_INTERCEPT = 0x80000001
    """Memory that is mapped without the right that was needed."""
    INVALID_VP_REGISTER_VALUE = 0x80000020
    UNRECOVERABLE_EXCEPTION = 0x80000021
    UNSUPPORTED_FEATURE = 0x80000022
    X64_IO_PORT_INTERCEPT = 0x80010000
    X64_MSR_INTERCEPT = 0x80010001
    X64_CPUID_INTERCEPT = 0x80010002
    X64_EXCEPTION_INTERCEPT = 0x80010003
    X64_HALT = 0x80010007
    X64_INTERRUPTION_DELIVERABLE = 0x80010008


@register_enum
class HvInterceptAccess(IntEnum):
    """InterceptHeader.access_type."""

    READ = 0
    WRITE = 1
    EXECUTE = 2


class HvExecutionState(IntFlag):
    """InterceptHeader.execution_state. Ref: TLFS, HV_X64_VP_EXECUTION_STATE."""

    CPL = 3
    CR0_PE = 1 << 2
    CR0_AM = 1 << 3
    EFER_LMA = 1 << 4
    DEBUG_ACTIVE = 1 << 5
    INTERRUPTION_PENDING = 1 << 6
    INTERRUPT_SHADOW = 1 << 12


InterceptHeader = Layout(
    "InterceptHeader",
    Struct(
        "vp_index" / Int32ul * "Linux number of the CPU",
        "instruction_length" / Int8ul * "bits 0 to 3: bytes to add to rip, 0: not known; bits 4 to 7: CR8",
        "access_type" / Int8ul * "HvInterceptAccess",
        "execution_state" / Int16ul * "HvExecutionState",
        "cs" / HvX64SegmentRegister.struct * "CS",
        "rip" / Int64ul * "RIP of the instruction",
        "rflags" / Int64ul * "RFLAGS",
    ),
    size=0x28,
    doc="Head of every intercept message. Ref: TLFS, HV_X64_INTERCEPT_MESSAGE_HEADER.",
)

INSTRUCTION_BYTES = 16


class HvIoAccess(IntFlag):
    """IoPortMessage.access_info."""

    SIZE = 7
    """Bytes of one access: 1, 2 or 4."""
    STRING = 1 << 3
    REP = 1 << 4


IoPortMessage = Layout(
    "IoPortMessage",
    Struct(
        "header" / InterceptHeader.struct * "READ for IN and INS, WRITE for OUT and OUTS",
        "port" / Int16ul * "I/O port",
        "access_info" / Int8ul * "HvIoAccess",
        "instruction_byte_count" / Int8ul * "valid bytes of instruction_bytes",
        "reserved_2c" / Int32ul * "zero",
        "rax" / Int64ul * "RAX",
        "instruction_bytes" / Bytes(INSTRUCTION_BYTES) * "the instruction, if it could be read",
        "ds" / HvX64SegmentRegister.struct * "for OUTS without a segment prefix",
        "es" / HvX64SegmentRegister.struct * "for INS",
        "rcx" / Int64ul * "RCX",
        "rsi" / Int64ul * "RSI",
        "rdi" / Int64ul * "RDI",
    ),
    size=0x80,
    doc="X64_IO_PORT_INTERCEPT: an access to an I/O port that is not the guest's own.",
)

MsrMessage = Layout(
    "MsrMessage",
    Struct(
        "header" / InterceptHeader.struct * "READ or WRITE",
        "msr" / Int32ul * "MSR number",
        "reserved_2c" / Int32ul * "zero",
        "rdx" / Int64ul * "RDX",
        "rax" / Int64ul * "RAX",
    ),
    size=0x40,
    doc="X64_MSR_INTERCEPT: an MSR that the sidecar does not know.",
)

CpuidMessage = Layout(
    "CpuidMessage",
    Struct(
        "header" / InterceptHeader.struct * "EXECUTE",
        "rax" / Int64ul * "leaf",
        "rcx" / Int64ul * "subleaf",
        "rdx" / Int64ul * "RDX",
        "rbx" / Int64ul * "RBX",
        "default_rax" / Int64ul * "what the sidecar would answer",
        "default_rcx" / Int64ul * "likewise",
        "default_rdx" / Int64ul * "likewise",
        "default_rbx" / Int64ul * "likewise",
    ),
    size=0x68,
    doc="X64_CPUID_INTERCEPT, with RunFlags.CPUID_EXITS.",
)


class HvMemoryAccess(IntFlag):
    """MemoryMessage.memory_access_info."""

    GVA_VALID = 1 << 0
    GVA_GPA_VALID = 1 << 1


MemoryMessage = Layout(
    "MemoryMessage",
    Struct(
        "header" / InterceptHeader.struct * "READ, WRITE or EXECUTE",
        "cache_type" / Int32ul * "HvCacheType",
        "instruction_byte_count" / Int8ul * "valid bytes of instruction_bytes",
        "memory_access_info" / Int8ul * "HvMemoryAccess",
        "tpr_priority" / Int8ul * "CR8",
        "reserved_2f" / Int8ul * "zero",
        "gva" / Int64ul * "linear address, if GVA_VALID",
        "gpa" / Int64ul * "guest-physical address",
        "instruction_bytes" / Bytes(INSTRUCTION_BYTES) * "the instruction, if it could be read",
    ),
    size=0x50,
    doc="UNMAPPED_GPA and GPA_INTERCEPT.",
)


class HvExceptionInfo(IntFlag):
    """ExceptionMessage.exception_info."""

    ERROR_CODE_VALID = 1 << 0
    SOFTWARE = 1 << 1


ExceptionMessage = Layout(
    "ExceptionMessage",
    Struct(
        "header" / InterceptHeader.struct * "EXECUTE",
        "vector" / Int16ul * "exception vector",
        "exception_info" / Int8ul * "HvExceptionInfo",
        "instruction_byte_count" / Int8ul * "valid bytes of instruction_bytes",
        "error_code" / Int32ul * "if ERROR_CODE_VALID",
        "exception_parameter" / Int64ul * "page fault: linear address; debug exception: new bits of DR6",
        "reserved_38" / Int64ul * "zero",
        "instruction_bytes" / Bytes(INSTRUCTION_BYTES) * "the instruction, if it could be read",
        "ds" / HvX64SegmentRegister.struct * "DS",
        "ss" / HvX64SegmentRegister.struct * "SS",
        "registers" / Array(16, Int64ul) * "RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15",
    ),
    size=0xF0,
    doc="X64_EXCEPTION_INTERCEPT: an exception that the VMM asked for, before it is delivered.",
)

HaltMessage = Layout(
    "HaltMessage",
    Struct("header" / InterceptHeader.struct * "EXECUTE; rip is at the HLT"),
    size=0x28,
    doc="X64_HALT.",
)

UnrecoverableExceptionMessage = Layout(
    "UnrecoverableExceptionMessage",
    Struct("header" / InterceptHeader.struct * "EXECUTE"),
    size=0x28,
    doc="UNRECOVERABLE_EXCEPTION: triple fault.",
)

InvalidVpRegisterMessage = Layout(
    "InvalidVpRegisterMessage",
    Struct(
        "vp_index" / Int32ul * "Linux number of the CPU",
        "reserved_4" / Int32ul * "zero; TLFS ends here",
        "rule" / Int32ul * "number of the broken rule, 0 if the processor refused and no rule is broken",
        "reserved_c" / Int32ul * "zero",
        "value" / Int64ul * "the value that broke it",
    ),
    size=24,
    doc="INVALID_VP_REGISTER_VALUE: state that no guest can be entered with. The state is as before the run.",
)


InterruptionDeliverableMessage = Layout(
    "InterruptionDeliverableMessage",
    Struct(
        "header" / InterceptHeader.struct * "EXECUTE",
        "deliverable_type" / Int8ul * "HvInterruptionType: INTERRUPT or NMI",
        "reserved_29" / Bytes(7) * "zero",
    ),
    size=0x30,
    doc="X64_INTERRUPTION_DELIVERABLE, as asked for by HvX64RegisterDeliverabilityNotifications, which it clears.",
)

UnsupportedFeatureMessage = Layout(
    "UnsupportedFeatureMessage",
    Struct(
        "vp_index" / Int32ul * "Linux number of the CPU",
        "feature_code" / Int32ul * "1: intercept",
        "feature_parameter" / Int64ul * "the back end's exit code",
    ),
    size=16,
    doc="UNSUPPORTED_FEATURE: an exit that this version does not know.",
)
