"""The command page of a CPU, the commands, and the registers that can be read and written.

The client owns the page while the CPU is IDLE, the CPU while it is RUN or STOP.
Ref: OpenHCL `sidecar_defs::CommandPage`; Hyper-V TLFS, "Virtual Processor Registers" for names and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from sidecar.layout.params import CommandError
from sidecar.layout.parts import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.run import VpRun
from sidecar.layout.schema import PAGE_SIZE, Layout, register_enum, values_of


@register_enum
class SidecarCommand(IntEnum):
    """Commands; 0 to 4 are upstream's, extensions start at 0x100."""

    NONE = 0
    RUN_VP = 1
    GET_VP_REGISTERS = 2
    SET_VP_REGISTERS = 3
    TRANSLATE_GVA = 4
    RAISE = 0x100
    GET_VP_XSAVE = 0x101
    """The virtual processor's XSAVE image into the register page."""
    SET_VP_XSAVE = 0x102
    """The other way; the legacy part is CommandPage.cpu_context's."""


CpuContextX64 = Layout(
    "CpuContextX64",
    Struct(
        "gps" / Array(16, Int64ul) * "general registers in the order of their encoding, but index 4 is CR2, not RSP",
        "fx_state" / Bytes(512) * "FXSAVE image",
        "reserved_280" / Bytes(384) * "zero",
    ),
    size=1024,
    align=16,
    doc="Registers that a run loads and stores.",
)

HvMessage = Layout(
    "HvMessage",
    Struct(
        "message_type" / Int32ul * "HvMessageType of the TLFS",
        "payload_size" / Int8ul * "valid bytes of payload",
        "message_flags" / Int8ul * "TLFS message flags",
        "reserved_6" / Int16ul * "zero",
        "origination_id" / Int64ul * "sender",
        "payload" / Bytes(240) * "intercept message",
    ),
    size=256,
    align=16,
    doc="Why a virtual processor stopped, as the TLFS words it.",
)

CommandPage = Layout(
    "CommandPage",
    Struct(
        "command" / values_of(SidecarCommand, Int32ul) * "what to do; taken by replacing it with NONE",
        "has_error" / Int8ul * "1: the command failed and error says why",
        "reserved_5" / Bytes(11) * "zero",
        "cpu_context" / CpuContextX64.struct * "registers of the virtual processor",
        "intercept_message" / HvMessage.struct * "why the virtual processor stopped",
        "error" / CommandError.struct * "valid if has_error",
        "request_data" / Bytes(1024) * "request and response of the command",
        "abi_version" / Int32ul * "ABI_VERSION of the sidecar, written on arrival",
        "reserved_a14" / Int32ul * "zero",
        "abi_hash" / Int64ul * "ABI hash of the sidecar, written on arrival",
        "sequence" / Int64ul * "the client's number for the command",
        "completed_sequence" / Int64ul * "sequence of the command that was executed last",
        "start_tsc" / Int64ul * "TSC when that command was taken",
        "end_tsc" / Int64ul * "TSC when it was finished",
        "run" / VpRun.struct * "inputs and outcome of RUN_VP",
        "reserved_b00" / Bytes(PAGE_SIZE - 0xB00) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Client and one CPU: a command, its data and its answer.",
)

GetSetVpRegisterRequest = Layout(
    "GetSetVpRegisterRequest",
    Struct(
        "count" / Int16ul * "registers that follow, 1 to 31",
        "target_vtl" / Int8ul * "must be 0",
        "reserved_3" / Int8ul * "zero",
        "status" / Int16ul * "HvStatus of the register at which processing stopped",
        "reserved_6" / Bytes(10) * "zero",
    ),
    size=16,
    doc="Head of GET_VP_REGISTERS and SET_VP_REGISTERS; HvRegisterAssoc entries follow.",
)

HvRegisterAssoc = Layout(
    "HvRegisterAssoc",
    Struct(
        "name" / Int32ul * "HvRegisterName",
        "reserved_4" / Bytes(12) * "zero",
        "value" / Int64ul * "low half of the value",
        "value_high" / Int64ul * "high half, 0 for all registers of 64 bits",
    ),
    size=32,
    align=16,
    doc="A register's name and value.",
)

RaiseRequest = Layout(
    "RaiseRequest",
    Struct(
        "kind" / Int32ul * "RaiseKind",
        "reserved_4" / Int32ul * "zero",
        "argument" / Int64ul * "PAGE_FAULT: address; VECTOR: vector; CORRUPT_PAGE_TABLE: slot of the per-CPU table; "
        "MEASURE_GAPS: TSC ticks",
    ),
    size=16,
    doc="Request of RAISE.",
)

GAP_BINS = 64

GapsAnswer = Layout(
    "GapsAnswer",
    Struct(
        "ticks" / Int64ul * "TSC ticks from the first look to the last",
        "longest" / Int64ul * "most ticks from one look to the next",
        "sums" / Array(GAP_BINS, Int64ul) * "ticks of all gaps, by the number of their highest bit",
        "counts" / Array(GAP_BINS, Int32ul) * "how many gaps, likewise",
    ),
    size=784,
    doc="Answer of RAISE, MEASURE_GAPS: how evenly time passes on a CPU that does nothing but look at its TSC.",
)


@register_enum
class RaiseKind(IntEnum):
    """What RAISE does to its own CPU, by the manual's names; refused unless the params page allows it."""

    DIVIDE_ERROR = 0
    DEBUG = 1
    NMI = 2
    BREAKPOINT = 3
    INVALID_OPCODE = 6
    DEVICE_NOT_AVAILABLE = 7
    DOUBLE_FAULT = 8
    SEGMENT_NOT_PRESENT = 11
    STACK_FAULT = 12
    GENERAL_PROTECTION = 13
    PAGE_FAULT = 14
    X87_FLOATING_POINT = 16
    MACHINE_CHECK = 18
    SIMD_FLOATING_POINT = 19
    VECTOR = 0x100
    CORRUPT_PAGE_TABLE = 0x101
    SPIN = 0x102
    WAIT_FOR_STOP = 0x103
    MEASURE_GAPS = 0x104


@register_enum
class HvStatus(IntEnum):
    """Ref: TLFS, "Hypercall Status Codes"."""

    SUCCESS = 0
    INVALID_PARAMETER = 5
    INVALID_VP_STATE = 0x15
    INVALID_REGISTER_VALUE = 0x50


@dataclass(frozen=True, slots=True)
class VpRegister:
    """A register kept as state of the virtual processor: TLFS name and number, reset value, bits that SET may give.

    Bits that reset to 1 are hard-wired: they read as 1 whatever SET gave.
    """

    name: str
    number: int
    reset: int
    writable: int


_ALL = (1 << 64) - 1
_PHYS_BASE = (1 << 52) - 1 & ~0xF00
_PHYS_MASK = (1 << 52) - 1 & ~0x7FF
_VARIABLE_RANGES = 8
MTRR_CAP = 0x500 | _VARIABLE_RANGES
"""Write-combining, fixed ranges, eight variable ranges. Ref: SDM vol. 3A, 12.11.1."""

_FIXED_RANGES = (
    "Fix64k00000", "Fix16k80000", "Fix16kA0000", "Fix4kC0000", "Fix4kC8000", "Fix4kD0000", "Fix4kD8000", "Fix4kE0000",
    "Fix4kE8000", "Fix4kF0000", "Fix4kF8000",
)

VP_REGISTERS: tuple[VpRegister, ...] = (
    *(VpRegister(f"HvX64RegisterDr{n}", 0x50000 + n, 0, _ALL) for n in range(4)),
    VpRegister("HvX64RegisterDr6", 0x50004, 0xFFFF0FF0, 0xFFFFFFFF),
    VpRegister("HvX64RegisterDr7", 0x50005, 0x400, 0xFFFFFFFF),
    VpRegister("HvX64RegisterMsrMtrrCap", 0x8000D, MTRR_CAP, 0),
    VpRegister("HvX64RegisterMsrMtrrDefType", 0x8000E, 0, 0xCFF),
    *(VpRegister(f"HvX64RegisterMsrMtrrPhysBase{n}", 0x80010 + n, 0, _PHYS_BASE) for n in range(_VARIABLE_RANGES)),
    *(VpRegister(f"HvX64RegisterMsrMtrrPhysMask{n}", 0x80040 + n, 0, _PHYS_MASK) for n in range(_VARIABLE_RANGES)),
    *(VpRegister(f"HvX64RegisterMsrMtrr{name}", 0x80070 + n, 0, _ALL) for n, name in enumerate(_FIXED_RANGES)),
)
"""Every register that GET and SET know without a guest. Ref: TLFS register names; SDM vol. 3A, 12.11 and 18.2."""
