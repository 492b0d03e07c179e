"""Commands on one CPU as calls: the command page is filled, run, checked and read back.

    cpu = Cpu(driver, 3)
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
from itertools import islice
from typing import TypeVar

from sidecar.layout.abi import MAX_REGISTERS
from sidecar.layout.command import (
    VP_REGISTERS,
    CommandPage,
    GetSetVpRegisterRequest,
    HvRegisterAssoc,
    HvStatus,
    RaiseRequest,
    SidecarCommand,
)
from sidecar.layout.control import CpuStatus
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import CpuBusy, CpuFaulted, NothingRuns, ProtocolError, SidecarCommandError
from sidecar.protocol.runs import COMMAND_SECONDS
from sidecar.protocol.slot import CpuPages, DriverState

REGISTER_NUMBERS = {register.name: register.number for register in VP_REGISTERS}
DATA_BYTES = CommandPage.request_data.SIZE
MASK_64 = (1 << 64) - 1

T = TypeVar("T")
Register = TypeVar("Register", str, int, str | int)
"""A register by its TLFS name, or by its number."""


@dataclass(frozen=True, slots=True)
class Ticks:
    """The TSC when the CPU took its last command, and when it was done."""

    start: int
    end: int


class Cpu:
    """One CPU, for one user at a time: a second thread gets CpuBusy. A claim keeps other Cpu objects away too."""

    def __init__(self, driver: PageDriver, number: int) -> None:
        self.driver, self.number = driver, number
        self.numbers: CpuNumbers = driver.numbers(number)
        self.pages: CpuPages = driver.pages(number)
        self._memory = driver.command_memory(number)
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self.numbers}, {self.driver.state(self.number).name}>"

    # --- commands --------------------------------------------------------------------------------------------------

    def none(self, *, seconds: float = COMMAND_SECONDS) -> None:
        """Does nothing: an answer says that the CPU lives."""
        self.execute(SidecarCommand.NONE, seconds=seconds)

    def get_registers(self, names: Iterable[Register], *, seconds: float = COMMAND_SECONDS) -> dict[Register, int]:
        """The registers' values, under the names asked for; up to 31 per command."""
        values: dict[Register, int] = {}
        for batch in _batches(names):
            pairs = [(_number(name), 0) for name in batch]
            answer = self.execute(SidecarCommand.GET_VP_REGISTERS, register_request(pairs), seconds=seconds)
            self._require_success(SidecarCommand.GET_VP_REGISTERS, answer)
            values |= zip(batch, _values(answer, len(batch)), strict=True)
        return values

    def set_registers(self, values: Mapping[Register, int], *, seconds: float = COMMAND_SECONDS) -> None:
        """Stores the values; up to 31 per command. An error leaves the registers before it changed."""
        for batch in _batches(values.items()):
            pairs = [(_number(name), value) for name, value in batch]
            answer = self.execute(SidecarCommand.SET_VP_REGISTERS, register_request(pairs), seconds=seconds)
            self._require_success(SidecarCommand.SET_VP_REGISTERS, answer)

    def raise_fault(self, kind: int, argument: int = 0, *, seconds: float = COMMAND_SECONDS) -> None:
        """Makes the CPU fault on purpose (RaiseKind). Raises CpuFaulted if it did; a stray vector does not."""
        self.execute(SidecarCommand.RAISE, raise_request(kind, argument), seconds=seconds)

    def execute(self, command: int, data: bytes = b"", *, seconds: float = COMMAND_SECONDS) -> bytes:
        """Any command with any request data; returns the answer's data.

        Raises SidecarCommandError if the CPU answered with an error, ProtocolError, and as PageDriver.run() does.
        """
        with _Turn(self):
            sequence = self._next_sequence()
            self.driver.run(
                self.number, seconds=seconds, owner=self, prepare=lambda: self._fill(command, data, sequence)
            )
            return self._answer(command, sequence)

    def start(self, command: int, data: bytes = b"") -> Run:
        """The same without waiting; the CPU is busy until the run has been waited for."""
        turn = _Turn(self)
        with turn:
            sequence = self._next_sequence()
            self.driver.start(self.number, owner=self, prepare=lambda: self._fill(command, data, sequence))
            turn.keep()
        return Run(self, command, sequence)

    def ticks(self) -> Ticks:
        return Ticks(*struct.unpack_from("<QQ", self._memory, int(CommandPage.start_tsc)))

    # --- the CPU itself --------------------------------------------------------------------------------------------

    @property
    def state(self) -> DriverState:
        return self.driver.state(self.number)

    @property
    def status(self) -> int:
        return self.driver.status(self.number)

    def claim(self) -> None:
        self.driver.claim(self.number, self)

    def release(self) -> None:
        self.driver.release(self.number, self)

    def stop(self) -> bool:
        return self.driver.stop(self.number, owner=self)

    def restart(self) -> None:
        self.driver.restart(self.number, owner=self)

    def remove(self) -> None:
        self.driver.remove(self.number, owner=self)

    def give_back(self) -> None:
        self.driver.give_back(self.number, owner=self)

    # --- the page --------------------------------------------------------------------------------------------------

    def _next_sequence(self) -> int:
        (last,) = struct.unpack_from("<Q", self._memory, int(CommandPage.sequence))
        return int(last) + 1 & MASK_64

    def _fill(self, command: int, data: bytes, sequence: int) -> None:
        if len(data) > DATA_BYTES:
            raise ValueError(f"the request has {len(data)} bytes, the page takes {DATA_BYTES}")
        start = int(CommandPage.request_data)
        self._memory[start : start + len(data)] = data
        struct.pack_into("<Q", self._memory, int(CommandPage.sequence), sequence)
        struct.pack_into("<I", self._memory, int(CommandPage.command), command)

    def _answer(self, command: int, sequence: int) -> bytes:
        if (completed := self._completed()) != sequence:
            raise ProtocolError(f"{self.numbers} completed sequence {completed:#x}, expected {sequence:#x}")
        if self._memory[int(CommandPage.has_error)]:
            raise SidecarCommandError(self.numbers, _command_name(command), self._sentence())
        start = int(CommandPage.request_data)
        return bytes(self._memory[start : start + DATA_BYTES])

    def _completed(self) -> int:
        (completed,) = struct.unpack_from("<Q", self._memory, int(CommandPage.completed_sequence))
        return int(completed)

    def _sentence(self) -> str:
        start, length = int(CommandPage.error.text), self._memory[int(CommandPage.error.length)]
        return bytes(self._memory[start : start + length]).decode("utf-8", errors="backslashreplace")

    def _require_success(self, command: SidecarCommand, answer: bytes) -> None:
        (status,) = struct.unpack_from("<H", answer, int(GetSetVpRegisterRequest.status))
        if status != HvStatus.SUCCESS:
            names = {int(known): known.name for known in HvStatus}
            sentence = f"status {status:#x} {names.get(status, '(unknown)')}"
            raise SidecarCommandError(self.numbers, command.name, sentence)


class Run:
    """A command that was started. Only wait() ends it for the Cpu, also when it has finished by itself."""

    def __init__(self, cpu: Cpu, command: int, sequence: int) -> None:
        self._cpu, self._command, self._sequence = cpu, command, sequence
        self._over = False

    def stop(self) -> bool:
        """Asks the CPU to end early; False if it has ended already."""
        return not self._over and self._cpu.stop()

    def wait(self, *, seconds: float = COMMAND_SECONDS) -> bytes:
        """The answer's data, also if PageDriver.finished() has told of the end. Raises as Cpu.execute() does."""
        interrupted = False
        try:
            self._await(seconds)
            return self._cpu._answer(self._command, self._sequence)
        except KeyboardInterrupt:
            interrupted = True  # it still runs, and can be waited for again
            raise
        finally:
            if not interrupted:
                self._end()

    def _await(self, seconds: float) -> None:
        cpu = self._cpu
        try:
            cpu.driver.wait(cpu.number, seconds=seconds, owner=cpu)
        except NothingRuns:
            if cpu.status == CpuStatus.FAULTED and (fault := cpu.driver.fault(cpu.number)):
                raise CpuFaulted(cpu.numbers, fault) from None
            if cpu._completed() != self._sequence:
                raise

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._cpu._turn.release()


class _Turn:
    """The right to use a Cpu's command page, for one block or, after keep(), for longer."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu, self._kept = cpu, False

    def __enter__(self) -> None:
        if not self._cpu._turn.acquire(blocking=False):
            raise CpuBusy(f"{self._cpu.numbers} executes a command of another thread, or one that was not waited for")

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._cpu._turn.release()

    def keep(self) -> None:
        self._kept = True


def register_request(pairs: Iterable[tuple[int, int]], *, count: int | None = None, target_vtl: int = 0) -> bytes:
    """The request data of GET and SET; `count` and `target_vtl` may lie, for tests."""
    entries = [
        HvRegisterAssoc.build(name=number, value=value & MASK_64, value_high=value >> 64) for number, value in pairs
    ]
    shown = len(entries) if count is None else count
    return GetSetVpRegisterRequest.build(count=shown, target_vtl=target_vtl, status=0) + b"".join(entries)


def raise_request(kind: int, argument: int = 0) -> bytes:
    """The request data of RAISE."""
    return RaiseRequest.build(kind=kind, argument=argument)


def _number(name: str | int) -> int:
    if isinstance(name, int):
        return name
    try:
        return REGISTER_NUMBERS[name]
    except KeyError:
        raise ValueError(f"no register {name!r}; there are {', '.join(REGISTER_NUMBERS)}") from None


def _values(answer: bytes, count: int) -> list[int]:
    start, size = GetSetVpRegisterRequest.SIZE, HvRegisterAssoc.SIZE
    offset = int(HvRegisterAssoc.value)
    entries = (struct.unpack_from("<QQ", answer, start + n * size + offset) for n in range(count))
    return [low | high << 64 for low, high in entries]


def _batches(items: Iterable[T]) -> Iterable[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, MAX_REGISTERS)):
        yield batch


def _command_name(command: int) -> str:
    try:
        return SidecarCommand(command).name
    except ValueError:
        return f"command {command:#x}"
