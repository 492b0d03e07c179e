"""Faults, time-outs, restarts, and CPUs that come and go: INIT and STARTUP in the right order."""

import re
import threading
from collections.abc import Iterator

import pytest

from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.x86 import Icr, Vector
from sidecar.protocol.commands import Cpu, raise_request
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import (
    CommandTimeout,
    CpuAway,
    CpuBusy,
    CpuFaulted,
    CpuLost,
    NothingRuns,
    ProtocolError,
)
from sidecar.protocol.scan import Finished
from sidecar.protocol.slot import DriverState
from tests.support.simulated_cpu import RIP_OF_FAULTS
from tests.support.simulated_sidecar import SimulatedSidecar

SPIN = raise_request(RaiseKind.SPIN)


@pytest.fixture
def sidecar() -> Iterator[SimulatedSidecar]:
    with SimulatedSidecar((4, 3)) as simulated:
        yield simulated


@pytest.fixture
def driver(sidecar: SimulatedSidecar) -> Iterator[PageDriver]:
    with PageDriver(sidecar) as attached:
        yield attached


# --- faults, time-outs, restarts -------------------------------------------------------------------------------------


def test_a_fault_carries_its_record(driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    with pytest.raises(CpuFaulted) as caught:
        cpu.raise_fault(RaiseKind.PAGE_FAULT, 0xABC000)
    sentence = r"CPU 1 \(.*\) faulted: #PF \(vector 14\), .* cr2 0xabc000, in command 0x100; restart"
    assert re.match(sentence, str(caught.value))
    fault = caught.value.fault
    assert (fault.vector, fault.rip, fault.cr2, fault.count) == (Vector.PAGE_FAULT, RIP_OF_FAULTS, 0xABC000, 1)
    with pytest.raises(CpuFaulted):
        cpu.none()
    cpu.restart()
    cpu.none()
    Cpu(driver, 2).none()


def test_a_fault_while_parked_is_found_by_the_next_command(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    sidecar.cpus[2].fault(Vector.NMI)
    with pytest.raises(CpuFaulted, match="NMI"):
        driver.run(2)
    driver.restart(2)
    driver.run(2)


def test_a_fault_in_a_started_run(driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.DIVIDE_ERROR))
    assert driver.finished(seconds=5) == [Finished(1, CpuStatus.FAULTED)]
    with pytest.raises(CpuFaulted, match="#DE"):
        run.wait()
    cpu.restart()
    cpu.none()


def test_a_time_out_is_init_before_startup(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    with pytest.raises(CommandTimeout) as caught:
        cpu.execute(SidecarCommand.RAISE, SPIN, seconds=0.05)
    sentence = r"CPU 1 \(.*\) did not finish RAISE within 0.05 s, its status was RUN; it was restarted"
    assert re.match(sentence, str(caught.value))
    assert caught.value.recovered
    assert sidecar.kinds_sent(1) == [Icr.FIXED, Icr.INIT, Icr.STARTUP]
    assert driver.pages(1).privileged.restart_count == 1
    cpu.none()


def test_a_time_out_of_a_cancelled_run(driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    run = cpu.start(SidecarCommand.RAISE, SPIN)
    run.stop()
    with pytest.raises(CommandTimeout, match="its status was STOP"):
        run.wait(seconds=0.05)
    cpu.none()


def test_a_cpu_that_does_not_come_back_is_lost(
    sidecar: SimulatedSidecar, driver: PageDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.protocol.recovery.ARRIVE_SECONDS", 0.05)
    cpu = Cpu(driver, 1)
    sidecar.cpus[1].deaf = True
    with pytest.raises(CommandTimeout, match=r"finish NONE .* come back after INIT and STARTUP: lost") as caught:
        cpu.none(seconds=0.05)
    assert not caught.value.recovered
    assert sidecar.kinds_sent(1) == [Icr.FIXED] + 3 * [Icr.INIT, Icr.STARTUP]
    with pytest.raises(CpuLost, match=r"CPU 1 .*is lost"):
        cpu.none()
    with pytest.raises(CpuLost, match="did not come back"):
        cpu.restart()
    sidecar.cpus[1].deaf = False
    cpu.restart()
    cpu.none()


def test_a_restart_abandons_a_run(driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    run = cpu.start(SidecarCommand.RAISE, SPIN)
    cpu.restart()
    with pytest.raises(NothingRuns):
        run.wait(seconds=1)
    assert driver.finished(seconds=0.02) == []
    cpu.none()


def test_a_restart_ends_a_wait_in_another_thread(driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    run = cpu.start(SidecarCommand.RAISE, SPIN)
    restarter = threading.Timer(0.05, cpu.restart)
    restarter.start()
    with pytest.raises(NothingRuns, match="ended by another wait or a restart"):
        run.wait(seconds=10)
    restarter.join()
    cpu.none()


# --- who has the CPU -------------------------------------------------------------------------------------------------


def test_remove_and_give_back(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    driver.remove(3)
    assert (driver.state(3), driver.status(3)) == (DriverState.REMOVED, CpuStatus.REMOVED)
    for use in (driver.run, driver.remove, driver.restart):
        with pytest.raises(CpuAway):
            use(3)
    driver.give_back(3)
    with pytest.raises(CpuBusy, match="is not removed, it is available"):
        driver.give_back(3)
    driver.run(3)
    assert sidecar.kinds_sent(3) == [Icr.FIXED, Icr.INIT, Icr.STARTUP, Icr.FIXED]


def test_a_faulted_cpu_is_removed_after_init(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    sidecar.cpus[3].fault(Vector.MACHINE_CHECK)
    driver.remove(3)
    assert (driver.status(3), sidecar.kinds_sent(3)) == (CpuStatus.REMOVED, [Icr.INIT])
    driver.give_back(3)
    driver.run(3)


def test_a_removal_that_is_not_answered(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    sidecar.cpus[3].deaf = True
    threading.Timer(0.15, lambda: setattr(sidecar.cpus[3], "deaf", False)).start()
    with pytest.raises(CommandTimeout, match=r"did not finish REMOVE within 0.05 s, its status was REMOVE"):
        driver.remove(3, seconds=0.05)
    driver.run(3)


def test_what_another_driver_left_running_needs_a_restart(sidecar: SimulatedSidecar) -> None:
    left = Cpu(PageDriver(sidecar), 1)
    left.start(SidecarCommand.RAISE, SPIN)
    driver = PageDriver(sidecar)
    with pytest.raises(CpuLost):
        driver.run(1)
    driver.restart(1)
    driver.run(1)


def test_a_status_outside_the_table(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    sidecar.cpus[1].deaf = True
    assert sidecar.cpus[1].status.compare_exchange(CpuStatus.IDLE, 0x4D) == CpuStatus.IDLE
    for use in (driver.run, driver.remove, driver.restart):
        with pytest.raises(ProtocolError, match=r"CPU 1 .*its status is 0x4d \(unknown\)"):
            use(1)
