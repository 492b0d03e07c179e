"""What can go wrong between driver and CPU, one thing at a time; each ends with every CPU proven usable."""

import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.layout import PAGE_SIZE, CpuStatus, DiagnosticPage, PrivatePage, RaiseKind, SidecarCommand
from sidecar.layout.private import InterruptPage, Tss
from sidecar.layout.x86 import Icr, Ist, Vector
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CommandTimeout, CpuFaulted, CpuLost
from sidecar.protocol.recovery import ATTEMPTS
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support import cpus
from tests.support.booted import fresh_directory

KIND_MASK = 0x700
"""Delivery mode in an ICR value. Ref: SDM vol. 3A, 11.6.1."""
SHORT = 1.0
ARRIVALS = slice(DiagnosticPage.boot.arrivals, DiagnosticPage.boot.arrivals + 8)


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=4, tests=True, directory=fresh_directory(request)) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Iterator[Path]:
    """Afterwards every CPU answers."""
    yield session.machine.directory
    for cpu in session.cpus.values():
        cpus.assert_answers(cpu)


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[1]


@pytest.fixture
def lose(session: Session, monkeypatch: pytest.MonkeyPatch) -> Callable[[Icr, int], list[int]]:
    """From now on the first `count` interrupts of this kind do not leave; the list has those that did not."""

    def begin(kind: Icr, count: int) -> list[int]:
        lost: list[int] = []
        send = session.backing.send

        def lossy(icr: int) -> None:
            if icr & KIND_MASK == kind & KIND_MASK and len(lost) < count:
                lost.append(icr)
            else:
                send(icr)

        monkeypatch.setattr(session.backing, "send", lossy)
        return lost

    return begin


Lose = Callable[[Icr, int], list[int]]

# --- interrupts that are lost, late or too many ---


def test_a_request_that_is_lost(cpu: Cpu, lose: Lose) -> None:
    """The CPU sleeps on: the command times out, and the CPU comes back through INIT with its pages clean."""
    arrivals = cpus.arrivals(cpu)
    lost = lose(Icr.FIXED, 1)
    with pytest.raises(CommandTimeout):
        cpu.none(seconds=SHORT)
    assert (len(lost), cpus.arrivals(cpu)) == (1, arrivals + 1)
    assert cpu.status == CpuStatus.IDLE


def test_a_cancel_that_is_lost(cpu: Cpu, lose: Lose) -> None:
    """STOP is in the status byte, where the command looks by itself."""
    run = cpus.start_raise(cpu, RaiseKind.WAIT_FOR_STOP)
    lost = lose(Icr.FIXED, 1)
    assert run.stop()
    run.wait(seconds=cpus.SECONDS)
    assert len(lost) == 1


@pytest.mark.parametrize("kind", [Icr.INIT, Icr.STARTUP])
@pytest.mark.parametrize("count", [1, ATTEMPTS - 1])
def test_init_or_startup_lost_on_the_way_back(cpu: Cpu, lose: Lose, kind: Icr, count: int) -> None:
    with pytest.raises(CpuFaulted):
        cpu.raise_fault(RaiseKind.INVALID_OPCODE)
    lost = lose(kind, count)
    cpu.restart()
    assert len(lost) == count


def test_a_cpu_that_gets_no_startup_at_all_is_lost_until_it_does(
    session: Session, cpu: Cpu, lose: Lose, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(Icr.STARTUP, 1 << 30)
    with pytest.raises(CpuLost):
        cpu.restart()
    with pytest.raises(CpuLost):
        cpu.none()
    for other in cpus.others(session, cpu):
        cpus.assert_answers(other)
    monkeypatch.undo()
    cpu.restart()


def test_a_startup_that_comes_late(session: Session, cpu: Cpu, lose: Lose) -> None:
    """The one that was given up arrives when nobody waits any more: it finds RUN, and is idle by itself."""
    lost = lose(Icr.STARTUP, ATTEMPTS)
    arrivals = cpus.arrivals(cpu)
    with pytest.raises(CpuLost):
        cpu.restart()
    session.backing.send(lost[0])
    cpus.wait_status(cpu, CpuStatus.IDLE)
    assert cpus.arrivals(cpu) == arrivals + 1
    cpu.restart()


def test_startups_without_init_are_ignored(session: Session, cpu: Cpu) -> None:
    arrivals = cpus.arrivals(cpu)
    for _ in range(3):
        cpus.interrupt(session, cpu, Icr.STARTUP, session.found.trampoline_pa >> 12)
        cpu.none()
    assert cpus.arrivals(cpu) == arrivals


# --- memory that was overwritten ---


def private_pa(session: Session, cpu: Cpu, page: PrivatePage) -> int:
    return session.found.private_page_pa(session.found.cpu(cpu.number), page)


@pytest.mark.parametrize("seed", range(4))
def test_the_stack_overwritten_under_a_command(session: Session, cpu: Cpu, seed: int) -> None:
    """Whatever it returns to: a fault, and no other CPU."""
    run = cpus.start_endless(session, cpu, RaiseKind.WAIT_FOR_STOP)
    noise = random.Random(seed).randbytes(PAGE_SIZE)
    session.machine.ram.write(private_pa(session, cpu, PrivatePage.STACK), noise)
    run.stop()
    with pytest.raises(CpuFaulted):
        run.wait(seconds=cpus.SECONDS)
    for other in cpus.others(session, cpu):
        cpus.assert_answers(other)
    cpu.restart()


def test_an_interrupt_stack_that_is_not_mapped(session: Session, cpu: Cpu) -> None:
    """The NMI finds no stack: the page fault of its delivery is contained. Ref: SDM vol. 3A, table 6-5 (benign)."""
    slot, end = InterruptPage.tss + Tss.ist + 8 * (Ist.NMI - 1), 0x1000
    session.machine.ram.write(private_pa(session, cpu, PrivatePage.INTERRUPT) + slot, struct.pack("<Q", end))
    cpus.interrupt(session, cpu, Icr.NMI)
    fault = cpus.wait_faulted(cpu)
    assert (fault.vector, fault.cr2) == (Vector.PAGE_FAULT, end - 8)
    cpu.restart()
    cpus.interrupt(session, cpu, Icr.NMI)
    assert cpus.wait_faulted(cpu).vector == Vector.NMI
    cpu.restart()


def test_an_interrupt_page_of_zeros_while_the_cpu_sleeps(session: Session, cpu: Cpu) -> None:
    """Without GDT and TSS no interrupt can be taken at all, so the CPU is not woken: INIT needs neither."""
    session.machine.ram.write(private_pa(session, cpu, PrivatePage.INTERRUPT), bytes(PAGE_SIZE))
    cpu.restart()


@pytest.mark.parametrize("page", list(PrivatePage))
def test_any_private_page_of_noise_while_the_cpu_is_removed(session: Session, cpu: Cpu, page: PrivatePage) -> None:
    """A CPU that returns builds its tables anew; what it only reports of before is put back for the tests that follow.

    Its count of arrivals stays: by that the driver knows that it came back.
    """
    session.driver.remove(cpu.number)
    address = private_pa(session, cpu, page)
    before = session.machine.ram.read(address, PAGE_SIZE)
    noise = bytearray(random.Random(page).randbytes(PAGE_SIZE))
    if page == PrivatePage.DIAGNOSTIC:
        noise[ARRIVALS] = before[ARRIVALS]
    session.machine.ram.write(address, noise)
    try:
        session.driver.give_back(cpu.number)
        cpus.assert_answers(cpu)
    finally:
        if page in (PrivatePage.DIAGNOSTIC, PrivatePage.LOG):
            session.machine.ram.write(address, before)


# --- a machine that stands still ---


def test_the_machine_stopped_and_continued_under_commands(session: Session) -> None:
    """Time passes for nobody: what was on its way arrives."""
    endless = {cpu.number: cpus.start_raise(cpu, RaiseKind.WAIT_FOR_STOP) for cpu in session.cpus.values()}
    for round_number in range(5):
        session.machine.stop()
        if round_number == 2:
            for run in endless.values():
                run.stop()
        time.sleep(0.05)
        session.machine.cont()
    for run in endless.values():
        run.wait(seconds=cpus.SECONDS)
    for cpu in session.cpus.values():
        assert cpu.pages.command.command == SidecarCommand.NONE


# --- a machine that goes back in time ---


def test_a_snapshot_is_taken_and_restored(request: pytest.FixtureRequest) -> None:
    """State of machine and CPUs in a qcow2 file; what happened since is undone, and all goes on from there."""
    directory = fresh_directory(request, "snapshot")
    with Session(smp=3, tests=True, memory_bytes=64 << 20, directory=directory) as session:
        disk = attach_disk(session, directory / "state.qcow2")
        cpu, other = session.cpus[1], session.cpus[2]
        cpu.set_registers({"HvX64RegisterDr0": 0x1111})
        commands = cpus.counters(cpu)["commands"]
        cpus.wait_asleep(session)
        job(session, "snapshot-save", tag="then", vmstate=disk, devices=[disk])

        cpu.set_registers({"HvX64RegisterDr0": 0x2222})
        with pytest.raises(CpuFaulted):
            other.raise_fault(RaiseKind.INVALID_OPCODE)
        session.machine.stop()
        job(session, "snapshot-load", tag="then", vmstate=disk, devices=[disk])
        session.machine.cont()

        assert cpus.faults(other) == 0
        assert cpus.counters(cpu)["commands"] == commands
        assert cpu.get_registers(["HvX64RegisterDr0"]) == {"HvX64RegisterDr0": 0x1111}
        for each in (cpu, other):
            cpus.assert_answers(each)
            each.restart()
            cpus.assert_answers(each)


def attach_disk(session: Session, file: Path) -> str:
    """A new qcow2 file as a block node of the machine."""
    qmp = session.machine.qmp
    job(session, "blockdev-create", options={"driver": "file", "filename": str(file), "size": 0})
    plain: dict[str, Any] = {"driver": "file", "filename": str(file), "node-name": "plain"}
    qmp("blockdev-add", **plain)
    job(session, "blockdev-create", options={"driver": "qcow2", "file": "plain", "size": 1 << 20})
    state: dict[str, Any] = {"driver": "qcow2", "file": "plain", "node-name": "state"}
    qmp("blockdev-add", **state)
    return "state"


def job(session: Session, command: str, **arguments: Any) -> None:
    """A command of QEMU's that runs as a job, to its end."""
    name = f"job-{command}"
    arguments["job-id"] = name
    session.machine.qmp(command, **arguments)

    def ended() -> bool:
        (status,) = [one for one in session.machine.qmp("query-jobs") if one["id"] == name]
        assert "error" not in status, status["error"]
        return bool(status["status"] == "concluded")

    wait_until(ended, seconds=cpus.SECONDS, what=f"{command} to end")
    session.machine.qmp("job-dismiss", id=name)
