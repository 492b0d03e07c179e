"""The reference: what a CPU must be after a step, by the protocol alone. It never looks at the machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sidecar.layout import CpuStatus
from sidecar.layout.command import VP_REGISTERS
from sidecar.qemu.fuzz.steps import LIMITED, WRITABLE, Action, Step

MASK_64 = (1 << 64) - 1


class Outcome(StrEnum):
    """How a step ends for whoever makes it."""

    DONE = "done"
    REFUSED = "refused by the kernel"
    AWAY = "refused by the driver"
    FAULTED = "faulted"
    ANY_ANSWER = "done or refused by the kernel"


@dataclass
class CpuModel:
    """One CPU. `commands` and `faults` count what its diagnostic page must have counted."""

    status: CpuStatus = CpuStatus.IDLE
    registers: dict[int, int] = field(default_factory=lambda: {one.number: one.reset for one in VP_REGISTERS})
    commands: int = 0
    errors: int = 0
    faults: int = 0
    removals: int = 0
    arrivals: int = 1
    stray: dict[int, int] = field(default_factory=dict)
    registers_known: bool = True

    def expect(self, step: Step) -> Outcome:
        """What the step must end in; moves the model there."""
        return _EXPECT[step.action](self, step.argument)

    # --- commands --------------------------------------------------------------------------------------------------

    def _command(self, *, error: bool = False) -> Outcome:
        if self.status != CpuStatus.IDLE:
            return Outcome.FAULTED if self.status == CpuStatus.FAULTED else Outcome.AWAY
        self.commands += 1
        self.errors += error
        return Outcome.REFUSED if error else Outcome.DONE

    def done(self, argument: int) -> Outcome:
        return self._command()

    def refused(self, argument: int) -> Outcome:
        return self._command(error=True)

    def set(self, argument: int) -> Outcome:
        outcome = self._command()
        if outcome is Outcome.DONE:
            number, value = register_and_value(argument)
            self.registers[number] = value | _RESET[number]
        return outcome

    def garbage(self, argument: int) -> Outcome:
        """Whatever the bytes mean, it is an answer; the player asks for counter and registers afterwards."""
        outcome = self._command()
        if outcome is not Outcome.DONE:
            return outcome
        self.registers_known = False
        return Outcome.ANY_ANSWER

    def fault(self, argument: int) -> Outcome:
        outcome = self._command()
        if outcome is Outcome.DONE:
            self._fault()
            return Outcome.FAULTED
        return outcome

    def _fault(self) -> None:
        self.status = CpuStatus.FAULTED
        self.faults += 1

    # --- who has it ------------------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        self.status = CpuStatus.IDLE
        self.arrivals += 1
        self.registers = dict(_RESET)
        self.registers_known = True

    def abandon(self, argument: int) -> Outcome:
        outcome = self._command()
        if outcome is Outcome.DONE:
            self._arrive()
        return outcome

    def restart(self, argument: int) -> Outcome:
        if self.status == CpuStatus.REMOVED:
            return Outcome.AWAY
        self._arrive()
        return Outcome.DONE

    def remove(self, argument: int) -> Outcome:
        if self.status == CpuStatus.REMOVED:
            return Outcome.AWAY
        self.removals += self.status == CpuStatus.IDLE  # a faulted CPU is only marked
        self.status = CpuStatus.REMOVED
        return Outcome.DONE

    def give_back(self, argument: int) -> Outcome:
        if self.status != CpuStatus.REMOVED:
            return Outcome.AWAY
        self._arrive()
        return Outcome.DONE

    # --- what none should do ----------------------------------------------------------------------------------------

    def nothing(self, argument: int) -> Outcome:
        return Outcome.DONE

    def stray_vector(self, argument: int) -> Outcome:
        if self.status == CpuStatus.IDLE:
            self.stray[argument] = self.stray.get(argument, 0) + 1
        return Outcome.DONE

    def nmi(self, argument: int) -> Outcome:
        if self.status == CpuStatus.REMOVED:
            return Outcome.AWAY
        if self.status == CpuStatus.IDLE:
            self._fault()
        return Outcome.DONE

    def wrong_status(self, argument: int) -> Outcome:
        if self.status != CpuStatus.IDLE:
            return Outcome.AWAY
        self._fault()
        return Outcome.DONE


_RESET = {one.number: one.reset for one in VP_REGISTERS}

_EXPECT = {
    Action.NONE: CpuModel.done,
    Action.SET: CpuModel.set,
    Action.GET: CpuModel.done,
    Action.SET_RESERVED: CpuModel.refused,
    Action.UNKNOWN: CpuModel.refused,
    Action.BAD_COUNT: CpuModel.refused,
    Action.GARBAGE: CpuModel.garbage,
    Action.CANCEL: CpuModel.done,
    Action.STOP_IDLE: CpuModel.nothing,
    Action.FAULT: CpuModel.fault,
    Action.ABANDON: CpuModel.abandon,
    Action.RESTART: CpuModel.restart,
    Action.REMOVE: CpuModel.remove,
    Action.GIVE_BACK: CpuModel.give_back,
    Action.REQUEST: CpuModel.nothing,
    Action.STRAY: CpuModel.stray_vector,
    Action.NMI: CpuModel.nmi,
    Action.STATUS: CpuModel.wrong_status,
}


def register_and_value(bits: int) -> tuple[int, int]:
    """A register that can be written, and a value that it takes."""
    register = WRITABLE[(bits >> 64) % len(WRITABLE)]
    return register.number, bits & MASK_64 & register.writable


def register_and_bad_value(bits: int) -> tuple[int, int]:
    """A register, and a value with a bit that it does not take."""
    register = LIMITED[(bits >> 64) % len(LIMITED)]
    free = [bit for bit in range(64) if not register.writable >> bit & 1]
    return register.number, bits & MASK_64 & register.writable | 1 << free[bits % len(free)]
