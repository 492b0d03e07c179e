"""Commands on one CPU as calls, over any Runner: the command page is filled, run, checked and read back.

    cpu = TypedCpu(runner, 3)
    cpu.none()
    cpu.set_registers({"HvX64RegisterDr0": 0x1000})
    run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
    run.stop()
    run.wait()

Every command has a sequence number, and the CPU must name it as completed: another answer is a ProtocolError.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sidecar.layout.command import CommandPage, SidecarCommand
from sidecar.layout.control import CpuStatus
from sidecar.protocol import decode_command, requests
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import CpuBusy, CpuFaulted, NothingRuns, ProtocolError, SidecarCommandError
from sidecar.protocol.fault import Fault
from sidecar.protocol.requests import DATA_BYTES, MASK_64, Dialogue, Register, T, command_name, refusal
from sidecar.protocol.runner import COMMAND_SECONDS, Runner
from sidecar.protocol.translation import Translation

# Looked up once: they stand in the path of every command.
REQUEST_DATA, SEQUENCE, COMMAND = int(CommandPage.request_data), int(CommandPage.sequence), int(CommandPage.command)
COMPLETED, HAS_ERROR = int(CommandPage.completed_sequence), int(CommandPage.has_error)
U32, U64, COMPLETION = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class Ticks:
    """The TSC when the CPU took its last command, and when it was done."""

    start: int
    end: int


class TypedCpu:
    """One CPU, for one user at a time: a second thread gets CpuBusy. A claim keeps other objects away too."""

    def __init__(self, runner: Runner, number: int) -> None:
        self._runner, self.number = runner, number
        self.numbers: CpuNumbers = runner.numbers(number)
        self._turn = threading.Lock()
        self._ticks = Ticks(0, 0)

    # --- commands --------------------------------------------------------------------------------------------------

    def none(self, *, seconds: float = COMMAND_SECONDS) -> None:
        """Does nothing: an answer says that the CPU lives."""
        self._hold(requests.none(), seconds)

    def get_registers(self, names: Iterable[Register], *, seconds: float = COMMAND_SECONDS) -> dict[Register, int]:
        """The registers' values, under the names asked for; up to 31 per command."""
        return self._hold(requests.get_registers(names), seconds)

    def set_registers(self, values: Mapping[Register, int], *, seconds: float = COMMAND_SECONDS) -> None:
        """Stores the values; up to 31 per command. An error leaves the registers before it changed."""
        self._hold(requests.set_registers(values), seconds)

    def translate(self, linear: int, flags: int = 0, *, seconds: float = COMMAND_SECONDS) -> Translation:
        """Where a linear address of the stopped guest leads; `flags` are HvTranslateFlags."""
        return self._hold(requests.translate(linear, flags), seconds)

    def raise_fault(self, kind: int, argument: int = 0, *, seconds: float = COMMAND_SECONDS) -> None:
        """Makes the CPU fault on purpose (RaiseKind). Raises CpuFaulted if it did; a stray vector does not."""
        self._hold(requests.raise_fault(kind, argument), seconds)

    def _hold(self, dialogue: Dialogue[T], seconds: float) -> T:
        try:
            request = next(dialogue)
            while True:
                request = dialogue.send(self.execute(*request, seconds=seconds))
        except StopIteration as end:
            result: T = end.value
            return result

    def execute(self, command: int, data: bytes = b"", *, seconds: float = COMMAND_SECONDS) -> bytes:
        """Any command with any request data; returns the answer's data.

        Raises SidecarCommandError if the CPU answered with an error, ProtocolError, and as Runner.run() does.
        """
        with Turn(self) as turn:
            self._runner.run(
                self.number, seconds=seconds, owner=self, prepare=lambda: turn.fill(command, data)
            )
            return turn.answer(command)

    def start(self, command: int, data: bytes = b"") -> Run:
        """The same without waiting; the CPU is busy until the run has been waited for."""
        with Turn(self) as turn:
            self._runner.start(self.number, owner=self, prepare=lambda: turn.fill(command, data))
            turn.keep()
        return Run(self, turn, command)

    def ticks(self) -> Ticks:
        """Of the last command that this object had an answer to."""
        return self._ticks

    # --- the CPU itself --------------------------------------------------------------------------------------------

    @property
    def status(self) -> int:
        """The status byte as it is now."""
        return self._runner.status(self.number)

    def fault(self) -> Fault | None:
        """The last fault, None if there never was one."""
        return self._runner.fault(self.number)

    def claim(self) -> Claim:
        """Keeps everybody else away, until release() or the end of the block: `with cpu.claim(): ...`."""
        self._runner.claim(self.number, self)
        return Claim(self)

    def release(self) -> None:
        """Ends a claim."""
        self._runner.release(self.number, self)

    def stop(self) -> bool:
        """Asks the running command to end early; False if nothing runs."""
        return self._runner.stop(self.number, owner=self)

    def abandon(self, *, seconds: float = COMMAND_SECONDS) -> None:
        """Ends a command whose wait was interrupted, and drops its answer. Raises as Run.wait() does."""
        self.stop()
        try:
            self._runner.wait(self.number, seconds=seconds, owner=self)
        except NothingRuns:
            return  # it had ended, or the driver had stopped it already

    def restart(self) -> None:
        """INIT and a new arrival, with all state of the virtual processor reset."""
        self._runner.restart(self.number, owner=self)


class Claim:
    """A CPU that is held; the end of the block releases it."""

    def __init__(self, cpu: TypedCpu) -> None:
        self._cpu = cpu

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cpu.release()


class Run:
    """A command that was started. Only wait() ends it for the CPU's object, also when it has finished by itself."""

    def __init__(self, cpu: TypedCpu, turn: Turn, command: int) -> None:
        self.cpu, self.command = cpu, command
        self._turn, self._over = turn, False

    @property
    def sequence(self) -> int:
        """The command's number, which the CPU names in its answer."""
        return self._turn.sequence

    def stop(self) -> bool:
        """Asks the CPU to end early; False if it has ended already."""
        return not self._over and self.cpu.stop()

    def wait(self, *, seconds: float = COMMAND_SECONDS) -> bytes:
        """The answer's data, also if PageDriver.finished() has told of the end. Raises as TypedCpu.execute() does."""
        if self._over:
            raise NothingRuns(f"{self.cpu.numbers}: this run of {command_name(self.command)} was waited for already")
        interrupted = False
        try:
            self._await(seconds)
            return self._turn.answer(self.command)
        except KeyboardInterrupt:
            interrupted = True  # it still runs, and can be waited for again
            raise
        finally:
            if not interrupted:
                self._over = True
                self._turn.end()

    def _await(self, seconds: float) -> None:
        cpu, runner = self.cpu, self.cpu._runner
        try:
            runner.wait(cpu.number, seconds=seconds, owner=cpu)
        except NothingRuns:
            if cpu.status != CpuStatus.FAULTED and not self._turn.completed():
                raise


class Turn:
    """The right to use a CPU's command page, for one block or, after keep(), until end()."""

    def __init__(self, cpu: TypedCpu) -> None:
        self._cpu, self._kept, self.sequence = cpu, False, 0

    def __enter__(self) -> Self:
        cpu = self._cpu
        if not cpu._turn.acquire(blocking=False):
            raise CpuBusy(f"{cpu.numbers} executes a command of another thread, or one that was not waited for")
        try:
            self._memory = cpu._runner.open_page(cpu.number, cpu)
        except BaseException:
            cpu._turn.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self.end()

    def keep(self) -> None:
        self._kept = True

    def end(self) -> None:
        cpu = self._cpu
        try:
            cpu._runner.close_page(cpu.number, cpu)
        finally:
            cpu._turn.release()

    # --- the page --------------------------------------------------------------------------------------------------

    def fill(self, command: int, data: bytes) -> None:
        """Writes the request; the sequence number is the next one on this page."""
        if len(data) > DATA_BYTES:
            raise ValueError(f"the request has {len(data)} bytes, the page takes {DATA_BYTES}")
        self._memory[REQUEST_DATA : REQUEST_DATA + len(data)] = data
        (last,) = U64.unpack_from(self._memory, SEQUENCE)
        self.sequence = int(last) + 1 & MASK_64
        U64.pack_into(self._memory, SEQUENCE, self.sequence)
        U32.pack_into(self._memory, COMMAND, command)

    def completed(self) -> bool:
        """Has the CPU named our sequence number?"""
        return self._completed()[0] == self.sequence

    def answer(self, command: int) -> bytes:
        """The answer's data. Raises ProtocolError if it is to another request, SidecarCommandError for an error."""
        cpu = self._cpu
        completed, *ticks = self._completed()
        if completed != self.sequence:
            if cpu.status == CpuStatus.FAULTED and (fault := cpu.fault()):
                raise CpuFaulted(cpu.numbers, fault)
            raise ProtocolError(f"{cpu.numbers} completed sequence {completed:#x}, expected {self.sequence:#x}")
        cpu._ticks = Ticks(*ticks)
        data = bytes(self._memory[REQUEST_DATA : REQUEST_DATA + DATA_BYTES])
        if self._memory[HAS_ERROR]:
            raise SidecarCommandError(cpu.numbers, command_name(command), sentence(self._memory))
        if command in (SidecarCommand.GET_VP_REGISTERS, SidecarCommand.SET_VP_REGISTERS) and (why := refusal(data)):
            raise SidecarCommandError(cpu.numbers, command_name(command), why)
        return data

    def _completed(self) -> tuple[int, int, int]:
        """completed_sequence, start_tsc and end_tsc, which lie side by side."""
        sequence, start, end = COMPLETION.unpack_from(self._memory, COMPLETED)
        return sequence, start, end


def sentence(page: memoryview) -> str:
    """The error in a command page."""
    start, length = int(CommandPage.error.text), page[int(CommandPage.error.length)]
    return decode_command.sentence(length, bytes(page[start : start + length]))
