"""One CPU of a simulated sidecar: a thread that plays the CPU side of the protocol over pages in this process.

It shares the layouts with the driver, and the atomic operations, but none of its code. It understands NONE, GET and SET
of registers, and of RAISE the kinds in `_raise`; every other kind faults. It looks for INIT before every step, as
hardware does between instructions.
"""

from __future__ import annotations

import struct
import threading
import time
from dataclasses import dataclass

from sidecar.layout import (
    ABI_VERSION,
    PAGE_SIZE,
    CommandPage,
    ControlPage,
    CpuStatus,
    DiagnosticPage,
    FieldOffset,
    GetSetVpRegisterRequest,
    HvRegisterAssoc,
    PrivatePage,
    RaiseKind,
    RaiseRequest,
    SharedPage,
    SidecarCommand,
    abi_hash,
    private_pa,
    shared_pa,
)
from sidecar.layout.diagnostics import RECORDER_ENTRIES, Recorder, RecorderEntry, RecorderEvent
from sidecar.layout.x86 import Icr
from sidecar.protocol.atomics import AtomicU8, AtomicU32, AtomicU64

APIC_BASE = 0x100
RIP_OF_FAULTS = 0xFFFFFF8000001234
UNKNOWN_COMMAND = "the simulated CPU does not know this command"


class _Init(Exception):
    """INIT has arrived."""


class _End(Exception):
    """The test is over."""


@dataclass(frozen=True, slots=True)
class SimulatedNode:
    """Where a node's pages are."""

    control_pa: int
    shared_pa: int
    private_pa: int
    base_cpu: int
    cpu_count: int


class SimulatedCpu:
    """One CPU. `deaf` ignores requests and STARTUP; `eager` looks at its status without being asked to."""

    def __init__(self, memory: memoryview, node: SimulatedNode, index: int) -> None:
        self.linux, self.apic_id, self.index = node.base_cpu + index, APIC_BASE + node.base_cpu + index, index
        control = node.control_pa
        self.status = AtomicU8(memory, control + ControlPage.cpu_status + index)
        self.attention = AtomicU32(memory, control + ControlPage.needs_attention)
        self.response = AtomicU64(memory, control + ControlPage.response_cpu)
        self.memory = memory
        self.command_pa = shared_pa(control, index, SharedPage.COMMAND)
        self.diagnostic_pa = private_pa(control, node.cpu_count, index, PrivatePage.DIAGNOSTIC)
        self.deaf = self.eager = False
        self.executed: list[int] = []
        self.responses = 0
        self.registers: dict[int, int] = {}
        self.hold = threading.Event()  # cleared: the CPU stops before it takes the next command
        self.hold.set()
        self._wake = threading.Condition()
        self._init = self._startup = self._request = self._ended = False
        self._thread = threading.Thread(target=self._live, name=f"simulated-cpu-{self.linux}", daemon=True)

    # --- from outside ----------------------------------------------------------------------------------------------

    def boot(self) -> None:
        self._put("<Q", self.diagnostic_pa + DiagnosticPage.boot.arrivals, 1)
        self._put("<I", self.diagnostic_pa + DiagnosticPage.boot.apic_id, self.apic_id)
        self._put("<I", self.diagnostic_pa + DiagnosticPage.boot.linux_number, self.linux)
        self._stamp()
        assert self.status.compare_exchange(CpuStatus.REMOVED, CpuStatus.IDLE) == CpuStatus.REMOVED
        self._thread.start()

    def interrupt(self, kind: int) -> None:
        with self._wake:
            if kind == Icr.INIT:
                self._init, self._startup = True, False
            elif kind == Icr.STARTUP:
                self._startup = not self.deaf
            elif not self.deaf:
                self._request = True
            self._wake.notify_all()

    @property
    def init_pending(self) -> bool:
        return self._init

    def end(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify_all()
        self.hold.set()
        if self._thread.is_alive():
            self._thread.join(10)

    # --- the life of the CPU ---------------------------------------------------------------------------------------

    def _live(self) -> None:
        arrived = True
        while True:
            try:
                if not arrived:
                    self._wait_for_startup()
                    arrived = self._arrive()
                else:
                    self._park()
            except _Init:
                arrived = False
            except _End:
                return

    def _step(self, seconds: float = 0.0) -> None:
        """One instruction, or a wait for an interrupt of up to `seconds`."""
        with self._wake:
            if seconds and not (self._init or self._ended or self._request):
                self._wake.wait(seconds)
            if self._ended:
                raise _End
            if self._init:
                self._init = self._request = False
                self._wake.notify_all()
                raise _Init

    def _wait_for_startup(self) -> None:
        while True:
            self._step()
            with self._wake:
                if self._startup:
                    self._startup = False
                    return
                self._wake.wait(0.05)

    def _arrive(self) -> bool:
        if self.status.load() not in (CpuStatus.RUN, CpuStatus.STOP, CpuStatus.IDLE):
            return False
        arrivals = self._get("<Q", self.diagnostic_pa + DiagnosticPage.boot.arrivals)
        self._put("<Q", self.diagnostic_pa + DiagnosticPage.boot.arrivals, arrivals + 1)
        self.memory[self.command_pa : self.command_pa + PAGE_SIZE] = bytes(PAGE_SIZE)
        self._stamp()
        self._step()
        self._finish()
        return True

    def _stamp(self) -> None:
        """Every arrival says of which ABI it is."""
        self._put("<I", self.command_pa + CommandPage.abi_version, ABI_VERSION)
        self._put("<Q", self.command_pa + CommandPage.abi_hash, abi_hash())

    def record(self, event: RecorderEvent, value: int) -> None:
        """An entry of the flight recorder."""
        ring = self.diagnostic_pa + DiagnosticPage.recorder
        written = self._get("<Q", ring)
        entry = ring + Recorder.entries + RecorderEntry.SIZE * (written % RECORDER_ENTRIES)
        self.memory[entry : entry + RecorderEntry.SIZE] = RecorderEntry.build(tsc=0, event=event, value=value)
        self._put("<Q", ring, written + 1)

    def _park(self) -> None:
        self._step(0.0 if self.eager else 0.05)
        with self._wake:
            if not (self._request or self.eager):
                return
            self._request = False
        status = self.status.load()
        if status in (CpuStatus.RUN, CpuStatus.STOP):
            while not self.hold.wait(0.001):
                self._step()
            self._execute()
        elif status == CpuStatus.REMOVE:
            self._move(CpuStatus.REMOVE, CpuStatus.REMOVED)
            self._raise_attention()
            while True:
                self._step(0.05)
        elif self.eager:
            time.sleep(0)

    def _execute(self) -> None:
        command = self._get("<I", self.command_pa + CommandPage.command)
        self.record(RecorderEvent.COMMAND, command)
        sequence = self._get("<Q", self.command_pa + CommandPage.sequence)
        self._put("<I", self.command_pa + CommandPage.command, SidecarCommand.NONE)
        self.memory[self.command_pa + CommandPage.has_error] = 0
        self._step()
        if command in (SidecarCommand.GET_VP_REGISTERS, SidecarCommand.SET_VP_REGISTERS):
            self._exchange_registers(set_them=command == SidecarCommand.SET_VP_REGISTERS)
        elif command == SidecarCommand.RAISE:
            self._raise(command)
        elif command != SidecarCommand.NONE:
            self._error(UNKNOWN_COMMAND)
        self.executed.append(sequence)
        self._put("<Q", self.command_pa + CommandPage.completed_sequence, sequence)
        self._step()
        self._finish()

    def _exchange_registers(self, *, set_them: bool) -> None:
        start = self.command_pa + CommandPage.request_data
        count = self._get("<H", start + GetSetVpRegisterRequest.count)
        if not 1 <= count <= 31:
            self._error(f"count {count}, expected 1 to 31")
            return
        for entry in range(start + 16, start + 16 + count * HvRegisterAssoc.SIZE, HvRegisterAssoc.SIZE):
            name = self._get("<I", entry + HvRegisterAssoc.name)
            if set_them:
                self.registers[name] = self._get("<Q", entry + HvRegisterAssoc.value)
            else:
                self._put("<Q", entry + HvRegisterAssoc.value, self.registers.get(name, 0))

    def _raise(self, command: int) -> None:
        start = self.command_pa + CommandPage.request_data
        kind = self._get("<I", start + RaiseRequest.kind)
        if kind == RaiseKind.VECTOR:
            return
        if kind == RaiseKind.SPIN:
            while True:
                self._step(0.001)
        if kind == RaiseKind.WAIT_FOR_STOP:
            while self.status.load() != CpuStatus.STOP:
                self._step(0.001)
            return
        self.fault(kind, command=command, address=self._get("<Q", start + RaiseRequest.argument))

    def fault(self, vector: int, *, command: int = 0, address: int = 0) -> None:
        """Contains a fault: record, FAULTED, attention, halt until INIT."""
        count = self._get("<Q", self.diagnostic_pa + DiagnosticPage.fault.count)
        for field, form, value in (
            (DiagnosticPage.fault.vector, "<I", vector),
            (DiagnosticPage.fault.rip, "<Q", RIP_OF_FAULTS),
            (DiagnosticPage.fault.cr2, "<Q", address),
            (DiagnosticPage.fault.command, "<I", command),
            (DiagnosticPage.fault.count, "<Q", count + 1),
        ):
            self._put(form, self.diagnostic_pa + field, value)
        for old in (CpuStatus.RUN, CpuStatus.STOP, CpuStatus.IDLE):
            if self._move(old, CpuStatus.FAULTED):
                break
        self._raise_attention()
        if threading.current_thread() is self._thread:
            while True:
                self._step(0.05)

    def _finish(self) -> None:
        if self._move(CpuStatus.RUN, CpuStatus.IDLE) or self._move(CpuStatus.STOP, CpuStatus.IDLE):
            self._raise_attention()

    # --- memory ----------------------------------------------------------------------------------------------------

    def _move(self, old: CpuStatus, new: CpuStatus) -> bool:
        return self.status.compare_exchange(old, new) == old

    def _raise_attention(self) -> None:
        self.attention.store(1)
        if self.response.load() >> 32:
            self.responses += 1

    def _error(self, sentence: str) -> None:
        data = sentence.encode()
        start = self.command_pa + CommandPage.error.text
        self.memory[start : start + len(data)] = data
        self.memory[self.command_pa + CommandPage.error.length] = len(data)
        self.memory[self.command_pa + CommandPage.has_error] = 1

    def _get(self, form: str, pa: int | FieldOffset) -> int:
        (value,) = struct.unpack_from(form, self.memory, pa)
        return int(value)

    def _put(self, form: str, pa: int | FieldOffset, value: int) -> None:
        struct.pack_into(form, self.memory, pa, value)
