"""A CPU whose guest is a script: each RUN_VP takes the next step, which writes what a run leaves in the command page.

    cpu = ScriptedCpu([port_out(0x3F8, b"A"), halt()])
    backing = ScriptedBacking([cpu])
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.client.ends import PolledEnds
from sidecar.client.vmm.vp import SHORTEST_TICKS
from sidecar.client.vmm.waiting import PolledWaiter
from sidecar.layout import hv_messages as hv
from sidecar.layout.command import CommandPage, HvMessage, SidecarCommand
from sidecar.layout.control import CpuStatus
from sidecar.layout.hv import HvX64SegmentRegister, TranslateGvaRequest, TranslateGvaResponse
from sidecar.layout.hv_registers import HvRegisterName
from sidecar.layout.ioctl import GuestRights
from sidecar.layout.run import RunEnd, VpRun
from sidecar.layout.schema import Layout
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.typed import Ticks

RUN, MESSAGE = int(CommandPage.run), int(CommandPage.intercept_message)
CODE_64 = {"base": 0, "limit": 0xFFFFFFFF, "selector": 8, "attributes": 0xA09B}
SHADOW = int(HvRegisterName.HvRegisterInterruptState)
RIP, RFLAGS = int(HvRegisterName.HvX64RegisterRip), int(HvRegisterName.HvX64RegisterRflags)
STATE_64 = int(hv.HvExecutionState.EFER_LMA | hv.HvExecutionState.CR0_PE)
Step = Callable[["ScriptedCpu"], None]


@dataclass(frozen=True)
class Inputs:
    """What one RUN_VP got."""

    time_limit: int
    flags: int
    exceptions: int
    advance: int
    rax: int


class ScriptedRun:
    """A started run: it ends when its step has been done, which release() does for a step that waits."""

    def __init__(self, cpu: ScriptedCpu) -> None:
        self._cpu = cpu

    def wait(self, *, seconds: float = 10.0) -> bytes:
        assert self._cpu.ended.wait(seconds), "nobody ended the run"
        self._cpu.status = CpuStatus.IDLE
        return b""


class ScriptedCpu:
    """Stands for a TypedCpu. `registers` are those that are not in the page, by TLFS number."""

    def __init__(self, steps: Iterable[Step] = (), *, number: int = 1) -> None:
        self.number, self.numbers = number, CpuNumbers(number, number, 0, number)
        self.memory = memoryview(bytearray(CommandPage.SIZE))
        self.register_page, self.xsave = memoryview(bytearray(4096)), bytes(4096)
        self.steps: deque[Step] = deque(steps)
        self.registers: dict[int, int] = {}
        self.sets: list[dict[int, int]] = []
        self.runs: list[Inputs] = []
        self.status = CpuStatus.IDLE
        self.claimed = False
        self.ended = threading.Event()
        self.translated: list[int] = []
        self.waiting = False
        self.doorbell = 0

    # --- as a TypedCpu ---------------------------------------------------------------------------------------------

    def claim(self) -> None:
        self.claimed = True

    def release(self) -> None:
        self.claimed = False

    def ticks(self) -> Ticks:
        return Ticks(1000, 3000)

    def execute(self, command: int, data: bytes = b"", *, seconds: float = 10.0) -> bytes:
        if command == SidecarCommand.TRANSLATE_GVA:
            page = TranslateGvaRequest.parse(data).gvn
            self.translated.append(page << 12)
            nothing = {one.name: _nothing(one) for one in TranslateGvaResponse.fields if "reserved" not in one.name}
            return TranslateGvaResponse.build(**nothing | {"gpa_page": page})
        if command == SidecarCommand.GET_VP_XSAVE:
            self.register_page[:] = self.xsave
        elif command == SidecarCommand.SET_VP_XSAVE:
            self.xsave = bytes(self.register_page)
        else:
            assert command == SidecarCommand.RUN_VP
            self._run()
        return b""

    def start(self, command: int, data: bytes = b"") -> ScriptedRun:
        assert command == SidecarCommand.RUN_VP
        self.status = CpuStatus.RUN
        self.waiting = False
        self.ended.clear()
        self._run()
        if not self.waiting:
            self.end()
        return ScriptedRun(self)

    def stop(self) -> bool:
        if self.status != CpuStatus.RUN or self.ended.is_set():
            return False
        outcome(self, RunEnd.CANCELLED)
        self.end()
        return True

    def get_registers(self, names: Iterable[int]) -> dict[int, int]:
        return {name: self.registers.get(name, 0) for name in names}

    def set_registers(self, values: Mapping[int, int]) -> None:
        self.sets.append(dict(values))
        self.registers |= values

    # --- the script ------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The run is over."""
        self.waiting = False
        self.status = CpuStatus.IDLE
        self.ended.set()

    def _run(self) -> None:
        time_limit, flags, exceptions, advance = struct.unpack_from("<QIIB", self.memory, RUN)
        (rax,) = struct.unpack_from("<Q", self.memory, int(CommandPage.cpu_context.gps))
        self.memory[RUN + int(VpRun.advance_rip)] = 0
        if time_limit == SHORTEST_TICKS:
            self._settle(advance)
            return
        self.runs.append(Inputs(time_limit, flags, exceptions, advance, rax))
        self.steps.popleft()(self)

    def _settle(self, advance: int) -> None:
        """A run whose time is over at its beginning takes no step of the script."""
        self.registers[RIP] = self.registers.get(RIP, 0) + advance
        if advance:
            self.registers[SHADOW] = self.registers.get(SHADOW, 0) & ~1
        outcome(self, RunEnd.TIME_LIMIT, rip=self.registers[RIP], notifications=self.doorbell)
        self.doorbell = 0


class ScriptedBacking:
    """A VmBacking over scripted CPUs."""

    tsc_khz = 1_000_000
    slice_seconds = 1.0

    def __init__(self, cpus: Iterable[ScriptedCpu]) -> None:
        self.cpus = {cpu.number: cpu for cpu in cpus}
        self.mapped: dict[int, tuple[int, GuestRights]] = {}
        self.rung: list[tuple[int, int]] = []
        self.created: list[int] = []
        self.closed = False

    def cpu(self, number: int) -> Any:
        return self.cpus[number]

    def page(self, cpu: Any) -> memoryview:
        assert cpu.claimed
        memory: memoryview = cpu.memory
        return memory

    def register_page(self, cpu: Any) -> memoryview:
        memory: memoryview = cpu.register_page
        return memory

    def allocate(self, size: int) -> memoryview:
        return memoryview(bytearray(size))

    def map(self, gpa: int, memory: memoryview, rights: GuestRights) -> None:
        self.mapped[gpa] = len(memory), rights

    def unmap(self, gpa: int, size: int) -> None:
        assert self.mapped.pop(gpa)[0] == size

    def create_vp(self, cpu: Any) -> None:
        assert cpu.claimed
        self.created.append(cpu.number)

    def destroy_vp(self, cpu: Any) -> None:
        self.created.remove(cpu.number)

    def ring(self, cpu: Any, bits: int) -> None:
        self.rung.append((cpu.number, bits))
        cpu.doorbell |= bits

    def status(self, cpu: int) -> int:
        return self.cpus[cpu].status

    def waiter(self) -> PolledWaiter:
        runner: Any = self
        return PolledWaiter(runner)

    def ends(self) -> PolledEnds:
        runner: Any = self
        return PolledEnds(runner)

    def close(self) -> None:
        self.closed = True


# --- steps ------------------------------------------------------------------------------------------------------------


def outcome(cpu: ScriptedCpu, end: int, *, rip: int = 0x1000, notifications: int = 0, **more: int) -> None:
    """Writes the run's outcome; notifications are ORed, as the CPU does."""
    before = VpRun.parse(cpu.memory[RUN : RUN + VpRun.SIZE])
    values = {field.name: 0 for field in VpRun.fields if not field.name.startswith("reserved")}
    kept = {name: int(before[name]) for name in ("time_limit", "flags", "exception_intercepts")}
    bits = int(before.notifications) | notifications
    written = values | kept | {"end": end, "rip": rip, "rflags": 2, "guest_entries": 1, **more, "notifications": bits}
    cpu.memory[RUN : RUN + VpRun.SIZE] = VpRun.build(**written)


def ends(end: int, **more: int) -> Step:
    """A run without a message."""
    return lambda cpu: outcome(cpu, end, **more)


def waits(cpu: ScriptedCpu) -> None:
    """A run that goes on until somebody ends it."""
    cpu.waiting = True


def message(layout: Layout, kind: hv.HvMessageType, *, notifications: int = 0, head: Mapping[str, Any] | None = None,
            **fields: Any) -> Step:  # fmt: skip
    """A run that ends with that message; `head` are fields of its header, the others are zero."""
    header = {"vp_index": 0, "instruction_length": 1, "access_type": 0, "execution_state": STATE_64, "cs": CODE_64,
              "rip": 0x1000, "rflags": 0x202, **(head or {})}  # fmt: skip
    values = {field.name: _nothing(field) for field in layout.fields if not field.name.startswith("reserved")}
    values |= fields | ({"header": header} if "header" in values else {})

    def step(cpu: ScriptedCpu) -> None:
        payload = layout.build(**values)
        data = HvMessage.build(message_type=int(kind), payload_size=len(payload), message_flags=0, origination_id=0,
                               payload=payload.ljust(240, b"\0"))  # fmt: skip
        cpu.memory[MESSAGE : MESSAGE + HvMessage.SIZE] = data
        outcome(cpu, RunEnd.INTERCEPT, rip=header["rip"], rflags=header["rflags"], notifications=notifications)

    return step


def port(number: int, size: int = 1, *, write: bool = True, value: int = 0, length: int = 1, **more: Any) -> Step:
    head = {"instruction_length": length, "access_type": int(write)} | more.pop("head", {})
    return message(hv.IoPortMessage, hv.HvMessageType.X64_IO_PORT_INTERCEPT, head=head, port=number, rax=value,
                   **{"access_info": size, **more})  # fmt: skip


def halt(*, on: bool = False) -> Step:
    """HLT, with interrupts on or off."""
    return message(hv.HaltMessage, hv.HvMessageType.X64_HALT, head={"rflags": 0x202 if on else 2})


def _nothing(field: Any) -> Any:
    if field.nested is HvX64SegmentRegister:
        return {"base": 0, "limit": 0, "selector": 0, "attributes": 0}
    if field.nested is not None:
        return {}
    if field.format:
        return 0 if field.count == 1 else [0] * field.count
    return bytes(field.size)
