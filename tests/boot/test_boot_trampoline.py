"""The trampoline: many CPUs in it at once, and who was not asked for comes through it, is turned away, and halts."""

import random
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from sidecar.layout import PAGE_SIZE, BootPhase, CpuStatus, PrivatePage, RaiseKind, SharedPage
from sidecar.layout.x86 import Efer
from sidecar.protocol.errors import CpuAway, CpuFaulted
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support.booted import fresh_directory, send_startup, stamps, wait_parked, wait_turned_away

BURSTS = 5
MOST_BURSTS = 40
"""Where the host lets the CPUs run one by one, until two of them meet."""
STRIKES = 300
SECONDS = 60
SETTLE_SECONDS = 0.5


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """Nodes 0 (CPUs 0 to 2, the last left to Linux) and 1 (CPUs 3 and 4); CPUs 5 and 6 belong to no node."""
    directory = fresh_directory(request)
    with Session(smp=7, numa=3, append="sidecar.linux_cpus=2,6", tests=True, directory=directory) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


def pages_of(session: Session, cpu: int) -> dict[PrivatePage, bytes]:
    """Pages of a CPU that nobody writes while it halts."""
    kept = (PrivatePage.DIAGNOSTIC, PrivatePage.LOG, PrivatePage.GLOBALS, PrivatePage.PML4, PrivatePage.PT)
    found = session.found
    return {page: found.read_private(session.machine.ram, found.cpu(cpu), page) for page in kept}


def others(session: Session, cpu: int) -> dict[int, tuple[int, dict[PrivatePage, bytes]]]:
    """Status and pages of the sidecar CPUs apart from one."""
    return {n: (one.status, pages_of(session, n)) for n, one in session.cpus.items() if n != cpu}


# --- many at once -----------------------------------------------------------------------------------------------------


def overlaps(session: Session) -> int:
    """Pairs of CPUs that were between their first instruction and their own page tables at the same time."""
    spans = []
    for cpu in session.cpus:
        by_phase = stamps(session, cpu)
        spans.append((by_phase[BootPhase.TRAMPOLINE], by_phase[BootPhase.MAPPED]))
    return sum(one[0] < other[1] and other[0] < one[1] for one, other in combinations(spans, 2))


def test_many_cpus_are_in_the_trampoline_at_once(request: pytest.FixtureRequest) -> None:
    """Shown by the stamps of the boot; should the host have let the CPUs run one by one, by a burst of new arrivals."""
    with Session(smp=64, directory=fresh_directory(request, "smp-64")) as session:
        for arrival in range(2, MOST_BURSTS + 2):
            if overlaps(session):
                break
            send_startup(session, session.found.sidecar_cpus)
            wait_arrived(session, arrival)
        assert overlaps(session)


def test_a_burst_of_arrivals_leaves_every_cpu_idle(request: pytest.FixtureRequest) -> None:
    with Session(smp=64, directory=fresh_directory(request, "burst")) as session:
        for arrival in range(2, BURSTS + 2):
            send_startup(session, session.found.sidecar_cpus)
            wait_arrived(session, arrival)
            for cpu in session.cpus.values():
                cpu.none()


def wait_arrived(session: Session, arrival: int) -> None:
    """Waits until every CPU has come through the trampoline to its park loop so many times."""
    boots = [cpu.pages.diagnostic.boot for cpu in session.cpus.values()]
    wait_until(
        lambda: all(boot.arrivals == arrival and boot.stamps[BootPhase.IDLE] for boot in boots),
        seconds=SECONDS,
        what=f"arrival {arrival} of {len(boots)} CPUs",
    )


def test_init_may_strike_at_any_moment_of_an_arrival(request: pytest.FixtureRequest) -> None:
    """CPUs are started again and again while they arrive and help each other; what counts is that all end up idle."""
    choice = random.Random(8)
    with Session(smp=8, directory=fresh_directory(request, "strikes")) as session:
        sidecars = session.found.sidecar_cpus
        for _ in range(STRIKES):
            send_startup(session, choice.sample(sidecars, choice.randint(1, len(sidecars))))
        session.backing.drain(SECONDS)
        wait_settled(session)
        for cpu in session.cpus.values():
            cpu.none()
            assert cpu.pages.diagnostic.boot.arrivals > 1
            assert cpu.pages.diagnostic.fault.count == 0


def wait_settled(session: Session) -> None:
    """Until all CPUs are parked and stay so: what the boot CPU has sent, a CPU takes when the host lets it run."""

    def arrivals() -> list[int]:
        wait_parked(session)
        return [int(cpu.pages.diagnostic.boot.arrivals) for cpu in session.cpus.values()]

    def settled() -> bool:
        before = arrivals()
        time.sleep(SETTLE_SECONDS)
        return arrivals() == before

    wait_until(settled, seconds=SECONDS, what="no more arrivals")


# --- not asked for ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cpu", "what"), [(2, "left to Linux"), (3, "first of its node"), (5, "in no node")])
def test_a_late_arrival_halts_and_disturbs_nobody(session: Session, cpu: int, what: str) -> None:
    found, ram = session.found, session.machine.ram
    before = others(session, cpu)
    own = pages_of(session, cpu) if found.cpu(cpu).node is not None else None
    send_startup(session, [found.cpu(cpu)])
    registers = wait_turned_away(session, cpu)
    assert registers.efer == Efer.LME | Efer.LMA | Efer.NXE, what
    assert found.status(ram, found.cpu(cpu)) in (CpuStatus.REMOVED, None)
    assert others(session, cpu) == before
    if own is not None:
        assert pages_of(session, cpu) == own, "its claim is revoked, so it may not touch its pages"
    for one in session.cpus.values():
        one.none()


def test_a_cpu_that_was_turned_away_can_be_given_to_the_sidecar(session: Session) -> None:
    send_startup(session, [session.found.cpu(2)])
    wait_turned_away(session, 2)
    session.driver.give_back(2)
    assert session.driver.status(2) == CpuStatus.IDLE
    session.driver.run(2)
    boot = session.driver.pages(2).diagnostic.boot
    assert boot.arrivals >= 1
    assert (boot.linux_number, boot.apic_id) == (2, 2)
    session.driver.remove(2)
    send_startup(session, [session.found.cpu(2)])
    wait_turned_away(session, 2)
    assert session.driver.status(2) == CpuStatus.REMOVED


def test_the_first_cpu_of_a_node_is_never_the_sidecars(session: Session) -> None:
    with pytest.raises(CpuAway, match="is the first of its node: Linux keeps it"):
        session.driver.give_back(3)


def test_a_startup_does_not_revive_a_faulted_cpu(session: Session) -> None:
    cpu = session.cpus[1]
    with pytest.raises(CpuFaulted):
        cpu.raise_fault(RaiseKind.INVALID_OPCODE)
    before = pages_of(session, 1)
    send_startup(session, [session.found.cpu(1)])
    wait_turned_away(session, 1)
    assert cpu.status == CpuStatus.FAULTED
    assert pages_of(session, 1) == before
    cpu.restart()
    cpu.none()


def test_a_startup_is_no_answer_to_a_removal(session: Session) -> None:
    """A CPU that got INIT while it should remove itself halts; a restart brings it back."""
    cpu = session.cpus[1]
    cpu.pages.control.cpu_status[session.found.cpu(1).index] = CpuStatus.REMOVE  # it sleeps, and nobody wakes it
    send_startup(session, [session.found.cpu(1)])
    wait_turned_away(session, 1)
    assert cpu.status == CpuStatus.REMOVE
    cpu.restart()
    cpu.none()


def test_a_second_arrival_of_an_idle_cpu_leaves_its_command_page_alone(session: Session) -> None:
    cpu = session.cpus[1]
    cpu.none()
    found, ram = session.found, session.machine.ram
    page = ram.read(found.shared_page_pa(found.cpu(1), SharedPage.COMMAND), PAGE_SIZE)
    arrivals = int(cpu.pages.diagnostic.boot.arrivals)
    send_startup(session, [found.cpu(1)])
    wait_until(
        lambda: cpu.pages.diagnostic.boot.arrivals == arrivals + 1 and cpu.pages.diagnostic.boot.stamps[BootPhase.IDLE],
        seconds=SECONDS,
        what="another arrival of CPU 1",
    )
    assert cpu.status == CpuStatus.IDLE
    assert ram.read(found.shared_page_pa(found.cpu(1), SharedPage.COMMAND), PAGE_SIZE) == page
    cpu.none()
