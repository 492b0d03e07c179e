"""INIT and STARTUP that nobody asked for: a CPU arrives only if its status says that somebody waits for it."""

import pytest

from sidecar.layout import PAGE_SIZE, CpuStatus, SidecarCommand
from sidecar.layout.x86 import Icr
from sidecar.protocol.commands import Cpu
from sidecar.protocol.requests import register_request
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support import cpus, malformed

MARK = b"kept" * (PAGE_SIZE // 4)


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[2]


def start(session: Session, cpu: Cpu, status: int) -> None:
    """INIT, a status byte from nowhere, STARTUP."""
    cpus.interrupt(session, cpu, Icr.INIT)
    malformed.force(cpu, status)
    startup(session, cpu)


def startup(session: Session, cpu: Cpu) -> None:
    cpus.interrupt(session, cpu, Icr.STARTUP, session.backing.trampoline_pa // PAGE_SIZE)


@pytest.mark.parametrize("status", [CpuStatus.REMOVED, CpuStatus.REMOVE, CpuStatus.FAULTED, 6, 0x4D, 0xFF])
def test_a_cpu_that_nobody_waits_for_halts(session: Session, cpu: Cpu, status: int) -> None:
    before, boot = cpus.arrivals(cpu), bytes(cpu.driver.diagnostic_page(cpu.number))
    cpu.pages.register[:] = MARK
    with malformed.undisturbed(cpus.others(session, cpu)):
        start(session, cpu, status)
        cpus.assert_halted_in(session, cpu, "halt_forever")
    assert (cpu.status, cpus.arrivals(cpu)) == (status, before)
    assert (cpu.driver.diagnostic_page(cpu.number), bytes(cpu.pages.register)) == (boot, MARK)
    malformed.recover(session, cpu)


@pytest.mark.parametrize("status", [CpuStatus.RUN, CpuStatus.STOP])
def test_a_cpu_that_somebody_waits_for_arrives(session: Session, cpu: Cpu, status: CpuStatus) -> None:
    before = cpus.arrivals(cpu)
    cpu.pages.register[:] = MARK
    start(session, cpu, status)
    cpus.wait_status(cpu, CpuStatus.IDLE)
    assert (cpus.arrivals(cpu), bytes(cpu.pages.register)) == (before + 1, bytes(PAGE_SIZE))
    cpus.assert_answers(cpu)


def test_a_second_arrival_keeps_the_pages(session: Session, cpu: Cpu) -> None:
    """The status is IDLE: a start that was sent twice, whose first arrival may have been given a command page."""
    before = cpus.arrivals(cpu)
    cpu.pages.register[:] = MARK
    start(session, cpu, CpuStatus.IDLE)
    wait_until(lambda: cpus.arrivals(cpu) == before + 1, seconds=cpus.SECONDS, what="the second arrival")
    cpus.assert_halted_in(session, cpu, "park")
    assert (cpu.status, bytes(cpu.pages.register)) == (CpuStatus.IDLE, MARK)
    cpus.assert_answers(cpu)


def test_startup_without_init_is_nothing(session: Session, cpu: Cpu) -> None:
    before = cpus.arrivals(cpu)
    for _ in range(5):
        startup(session, cpu)
        cpus.assert_answers(cpu)
    assert cpus.arrivals(cpu) == before


def test_init_in_the_middle_of_a_command(session: Session, cpu: Cpu) -> None:
    """INIT takes a CPU wherever it is; a restart brings it back."""
    for turn in range(30):
        abandoned = Cpu(session.driver, cpu.number)
        for _ in range(turn % 4):
            abandoned.none()
        abandoned.start(SidecarCommand.GET_VP_REGISTERS, register_request([(0x50000, 0)] * 31))
        session.backing.send(cpu.numbers.apic_id << 32 | Icr.INIT)
        cpu.restart()
        cpus.assert_answers(cpu)


def test_two_startups_at_once(session: Session, cpu: Cpu) -> None:
    before = cpus.arrivals(cpu)
    cpus.interrupt(session, cpu, Icr.INIT)
    malformed.force(cpu, CpuStatus.RUN)
    for _ in range(3):
        startup(session, cpu)
    cpus.wait_status(cpu, CpuStatus.IDLE)
    cpus.assert_answers(cpu)
    assert cpus.arrivals(cpu) == before + 1
