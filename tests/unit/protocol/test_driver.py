"""The driver's role against simulated CPUs: whose turn it is, who may use a CPU, what it says of what goes wrong."""

import threading
import time
from collections.abc import Iterator

import pytest

from sidecar.layout import ControlPage, CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.x86 import Icr
from sidecar.protocol.commands import Cpu, raise_request
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import (
    CpuAway,
    CpuBusy,
    NoSuchCpu,
    NothingRuns,
    ProtocolError,
)
from sidecar.protocol.scan import Finished
from sidecar.protocol.slot import DriverState
from tests.support.simulated_sidecar import SimulatedSidecar

WAIT = raise_request(RaiseKind.WAIT_FOR_STOP)
SPIN = raise_request(RaiseKind.SPIN)


@pytest.fixture
def sidecar() -> Iterator[SimulatedSidecar]:
    with SimulatedSidecar((4, 3)) as simulated:
        yield simulated


@pytest.fixture
def driver(sidecar: SimulatedSidecar) -> Iterator[PageDriver]:
    with PageDriver(sidecar) as attached:
        yield attached


def test_attach_writes_the_response_pair_and_detach_zeroes_it(sidecar: SimulatedSidecar) -> None:
    def pairs() -> list[int]:
        return [cpu.response.load() for number, cpu in sidecar.cpus.items() if cpu.index == 0]

    with PageDriver(sidecar) as driver:
        assert pairs() == [0x55_0000_0077] * 2
        driver.run(1)
        assert sidecar.cpus[1].responses == 1
    assert pairs() == [0, 0]


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("abi_version", 9, r"node 1 at 0x\w+ has ABI version 9, hash 0x\w+; these tools have version 1, hash 0x"),
        ("abi_hash", 0xBAD, r"node 1 at 0x\w+ has ABI version 1, hash 0x0+bad; these tools have version 1, hash 0x"),
        ("base_cpu", 5, r"node 1 at 0x\w+: base_cpu is 0x5, expected 0x4"),
        ("cpu_count", 2, r"node 1 at 0x\w+: cpu_count is 0x2, expected 0x3"),
    ],
)
def test_a_foreign_control_page_is_refused(sidecar: SimulatedSidecar, field: str, value: int, complaint: str) -> None:
    place = ControlPage.field(field)
    page = sidecar.view(sidecar.nodes[1].control_pa, 4096)
    page[place.offset : place.offset + place.size] = value.to_bytes(place.size, "little")
    with pytest.raises(ProtocolError, match=complaint):
        PageDriver(sidecar)


def test_a_cpu_that_arrived_with_another_apic_id_is_refused(sidecar: SimulatedSidecar) -> None:
    sidecar.apic_ids[2] = 0x999
    with pytest.raises(ProtocolError, match=r"CPU 2 \(APIC id 0x999, .*\) arrived as CPU 2 with APIC id 0x102"):
        PageDriver(sidecar)


def test_run_sends_the_request_vector_to_the_apic_id(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    driver.run(5)
    assert sidecar.sent == [0x105 << 32 | Icr.FIXED | 0x20]
    assert (driver.state(5), driver.status(5)) == (DriverState.AVAIL, CpuStatus.IDLE)


def test_numbers_are_shown_side_by_side(driver: PageDriver) -> None:
    assert str(driver.numbers(6)) == "CPU 6 (APIC id 0x106, node 1, index 2)"
    with pytest.raises(NoSuchCpu, match="CPU 7 is in no sidecar node; there are 7 CPUs in 2 nodes"):
        driver.run(7)


def test_a_base_cpu_is_linuxs(driver: PageDriver) -> None:
    with pytest.raises(CpuAway, match=r"CPU 4 .*was removed or is run by Linux"):
        driver.run(4)
    with pytest.raises(CpuAway, match="Linux keeps it"):
        driver.give_back(4)


# --- ownership -------------------------------------------------------------------------------------------------------


def test_a_claimed_cpu_serves_its_owner_alone(driver: PageDriver) -> None:
    mine, other = object(), object()
    driver.claim(1, mine)
    driver.run(1, owner=mine)
    for use in (driver.run, driver.start, driver.stop, driver.remove, driver.restart, driver.give_back, driver.wait):
        with pytest.raises(CpuBusy, match=r"CPU 1 .*is claimed by another owner"):
            use(1, owner=other)
    with pytest.raises(CpuBusy, match="not claimed by who releases it"):
        driver.release(1, other)
    driver.release(1, mine)
    driver.run(1)


def test_a_claim_is_not_given_twice(driver: PageDriver) -> None:
    mine = object()
    driver.claim(1, mine)
    for owner in (mine, object()):
        with pytest.raises(CpuBusy, match="already claimed"):
            driver.claim(1, owner)


def test_a_running_cpu_is_neither_claimed_nor_released(driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    cpu.claim()
    run = cpu.start(SidecarCommand.RAISE, WAIT)
    with pytest.raises(CpuBusy, match="cannot be released: it is running"):
        cpu.release()
    run.stop()
    run.wait()
    cpu.release()
    run = cpu.start(SidecarCommand.RAISE, WAIT)
    with pytest.raises(CpuBusy, match="cannot be claimed: it is running"):
        driver.claim(1, object())
    run.stop()
    run.wait()


# --- asynchronous runs -----------------------------------------------------------------------------------------------


def test_finished_tells_each_run_once(driver: PageDriver) -> None:
    for number in (1, 2, 5):
        driver.start(number)
    told: list[Finished] = []
    while len(told) < 3:
        found = driver.finished(seconds=5)
        assert found
        told += found
    assert sorted(run.cpu for run in told) == [1, 2, 5]
    assert {run.status for run in told} == {CpuStatus.IDLE}
    assert driver.finished(seconds=0.02) == []
    driver.run(1)


def test_finished_hands_out_as_many_as_asked_for(driver: PageDriver) -> None:
    driver.start(1)
    driver.start(2)
    deadline = time.monotonic() + 5
    while driver.status(1) != CpuStatus.IDLE or driver.status(2) != CpuStatus.IDLE:
        assert time.monotonic() < deadline
    assert len(driver.finished(seconds=5, limit=1)) == 1
    assert DriverState.STOPPED in (driver.state(1), driver.state(2))
    assert len(driver.finished(seconds=5, limit=1)) == 1


def test_a_stopped_run_that_was_waited_for_is_not_told_of_the_next(driver: PageDriver) -> None:
    driver.start(1)
    driver.start(2)
    while DriverState.STOPPED not in (driver.state(1), driver.state(2)):
        assert driver.finished(limit=0) == []
    number = 1 if driver.state(1) is DriverState.STOPPED else 2
    driver.wait(number)
    run = Cpu(driver, number).start(SidecarCommand.RAISE, WAIT)
    assert [run.cpu for run in driver.finished(seconds=5)] == [3 - number]
    assert driver.state(number) is DriverState.ASYNC
    run.stop()
    run.wait()


def test_an_interrupted_wait_leaves_a_run_that_can_be_stopped(
    sidecar: SimulatedSidecar, driver: PageDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sidecar, "check", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Cpu(driver, 1).execute(SidecarCommand.RAISE, WAIT)
    monkeypatch.undo()
    assert driver.state(1) is DriverState.ASYNC
    assert driver.stop(1)
    driver.wait(1)
    driver.run(1)


def test_a_waited_for_run_is_not_told_again(driver: PageDriver) -> None:
    driver.start(1)
    driver.wait(1)
    assert driver.finished(seconds=0.02) == []
    with pytest.raises(NothingRuns, match=r"CPU 1 .*no run was started, it is available"):
        driver.wait(1)


def test_stop_ends_a_run_that_waits_for_it(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    run = Cpu(driver, 1).start(SidecarCommand.RAISE, WAIT)
    assert driver.finished(seconds=0.02) == []
    assert run.stop()
    assert driver.state(1) in (DriverState.STOPPING, DriverState.STOPPED)
    run.wait()
    assert not run.stop()
    assert sidecar.kinds_sent(1) == [Icr.FIXED] * 2


def test_stop_where_nothing_runs_is_legal(driver: PageDriver) -> None:
    assert not driver.stop(1)
    assert driver.status(1) == CpuStatus.IDLE


def test_cancel_before_the_cpu_has_looked(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    sidecar.cpus[1].hold.clear()
    run = cpu.start(SidecarCommand.RAISE, WAIT)
    assert run.stop()
    assert driver.status(1) == CpuStatus.STOP
    assert driver.finished(seconds=0.02) == []
    sidecar.cpus[1].hold.set()
    run.wait()
    cpu.none()


def test_a_synchronous_run_can_be_stopped_by_another_thread(driver: PageDriver) -> None:
    cpu = Cpu(driver, 1)
    stopper = threading.Timer(0.05, cpu.stop)
    stopper.start()
    cpu.execute(SidecarCommand.RAISE, WAIT, seconds=10)
    stopper.join()
    assert driver.state(1) is DriverState.AVAIL


def test_a_busy_cpu_is_not_started(driver: PageDriver) -> None:
    run = Cpu(driver, 1).start(SidecarCommand.RAISE, WAIT)
    prepared: list[int] = []
    with pytest.raises(CpuBusy, match=r"CPU 1 .*is running"):
        driver.run(1, prepare=lambda: prepared.append(1))
    with pytest.raises(CpuBusy, match="is running"):
        driver.remove(1)
    assert prepared == []
    run.stop()
    run.wait()


def test_a_failing_preparation_leaves_the_cpu_available(sidecar: SimulatedSidecar, driver: PageDriver) -> None:
    def fail() -> None:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        driver.run(1, prepare=fail)
    assert (driver.state(1), sidecar.sent) == (DriverState.AVAIL, [])
