"""RUN_VP: what a run takes and gives besides the registers, in bytes of the command page that upstream reserves.

The client owns these bytes while the CPU is IDLE, the CPU while it is RUN or STOP; the CPU reads the inputs once, when
the run begins.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from sidecar.layout.parts import Bytes, Int8ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import Layout, register_enum


class RunFlags(IntFlag):
    """VpRun.flags."""

    CPUID_EXITS = 1 << 0
    """CPUID ends the run with an X64_CPUID_INTERCEPT."""


@register_enum
class RunEnd(IntEnum):
    """VpRun.end."""

    NONE = 0
    """The run ended with an error."""
    INTERCEPT = 1
    """CommandPage.intercept_message says why."""
    CANCELLED = 2
    """STOP."""
    NOTIFIED = 3
    """PrivilegedPage.doorbell had bits; they are in notifications."""
    TIME_LIMIT = 4


VpRun = Layout(
    "VpRun",
    Struct(
        "time_limit" / Int64ul * "in: TSC ticks after which the run ends, 0: none",
        "flags" / Int32ul * "in: RunFlags",
        "exception_intercepts" / Int32ul * "in: bit n: exception vector n ends the run instead of being delivered",
        "advance_rip" / Int8ul * "in: bytes, 0 to 15, added to RIP before the run; taken by replacing it with 0",
        "reserved_11" / Bytes(3) * "zero",
        "end" / Int32ul * "out: RunEnd",
        "notifications" / Int64ul * "out: doorbell bits; the CPU ORs, so the client clears what it has seen",
        "guest_entries" / Int64ul * "out: times the guest was entered in this run",
        "local_exits" / Int64ul * "out: exits of this run that the sidecar finished",
        "guest_tsc" / Int64ul * "out: TSC ticks spent in the guest",
        "exit_code" / Int64ul * "out: the back end's code of the last exit: SvmExit",
        "exit_info_1" / Int64ul * "out: Vmcb.exit_info_1 of the last exit",
        "exit_info_2" / Int64ul * "out: Vmcb.exit_info_2 of the last exit",
        "rip" / Int64ul * "out: RIP",
        "rsp" / Int64ul * "out: RSP",
        "rflags" / Int64ul * "out: RFLAGS",
        "cr0" / Int64ul * "out: CR0",
        "cr3" / Int64ul * "out: CR3",
        "cr4" / Int64ul * "out: CR4",
        "efer" / Int64ul * "out: EFER as the guest sees it",
        "cs_attributes" / Int32ul * "out: HvX64SegmentAttribute of CS",
        "cpl" / Int32ul * "out: current privilege level",
        "reserved_90" / Bytes(0x30) * "zero",
    ),
    size=0xC0,
    doc="Client and CPU: inputs and outcome of RUN_VP.",
)

RunVpResponse = Layout(
    "RunVpResponse",
    Struct("intercept" / Int8ul * "1: CommandPage.intercept_message is valid"),
    size=1,
    align=1,
    doc="Response of RUN_VP in request_data, as upstream has it.",
)
