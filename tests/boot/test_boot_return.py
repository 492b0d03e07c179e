"""CPUs that come and go: removed, given back, stopped in the middle of commands; and a driver that does so too.

Where a CPU is, and what its local APIC lets through, is QEMU's word (`info registers`, `info lapic`).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from sidecar.layout import CpuStatus, PrivatePage, RaiseKind, SidecarCommand
from sidecar.layout.x86 import Icr
from sidecar.protocol.commands import Cpu, raise_request
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import CpuAway, CpuBusy
from sidecar.protocol.slot import DriverState
from sidecar.protocol.views import View
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support.booted import fresh_directory, routine_at
from tests.support.qemu_view import local_apic

ROUNDS = 8
STOPS = 100


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=4, tests=True, directory=fresh_directory(request)) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


def wait_halted_for_good(session: Session, cpu: int) -> None:
    wait_until(
        lambda: (one := session.machine.registers(cpu)).halted and routine_at(one.rip) == "halt_forever",
        seconds=20,
        what=f"CPU {cpu} to halt in halt_forever",
    )


def test_a_removed_cpu_halts_and_hears_nothing(session: Session) -> None:
    cpu = session.cpus[2]
    cpu.remove()
    assert cpu.status == CpuStatus.REMOVED
    wait_halted_for_good(session, 2)
    registers = session.machine.registers(2)
    assert registers.cr3 == session.found.private_page_pa(session.found.cpu(2), PrivatePage.PML4)
    assert not registers.rflags & 1 << 9, "interrupts are off"
    assert "APIC disabled" in local_apic(session.machine, 2)["SPIV"]
    counted = cpu.pages.diagnostic.counters.snapshot()
    for vector in (int(cpu.pages.control.request_vector), 0x55):
        session.backing.send(cpu.numbers.apic_id << 32 | Icr.FIXED | vector)
    session.backing.drain(20)
    for other in (1, 3):
        session.cpus[other].none()
    assert cpu.pages.diagnostic.counters.snapshot().requests == counted.requests
    with pytest.raises(CpuAway):
        cpu.none()
    with pytest.raises(CpuAway):
        cpu.remove()
    cpu.give_back()
    assert "APIC enabled" in local_apic(session.machine, 2)["SPIV"]
    cpu.none()
    assert not any(cpu.pages.diagnostic.counters.stray)


def come_and_go(cpu: Cpu) -> None:
    arrivals, ordered = int(cpu.pages.diagnostic.boot.arrivals), int(cpu.pages.privileged.restart_count)
    removals = int(cpu.pages.diagnostic.counters.removals)
    for turn in range(1, ROUNDS + 1):
        cpu.none()
        cpu.remove()
        assert cpu.status == CpuStatus.REMOVED
        cpu.give_back()
        assert cpu.status == CpuStatus.IDLE
        cpu.none()
        assert turn <= cpu.pages.diagnostic.boot.arrivals - arrivals <= cpu.pages.privileged.restart_count - ordered
        assert cpu.pages.diagnostic.counters.removals == removals + turn


def test_all_cpus_come_and_go_at_once(session: Session) -> None:
    with ThreadPoolExecutor(len(session.cpus)) as pool:
        list(pool.map(come_and_go, session.cpus.values()))


def test_one_cpu_stays_and_works_while_the_others_come_and_go(session: Session) -> None:
    stays, goes, goes_too = session.cpus.values()
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(come_and_go, cpu) for cpu in (goes, goes_too)]
        while not all(one.done() for one in busy):
            stays.none()
        for one in busy:
            one.result()


def test_only_a_removed_cpu_can_be_given_back(session: Session) -> None:
    with pytest.raises(CpuBusy, match="is not removed, it is available"):
        session.cpus[1].give_back()


def start_and_stop(cpu: Cpu) -> None:
    for _ in range(STOPS):
        run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
        assert run.stop()
        run.wait()
        assert cpu.status == CpuStatus.IDLE


def test_commands_are_started_and_stopped_over_and_over(session: Session) -> None:
    with ThreadPoolExecutor(len(session.cpus)) as pool:
        list(pool.map(start_and_stop, session.cpus.values()))
    for cpu in session.cpus.values():
        cpu.none()


def test_the_machine_is_stopped_and_goes_on_in_the_middle_of_a_command(session: Session) -> None:
    cpu = session.cpus[1]
    for _ in range(5):
        run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
        session.machine.stop()
        run.stop()  # finds no CPU that could obey
        assert cpu.status == CpuStatus.STOP
        session.machine.cont()
        run.wait()
        cpu.none()


def test_a_second_driver_finds_everything_as_the_first_left_it(session: Session) -> None:
    control = session.cpus[1].pages.control
    pair = (int(control.response_cpu), int(control.response_vector))
    session.driver.remove(3)
    session.driver.detach()
    assert (control.response_cpu, control.response_vector) == (0, 0)
    session.cpus[1].none()  # nobody is notified, and the answer is found all the same
    with PageDriver(session.backing) as second:
        assert (control.response_cpu, control.response_vector) == pair
        assert [second.state(cpu) for cpu in (1, 2, 3)] == [DriverState.AVAIL, DriverState.AVAIL, DriverState.REMOVED]
        second.give_back(3)
        Cpu(second, 3).none()
        second.remove(3)
    session.driver.attach()
    session.driver.give_back(3)
    session.cpus[3].none()


def test_the_boot_cpu_counts_the_responses(session: Session) -> None:
    relay, before = session.backing.relay, int(session.backing.relay.responses)
    for expected in range(before + 1, before + 21):
        session.cpus[1].none()
        wait_until(partial(reached, relay, expected), seconds=20, what=f"response {expected}")
    assert relay.responses == before + 20


def reached(relay: View, responses: int) -> bool:
    return int(relay.responses) >= responses
