"""Plays steps on a machine and compares it with the model after each: the first difference ends the play."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields

from sidecar.layout import MAX_REGISTERS, REQUEST_VECTOR, ControlPage, CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.command import VP_REGISTERS
from sidecar.layout.x86 import Icr
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CpuAway, CpuBusy, CpuFaulted, DriverError, SidecarCommandError, status_name
from sidecar.protocol.requests import DATA_BYTES, raise_request, register_request
from sidecar.protocol.waiting import poll
from sidecar.qemu.fuzz.model import CpuModel, Outcome, register_and_bad_value, register_and_value
from sidecar.qemu.fuzz.steps import Action, Step
from sidecar.qemu.session import Session

SECONDS = 20.0
NUMBERS = tuple(register.number for register in VP_REGISTERS)


class Difference(Exception):
    """The machine is not what the model says."""


@dataclass(frozen=True)
class Seen:
    """What a CPU shows of itself: its status, and what its diagnostic page has counted."""

    status: int
    faults: int
    arrivals: int
    commands: int
    errors: int
    removals: int
    stray: dict[int, int]

    @classmethod
    def read(cls, session: Session, number: int) -> Seen:
        page = session.driver.pages(number).diagnostic
        counters = page.counters
        return cls(
            session.driver.status(number), int(page.fault.count), int(page.boot.arrivals), int(counters.commands),
            int(counters.errors), int(counters.removals),
            {vector: int(count) for vector, count in enumerate(counters.stray) if count},
        )

    @classmethod
    def expected(cls, model: CpuModel) -> Seen:
        return cls(
            int(model.status), model.faults, model.arrivals, model.commands, model.errors, model.removals, model.stray
        )

    def since(self, base: Seen) -> Seen:
        """The status as it is, the counts without what there was before; the first arrival counts."""
        stray = {vector: count - base.stray.get(vector, 0) for vector, count in self.stray.items()}
        return Seen(
            self.status, self.faults - base.faults, self.arrivals - base.arrivals + 1, self.commands - base.commands,
            self.errors - base.errors, self.removals - base.removals,
            {vector: count for vector, count in stray.items() if count},
        )

    def differences(self, got: Seen) -> str:
        return ", ".join(
            f"{one.name}: expected {getattr(self, one.name)}, got {getattr(got, one.name)}"
            for one in fields(self) if getattr(self, one.name) != getattr(got, one.name)
        )


class Player:
    """One machine and its models; the machine's CPUs are as they were after boot."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.models = {number: CpuModel() for number in session.cpus}
        self.played: list[Step] = []
        self._base = {number: Seen.read(session, number) for number in session.cpus}
        self._actions: dict[Action, Callable[[Cpu, int], None]] = {
            Action.NONE: lambda cpu, argument: cpu.none(seconds=SECONDS),
            Action.SET: lambda cpu, argument: self._set(cpu, *register_and_value(argument)),
            Action.GET: lambda cpu, argument: self._compare_registers(cpu),
            Action.SET_RESERVED: lambda cpu, argument: self._set(cpu, *register_and_bad_value(argument)),
            Action.UNKNOWN: lambda cpu, argument: self._execute(cpu, argument, b""),
            Action.BAD_COUNT: self._bad_count,
            Action.GARBAGE: self._garbage,
            Action.CANCEL: self._cancel,
            Action.STOP_IDLE: lambda cpu, argument: self._stop_idle(cpu),
            Action.FAULT: lambda cpu, argument: cpu.raise_fault(argument, 0x1000, seconds=SECONDS),
            Action.ABANDON: self._abandon,
            Action.RESTART: lambda cpu, argument: cpu.restart(),
            Action.REMOVE: lambda cpu, argument: session.driver.remove(cpu.number, seconds=SECONDS),
            Action.GIVE_BACK: lambda cpu, argument: session.driver.give_back(cpu.number),
            Action.REQUEST: self._request,
            Action.STRAY: lambda cpu, argument: self._interrupt(cpu, Icr.FIXED, argument),
            Action.NMI: lambda cpu, argument: self._nmi(cpu),
            Action.STATUS: self._wrong_status,
        }

    def play(self, step: Step) -> None:
        """One step. Raises Difference, and MachineDied."""
        self.played.append(step)
        cpu, model = self.session.cpus[step.cpu], self.models[step.cpu]
        expected = model.expect(step)
        got, why = self._outcome(cpu, step)
        allowed = {Outcome.DONE, Outcome.REFUSED} if expected is Outcome.ANY_ANSWER else {expected}
        if got not in allowed:
            raise Difference(f"{step}: expected {expected}, got {got}{why}")
        self._settle(step, cpu, model)
        self._compare(step, cpu, model)

    def recover(self) -> None:
        """Every CPU idle again, by steps that are compared like all others."""
        for number, model in self.models.items():
            if model.status == CpuStatus.FAULTED:
                self.play(Step(Action.RESTART, number))
            elif model.status == CpuStatus.REMOVED:
                self.play(Step(Action.GIVE_BACK, number))

    def _outcome(self, cpu: Cpu, step: Step) -> tuple[Outcome, str]:
        try:
            self._actions[step.action](cpu, step.argument)
        except SidecarCommandError as error:
            return Outcome.REFUSED, f": {error}"
        except CpuFaulted as error:
            return Outcome.FAULTED, f": {error}"
        except (CpuAway, CpuBusy) as error:
            return Outcome.AWAY, f": {error}"
        except DriverError as error:
            raise Difference(f"{step}: {error}") from error
        return Outcome.DONE, ""

    # --- the actions -----------------------------------------------------------------------------------------------

    def _execute(self, cpu: Cpu, command: int, data: bytes) -> None:
        cpu.execute(command, data, seconds=SECONDS)

    def _set(self, cpu: Cpu, number: int, value: int) -> None:
        self._execute(cpu, SidecarCommand.SET_VP_REGISTERS, register_request([(number, value)]))

    def _bad_count(self, cpu: Cpu, argument: int) -> None:
        self._execute(cpu, SidecarCommand.GET_VP_REGISTERS, register_request([], count=argument))

    def _garbage(self, cpu: Cpu, argument: int) -> None:
        command = (SidecarCommand.GET_VP_REGISTERS, SidecarCommand.SET_VP_REGISTERS)[argument & 1]
        self._execute(cpu, command, random.Random(argument).randbytes(DATA_BYTES))

    def _cancel(self, cpu: Cpu, argument: int) -> None:
        run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
        run.stop()
        run.wait(seconds=SECONDS)

    def _stop_idle(self, cpu: Cpu) -> None:
        if cpu.stop():
            raise Difference(f"STOP of {cpu.numbers} found a command that nobody started")

    def _abandon(self, cpu: Cpu, argument: int) -> None:
        run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.SPIN))
        taken = poll(lambda: cpu.pages.command.command == SidecarCommand.NONE, SECONDS, self.session.backing.check)
        if not taken:
            raise Difference(f"{cpu.numbers} has not taken its command in {SECONDS} s")
        cpu.restart()
        try:
            run.wait(seconds=SECONDS)
        except DriverError:
            return
        raise Difference(f"{cpu.numbers}: a command that was abandoned has an answer")

    def _request(self, cpu: Cpu, argument: int) -> None:
        for _ in range(argument):
            self._interrupt(cpu, Icr.FIXED, REQUEST_VECTOR)

    def _nmi(self, cpu: Cpu) -> None:
        """Not to a removed CPU, which may wait for SIPI: under TCG an NMI then starts it at the reset vector."""
        if cpu.status == CpuStatus.REMOVED:
            raise CpuAway(f"{cpu.numbers} is removed")
        self._interrupt(cpu, Icr.NMI)

    def _wrong_status(self, cpu: Cpu, argument: int) -> None:
        if cpu.status != CpuStatus.IDLE:
            raise CpuAway(f"{cpu.numbers} is not idle")
        node = self.session.found.nodes[cpu.numbers.node]
        self.session.machine.ram.write(node.control_pa + ControlPage.cpu_status + cpu.numbers.index, bytes([argument]))
        self._interrupt(cpu, Icr.FIXED, REQUEST_VECTOR)

    def _interrupt(self, cpu: Cpu, kind: Icr, vector: int = 0) -> None:
        self.session.backing.send(cpu.numbers.apic_id << 32 | kind | vector)
        self.session.backing.drain(SECONDS)

    # --- the comparison --------------------------------------------------------------------------------------------

    def _settle(self, step: Step, cpu: Cpu, model: CpuModel) -> None:
        """What garbage did is taken over: how many errors, and which registers."""
        if not model.registers_known:
            model.errors = self._told(cpu.number).errors
            model.commands += len(NUMBERS) // MAX_REGISTERS + 1
            model.registers = dict(cpu.get_registers(NUMBERS, seconds=SECONDS))
            model.registers_known = True
        if step.action is Action.GET and model.status == CpuStatus.IDLE:
            model.commands += len(NUMBERS) // MAX_REGISTERS  # one more for each further batch

    def _compare_registers(self, cpu: Cpu) -> None:
        got = cpu.get_registers(NUMBERS, seconds=SECONDS)
        for number, value in self.models[cpu.number].registers.items():
            if got[number] != value:
                raise Difference(f"{cpu.numbers}: register {number:#x}: expected {value:#x}, got {got[number]:#x}")

    def _compare(self, step: Step, cpu: Cpu, model: CpuModel) -> None:
        """The step's CPU once everything has come to it; the others must be as they were."""
        expected = Seen.expected(model)
        if not poll(lambda: self._told(cpu.number) == expected, SECONDS, self.session.backing.check):
            raise Difference(f"{step}: {cpu.numbers}: {expected.differences(self._told(cpu.number))}")
        for number, other in self.models.items():
            status = self.session.driver.status(number)
            if status != other.status:
                raise Difference(f"{step}: CPU {number} was disturbed: expected {other.status.name.lower()}, "
                                 f"got {status_name(status)}")

    def _told(self, number: int) -> Seen:
        """What the machine shows of a CPU, counted from the start of the play."""
        return Seen.read(self.session, number).since(self._base[number])
