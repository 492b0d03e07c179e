"""Values that the Hyper-V TLFS defines and this project speaks: segments, events, interrupt state, translation.

Ref: Hyper-V Top-Level Functional Specification, "Virtual Processor Registers", "Virtual Memory"; OpenHCL `hvdef`.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from sidecar.layout.parts import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import Layout, register_enum

HvX64SegmentRegister = Layout(
    "HvX64SegmentRegister",
    Struct(
        "base" / Int64ul * "linear base",
        "limit" / Int32ul * "limit in bytes",
        "selector" / Int16ul * "selector",
        "attributes" / Int16ul * "bits 40 to 55 of the descriptor, those of the limit zero; see HvX64SegmentAttribute",
    ),
    size=16,
    doc="A segment register as TLFS values have it.",
)


class HvX64SegmentAttribute(IntFlag):
    """HvX64SegmentRegister.attributes."""

    TYPE = 0xF
    NON_SYSTEM = 1 << 4
    DPL = 3 << 5
    PRESENT = 1 << 7
    AVAILABLE = 1 << 12
    LONG = 1 << 13
    DEFAULT = 1 << 14
    GRANULARITY = 1 << 15


HvX64TableRegister = Layout(
    "HvX64TableRegister",
    Struct(
        "reserved_0" / Bytes(6) * "zero",
        "limit" / Int16ul * "limit in bytes",
        "base" / Int64ul * "linear base",
    ),
    size=16,
    doc="GDTR or IDTR as TLFS values have it.",
)


@register_enum
class HvInterruptionType(IntEnum):
    """Ref: TLFS, HV_X64_PENDING_INTERRUPTION_TYPE."""

    INTERRUPT = 0
    NMI = 2
    EXCEPTION = 3
    SOFTWARE_INTERRUPT = 4
    PRIVILEGED_SOFTWARE_EXCEPTION = 5
    SOFTWARE_EXCEPTION = 6


@register_enum
class HvCacheType(IntEnum):
    """Ref: TLFS, HV_CACHE_TYPE."""

    UNCACHED = 0
    WRITE_COMBINING = 1
    WRITE_THROUGH = 4
    WRITE_PROTECTED = 5
    WRITE_BACK = 6


class HvPendingInterruption(IntFlag):
    """HvRegisterPendingInterruption: what the next entry delivers. Vector in bits 16 to 31, error code above."""

    PENDING = 1 << 0
    TYPE = 7 << 1
    """HvInterruptionType."""
    DELIVER_ERROR_CODE = 1 << 4
    INSTRUCTION_LENGTH = 0xF << 5
    NESTED = 1 << 9
    VECTOR = 0xFFFF << 16


class HvInterruptState(IntFlag):
    """HvRegisterInterruptState."""

    INTERRUPT_SHADOW = 1 << 0
    NMI_MASKED = 1 << 1


class HvPendingEvent(IntFlag):
    """HvRegisterPendingEvent0, low half; the high half is the linear address of a page fault.

    An exception has its vector in bits 16 to 31 and its error code above, an external interrupt its vector in 8 to 15.
    """

    PENDING = 1 << 0
    TYPE = 7 << 1
    """HvPendingEventType."""
    DELIVER_ERROR_CODE = 1 << 8


@register_enum
class HvPendingEventType(IntEnum):
    """Ref: TLFS, HV_X64_PENDING_EVENT_TYPE; others are refused."""

    EXCEPTION = 0
    EXTERNAL_INTERRUPT = 5


class HvDeliverability(IntFlag):
    """HvX64RegisterDeliverabilityNotifications: what the VMM wants to be told of."""

    NMI = 1 << 0
    INTERRUPT = 1 << 1
    INTERRUPT_PRIORITY = 0xF << 2
    """An interrupt of this priority, against CR8; 0: whatever CR8 says."""


class HvTranslateFlags(IntFlag):
    """TranslateGvaRequest.control_flags. Ref: TLFS, HvCallTranslateVirtualAddress."""

    VALIDATE_READ = 1 << 0
    VALIDATE_WRITE = 1 << 1
    VALIDATE_EXECUTE = 1 << 2
    PRIVILEGE_EXEMPT = 1 << 3
    SET_PAGE_TABLE_BITS = 1 << 4
    TLB_FLUSH_INHIBIT = 1 << 5
    SUPERVISOR_ACCESS = 1 << 6
    USER_ACCESS = 1 << 7
    ENFORCE_SMAP = 1 << 8
    OVERRIDE_SMAP = 1 << 9
    INPUT_VTL = 0xFF << 56


@register_enum
class HvTranslateResult(IntEnum):
    """TranslateGvaResponse.result_code. Ref: TLFS, HV_TRANSLATE_GVA_RESULT_CODE."""

    SUCCESS = 0
    PAGE_NOT_PRESENT = 1
    PRIVILEGE_VIOLATION = 2
    INVALID_PAGE_TABLE_FLAGS = 3
    GPA_UNMAPPED = 4
    GPA_NO_READ_ACCESS = 5
    GPA_NO_WRITE_ACCESS = 6
    GPA_ILLEGAL_OVERLAY_ACCESS = 7
    INTERCEPT = 8


TranslateGvaRequest = Layout(
    "TranslateGvaRequest",
    Struct(
        "gvn" / Int64ul * "number of the guest-virtual page",
        "control_flags" / Int64ul * "HvTranslateFlags",
    ),
    size=16,
    doc="Request of TRANSLATE_GVA.",
)

TranslateGvaResponse = Layout(
    "TranslateGvaResponse",
    Struct(
        "status" / Int16ul * "HvStatus",
        "level" / Int16ul * "level of the guest's page table at which the walk ended; 0: at the page itself",
        "reserved_4" / Bytes(12) * "zero",
        "result_code" / Int32ul * "HvTranslateResult",
        "cache_type" / Int8ul * "HvCacheType",
        "reserved_15" / Bytes(3) * "bit 0: overlay page, always 0 here",
        "reserved_18" / Int64ul * "zero",
        "event_info" / Array(4, Int64ul) * "HvPendingEvent that an access would have raised, 0 if none",
        "gpa_page" / Int64ul * "number of the guest-physical page; of the table that cannot be used, if level is not 0",
        "reserved_48" / Int64ul * "zero",
    ),
    size=0x50,
    doc="Response of TRANSLATE_GVA. Ref: TLFS, HV_OUTPUT_TRANSLATE_VIRTUAL_ADDRESS_EX.",
)
