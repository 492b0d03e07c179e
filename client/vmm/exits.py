"""Why a virtual processor stopped, one class per reason, decoded from the command page after a run.

    match vp.run():
        case PortExit(port=0x3F8, write=True) as exit: ...
        case MemoryExit(gpa=gpa, write=write): ...

The first group are the exits that an intercept message tells of, and rip is at the instruction; with `length` bytes it
is over (`Vp.advance_rip`). The second group are runs that ended without one. Ref: layout/hv_messages.py, layout/run.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.client.vmm.fields import Fields
from sidecar.client.vmm.registers import Segment
from sidecar.layout import hv_messages as hv
from sidecar.layout.command import CommandPage, HvMessage
from sidecar.layout.hv import HvInterruptionType
from sidecar.layout.run import RunEnd
from sidecar.protocol.errors import ProtocolError

MESSAGE = int(CommandPage.intercept_message)
PAYLOAD = MESSAGE + int(HvMessage.payload)
TYPE = struct.Struct("<I")
READ, WRITE, EXECUTE = hv.HvInterceptAccess.READ, hv.HvInterceptAccess.WRITE, hv.HvInterceptAccess.EXECUTE


@dataclass(frozen=True, slots=True)
class Exit:
    """rip: where the guest stands."""

    rip: int

    @property
    def reason(self) -> str:
        """For ledgers: `port`, `memory`, `halt`, ..."""
        return REASONS[type(self)]

    @property
    def detail(self) -> str:
        """What distinguishes exits of the same reason, such as the port."""
        return ""


@dataclass(frozen=True, slots=True)
class Intercept(Exit):
    """Head of every message: length is that of the instruction, 0 if not known; state has HvExecutionState."""

    rflags: int
    cs: Segment
    length: int
    access: int
    state: int
    cr8: int

    @property
    def write(self) -> bool:
        return self.access == WRITE

    @property
    def in_shadow(self) -> bool:
        """The guest is in an interrupt shadow."""
        return bool(self.state & hv.HvExecutionState.INTERRUPT_SHADOW)


@dataclass(frozen=True, slots=True)
class PortExit(Intercept):
    """An access to a port: size bytes, once, or with `string` and `rep` as often as rcx says."""

    port: int
    size: int
    string: bool
    rep: bool
    rax: int
    code: bytes
    ds: Segment
    es: Segment

    @property
    def detail(self) -> str:
        return f"{'out' if self.write else 'in'}{'s' if self.string else ''} {self.port:#x} {self.size}"


@dataclass(frozen=True, slots=True)
class MsrExit(Intercept):
    """RDMSR or WRMSR of an MSR that the sidecar does not know; value is EDX:EAX."""

    msr: int
    value: int

    @property
    def detail(self) -> str:
        return f"{'wrmsr' if self.write else 'rdmsr'} {self.msr:#x}"


@dataclass(frozen=True, slots=True)
class CpuidExit(Intercept):
    """CPUID, where Vp.cpuid_exits asked for it; default is what the sidecar would answer: EAX, EBX, ECX, EDX."""

    leaf: int
    subleaf: int
    default: tuple[int, int, int, int]

    @property
    def detail(self) -> str:
        return f"{self.leaf:#x}.{self.subleaf:#x}"


@dataclass(frozen=True, slots=True)
class MemoryExit(Intercept):
    """An access to memory that is not mapped, or, with `mapped`, not with that right; gva is None if not known."""

    gpa: int
    gva: int | None
    mapped: bool
    code: bytes

    @property
    def detail(self) -> str:
        return f"{('read', 'write', 'execute')[self.access] if self.access < 3 else '?'} {self.gpa:#x}"


@dataclass(frozen=True, slots=True)
class ExceptionExit(Intercept):
    """An exception that Vp.exception_exits asked for, not delivered; parameter is the address of a page fault."""

    vector: int
    error_code: int | None
    parameter: int
    software: bool
    code: bytes

    @property
    def detail(self) -> str:
        return f"vector {self.vector}"


@dataclass(frozen=True, slots=True)
class HaltExit(Intercept):
    """HLT."""


@dataclass(frozen=True, slots=True)
class TripleFaultExit(Intercept):
    """An exception that could not be delivered, nor the double fault that it became."""


@dataclass(frozen=True, slots=True)
class WindowExit(Intercept):
    """What the VMM waited for can be delivered now: an interrupt, or an NMI."""

    nmi: bool


@dataclass(frozen=True, slots=True)
class InvalidStateExit(Exit):
    """No guest can be entered with these registers: number of the broken rule, 0 if the processor names none."""

    rule: int
    value: int

    @property
    def detail(self) -> str:
        return f"rule {self.rule}"


@dataclass(frozen=True, slots=True)
class UnsupportedExit(Exit):
    """An exit that this sidecar does not know; code is the back end's."""

    code: int

    @property
    def detail(self) -> str:
        return f"{self.code:#x}"


@dataclass(frozen=True, slots=True)
class CancelledExit(Exit):
    """Somebody called Vp.stop()."""


@dataclass(frozen=True, slots=True)
class NotifiedExit(Exit):
    """Bits of the doorbell."""

    bits: int

    @property
    def detail(self) -> str:
        return f"{self.bits:#x}"


@dataclass(frozen=True, slots=True)
class TimeLimitExit(Exit):
    """The run's time is over."""


REASONS: dict[type[Exit], str] = {
    PortExit: "port", MsrExit: "msr", CpuidExit: "cpuid", MemoryExit: "memory", ExceptionExit: "exception",
    HaltExit: "halt", TripleFaultExit: "triple fault", WindowExit: "interrupt window",
    InvalidStateExit: "invalid state", UnsupportedExit: "unsupported", CancelledExit: "cancelled",
    NotifiedExit: "notified", TimeLimitExit: "time limit",
}  # fmt: skip

_HEAD = Fields(
    hv.InterceptHeader, "instruction_length", "access_type", "execution_state", "cs.base", "cs.limit", "cs.selector",
    "cs.attributes", "rip", "rflags",
)  # fmt: skip
_DS_ES = tuple(f"{name}.{field}" for name in ("ds", "es") for field in ("base", "limit", "selector", "attributes"))
_PORT = Fields(
    hv.IoPortMessage, "port", "access_info", "instruction_byte_count", "rax", "instruction_bytes", *_DS_ES
)
_MSR = Fields(hv.MsrMessage, "msr", "rdx", "rax")
_CPUID = Fields(hv.CpuidMessage, "rax", "rcx", "default_rax", "default_rcx", "default_rdx", "default_rbx")
_MEMORY = Fields(
    hv.MemoryMessage, "instruction_byte_count", "memory_access_info", "gva", "gpa", "instruction_bytes"
)
_EXCEPTION = Fields(
    hv.ExceptionMessage, "vector", "exception_info", "instruction_byte_count", "error_code", "exception_parameter",
    "instruction_bytes",
)  # fmt: skip
_WINDOW = Fields(hv.InterruptionDeliverableMessage, "deliverable_type")
_INVALID = Fields(hv.InvalidVpRegisterMessage, "rule", "value")
_UNSUPPORTED = Fields(hv.UnsupportedFeatureMessage, "feature_parameter")
_LOW = 0xFFFFFFFF

Head = tuple[int, int, Segment, int, int, int, int]


def _head(page: memoryview) -> Head:
    length, access, state, base, limit, selector, attributes, rip, rflags = _HEAD(page, PAYLOAD)
    return rip, rflags, Segment(base, limit, selector, attributes), length & 0xF, access, state, length >> 4


def _port(page: memoryview, rip: int) -> Exit:
    port, info, count, rax, code, *segments = _PORT(page, PAYLOAD)
    return PortExit(
        *_head(page), port, info & hv.HvIoAccess.SIZE, bool(info & hv.HvIoAccess.STRING),
        bool(info & hv.HvIoAccess.REP), rax, code[:count], Segment(*segments[:4]), Segment(*segments[4:]),
    )  # fmt: skip


def _msr(page: memoryview, rip: int) -> Exit:
    msr, rdx, rax = _MSR(page, PAYLOAD)
    return MsrExit(*_head(page), msr, (rdx & _LOW) << 32 | rax & _LOW)


def _cpuid(page: memoryview, rip: int) -> Exit:
    leaf, subleaf, eax, ecx, edx, ebx = (value & _LOW for value in _CPUID(page, PAYLOAD))
    return CpuidExit(*_head(page), leaf, subleaf, (eax, ebx, ecx, edx))


def _memory(page: memoryview, mapped: bool) -> Exit:
    count, info, gva, gpa, code = _MEMORY(page, PAYLOAD)
    known = gva if info & hv.HvMemoryAccess.GVA_VALID else None
    return MemoryExit(*_head(page), gpa, known, mapped, code[:count])


def _exception(page: memoryview, rip: int) -> Exit:
    vector, info, count, error_code, parameter, code = _EXCEPTION(page, PAYLOAD)
    known = error_code if info & hv.HvExceptionInfo.ERROR_CODE_VALID else None
    software = bool(info & hv.HvExceptionInfo.SOFTWARE)
    return ExceptionExit(*_head(page), vector, known, parameter, software, code[:count])


def _window(page: memoryview, rip: int) -> Exit:
    return WindowExit(*_head(page), _WINDOW(page, PAYLOAD)[0] == HvInterruptionType.NMI)


_DECODERS: dict[int, Callable[[memoryview, int], Exit]] = {
    hv.HvMessageType.X64_IO_PORT_INTERCEPT: _port,
    hv.HvMessageType.X64_MSR_INTERCEPT: _msr,
    hv.HvMessageType.X64_CPUID_INTERCEPT: _cpuid,
    hv.HvMessageType.UNMAPPED_GPA: lambda page, rip: _memory(page, False),
    hv.HvMessageType.GPA_INTERCEPT: lambda page, rip: _memory(page, True),
    hv.HvMessageType.X64_EXCEPTION_INTERCEPT: _exception,
    hv.HvMessageType.X64_HALT: lambda page, rip: HaltExit(*_head(page)),
    hv.HvMessageType.UNRECOVERABLE_EXCEPTION: lambda page, rip: TripleFaultExit(*_head(page)),
    hv.HvMessageType.X64_INTERRUPTION_DELIVERABLE: _window,
    hv.HvMessageType.INVALID_VP_REGISTER_VALUE: lambda page, rip: InvalidStateExit(rip, *_INVALID(page, PAYLOAD)),
    hv.HvMessageType.UNSUPPORTED_FEATURE: lambda page, rip: UnsupportedExit(rip, *_UNSUPPORTED(page, PAYLOAD)),
}


def decode_exit(page: memoryview, end: int, rip: int, bits: int) -> Exit:
    """The exit that a run with that RunEnd left in the command page. Raises ProtocolError for one of none."""
    if end == RunEnd.INTERCEPT:
        (kind,) = TYPE.unpack_from(page, MESSAGE)
        decoder = _DECODERS.get(kind)
        if decoder is None:
            raise ProtocolError(f"the intercept message has type {kind:#x}, which the TLFS does not give to a VMM")
        return decoder(page, rip)
    if end == RunEnd.NOTIFIED:
        return NotifiedExit(rip, bits)
    if end == RunEnd.CANCELLED:
        return CancelledExit(rip)
    if end == RunEnd.TIME_LIMIT:
        return TimeLimitExit(rip)
    raise ProtocolError(f"a run ended with {end}, expected one of {', '.join(one.name for one in RunEnd)}")
