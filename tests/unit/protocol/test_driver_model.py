"""Random sequences of everything that can be asked of one CPU, against a model of the driver's private states."""

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.x86 import Vector
from sidecar.protocol.commands import Cpu, Run, raise_request
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import CpuAway, CpuBusy, CpuFaulted, DriverError, NothingRuns
from sidecar.protocol.scan import Finished
from sidecar.protocol.slot import DriverState
from tests.support.simulated_sidecar import SimulatedSidecar

WAIT = raise_request(RaiseKind.WAIT_FOR_STOP)


class OneCpu(RuleBasedStateMachine):
    """`state` and `faulted` are the model; `run` is the command that was started and not yet waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.sidecar = SimulatedSidecar((2,)).__enter__()
        self.driver = PageDriver(self.sidecar)
        self.cpu = Cpu(self.driver, 1)
        self.state, self.faulted = DriverState.AVAIL, False
        self.run: Run | None = None

    def teardown(self) -> None:
        self.sidecar.__exit__(None, None, None)

    def refused(self) -> type[DriverError] | None:
        """Why a command is not begun now."""
        if self.run is not None or self.state in (DriverState.ASYNC, DriverState.STOPPING):
            return CpuBusy
        if self.state is DriverState.REMOVED:
            return CpuAway
        return CpuFaulted if self.faulted else None

    @rule()
    def none(self) -> None:
        if why := self.refused():
            with pytest.raises(why):
                self.cpu.none()
        else:
            self.cpu.none()

    @rule()
    def start(self) -> None:
        if why := self.refused():
            with pytest.raises(why):
                self.cpu.start(SidecarCommand.RAISE, WAIT)
        else:
            self.run, self.state = self.cpu.start(SidecarCommand.RAISE, WAIT), DriverState.ASYNC

    @rule()
    def stop(self) -> None:
        assert self.cpu.stop() == (self.state is DriverState.ASYNC)
        if self.state is DriverState.ASYNC:
            self.state = DriverState.STOPPING

    @rule()
    def finished(self) -> None:
        if self.state is DriverState.STOPPING:
            assert self.driver.finished(seconds=5) == [Finished(1, CpuStatus.IDLE)]
            self.state = DriverState.AVAIL
        else:
            assert self.driver.finished() == []

    @precondition(lambda self: self.run is not None and self.state is not DriverState.ASYNC)
    @rule()
    def wait(self) -> None:
        assert self.run is not None
        if self.state is DriverState.STOPPING or self.sidecar.cpus[1].executed[-1:] == [self.run.sequence]:
            self.run.wait(seconds=5)
            self.state = DriverState.AVAIL if self.state is DriverState.STOPPING else self.state
        else:
            with pytest.raises(NothingRuns):
                self.run.wait(seconds=5)
        self.run = None

    @precondition(lambda self: self.run is None)
    @rule()
    def fault_in_a_command(self) -> None:
        why = self.refused()
        with pytest.raises(why or CpuFaulted):
            self.cpu.raise_fault(RaiseKind.INVALID_OPCODE)
        self.faulted = self.faulted or why is None

    @precondition(lambda self: self.state is DriverState.AVAIL and not self.faulted and self.run is None)
    @rule()
    def fault_while_parked(self) -> None:
        self.sidecar.cpus[1].fault(Vector.NMI)
        self.faulted = True

    @precondition(lambda self: self.run is None or self.state is DriverState.ASYNC)
    @rule()
    def restart(self) -> None:
        if self.state is DriverState.REMOVED:
            with pytest.raises(CpuAway):
                self.cpu.restart()
            return
        self.cpu.restart()
        self.state, self.faulted = DriverState.AVAIL, False
        if self.run is not None:
            with pytest.raises(NothingRuns):
                self.run.wait(seconds=5)
            self.run = None

    @precondition(lambda self: self.run is None)
    @rule()
    def remove(self) -> None:
        if self.state is DriverState.REMOVED:
            with pytest.raises(CpuAway):
                self.cpu.remove()
        else:
            self.cpu.remove()
            self.state, self.faulted = DriverState.REMOVED, False

    @rule()
    def give_back(self) -> None:
        if self.state is DriverState.REMOVED:
            self.cpu.give_back()
            self.state = DriverState.AVAIL
        else:
            with pytest.raises(CpuBusy):
                self.cpu.give_back()

    @invariant()
    def the_driver_agrees(self) -> None:
        assert self.driver.state(1) is self.state
        status = self.driver.status(1)
        if self.state is DriverState.AVAIL:
            assert status == (CpuStatus.FAULTED if self.faulted else CpuStatus.IDLE)
        elif self.state is DriverState.REMOVED:
            assert status == CpuStatus.REMOVED
        elif self.state is DriverState.ASYNC:
            assert status == CpuStatus.RUN


OneCpu.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestOneCpu = OneCpu.TestCase
