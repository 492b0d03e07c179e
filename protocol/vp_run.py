"""One RUN_VP in the command page: its inputs written, its outcome read whole, for the host and the tests.

The client in the guest reads what an exit needs and no more, by the same layouts: client/vmm/exits.py.

    write_gps(page, {"rax": 5})
    write_run(page, advance_rip=2)
    ...RUN_VP...
    outcome = read_run(page)
    if outcome.message and outcome.message.type == HvMessageType.X64_HALT: ...
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from sidecar.layout.command import CommandPage, HvMessage
from sidecar.layout.hv_messages import (
    CpuidMessage,
    ExceptionMessage,
    HaltMessage,
    HvMessageType,
    InterruptionDeliverableMessage,
    InvalidVpRegisterMessage,
    IoPortMessage,
    MemoryMessage,
    MsrMessage,
    UnrecoverableExceptionMessage,
    UnsupportedFeatureMessage,
)
from sidecar.layout.run import RunEnd, VpRun
from sidecar.layout.schema import Layout

BODIES: dict[HvMessageType, Layout] = {
    HvMessageType.UNMAPPED_GPA: MemoryMessage,
    HvMessageType.GPA_INTERCEPT: MemoryMessage,
    HvMessageType.INVALID_VP_REGISTER_VALUE: InvalidVpRegisterMessage,
    HvMessageType.UNRECOVERABLE_EXCEPTION: UnrecoverableExceptionMessage,
    HvMessageType.UNSUPPORTED_FEATURE: UnsupportedFeatureMessage,
    HvMessageType.X64_IO_PORT_INTERCEPT: IoPortMessage,
    HvMessageType.X64_MSR_INTERCEPT: MsrMessage,
    HvMessageType.X64_CPUID_INTERCEPT: CpuidMessage,
    HvMessageType.X64_EXCEPTION_INTERCEPT: ExceptionMessage,
    HvMessageType.X64_HALT: HaltMessage,
    HvMessageType.X64_INTERRUPTION_DELIVERABLE: InterruptionDeliverableMessage,
}
"""The layout of each message's payload."""

GENERAL = ("rax", "rcx", "rdx", "rbx", "cr2", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
"""The names of CpuContextX64.gps, by index."""

_GPS, _FX = int(CommandPage.cpu_context.gps), int(CommandPage.cpu_context.fx_state)
_RUN, _MESSAGE = int(CommandPage.run), int(CommandPage.intercept_message)
_QUADS = struct.Struct("<16Q")
_INPUTS = struct.Struct("<QIIB")


@dataclass(frozen=True, slots=True)
class Message:
    """An intercept message: `body` is its layout parsed; `header` is body.header, if the message has one."""

    type: HvMessageType
    body: Any

    @property
    def header(self) -> Any:
        return self.body.header

    @property
    def instruction_length(self) -> int:
        """Bytes to step over; 0 if not known."""
        return int(self.header.instruction_length) & 15

    @property
    def instruction(self) -> bytes:
        """The instruction's bytes, as many as could be read."""
        return bytes(self.body.instruction_bytes[: self.body.instruction_byte_count])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in the command page."""

    end: RunEnd
    message: Message | None
    notifications: int
    guest_entries: int
    local_exits: int
    guest_tsc: int
    exit_code: int
    exit_info_1: int
    exit_info_2: int
    rip: int
    rsp: int
    rflags: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    cs_attributes: int
    cpl: int
    gps: dict[str, int]


def write_run(
    page: memoryview, *, time_limit: int = 0, flags: int = 0, exception_intercepts: int = 0, advance_rip: int = 0
) -> None:
    """The inputs of a run; notifications are cleared."""
    _INPUTS.pack_into(page, _RUN, time_limit, flags, exception_intercepts, advance_rip)
    struct.pack_into("<Q", page, _RUN + int(VpRun.notifications), 0)


def write_gps(page: memoryview, values: dict[str, int]) -> None:
    """Some of the general registers, and CR2, by GENERAL's names."""
    for name, value in values.items():
        struct.pack_into("<Q", page, _GPS + 8 * GENERAL.index(name), value)


def read_gps(page: memoryview) -> dict[str, int]:
    """All of them."""
    return dict(zip(GENERAL, _QUADS.unpack_from(page, _GPS), strict=True))


def read_run(page: memoryview) -> Outcome:
    """The outcome of the last run."""
    run = VpRun.parse(page[_RUN : _RUN + VpRun.SIZE])
    end = RunEnd(run.end)
    message = read_message(page) if end is RunEnd.INTERCEPT else None
    plain = [field for field in Outcome.__slots__ if field not in ("end", "message", "gps")]
    values: dict[str, int] = {name: int(run[name]) for name in plain}
    return Outcome(end=end, message=message, gps=read_gps(page), **values)


def read_message(page: memoryview) -> Message:
    """The intercept message; ValueError for one that BODIES does not have."""
    raw = HvMessage.parse(page[_MESSAGE : _MESSAGE + HvMessage.SIZE])
    kind = HvMessageType(raw.message_type)
    return Message(kind, BODIES[kind].parse(raw.payload))


def fx_state(page: memoryview) -> memoryview:
    """The 512 bytes of x87 and SSE state."""
    return page[_FX : _FX + CommandPage.cpu_context.fx_state.SIZE]
