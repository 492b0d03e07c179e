"""A fault is one CPU's business: others work on, the driver's calls say what happened, the log keeps a line."""

import threading
from collections.abc import Iterator

import pytest

from sidecar.layout import CpuStatus, RaiseKind
from sidecar.layout.x86 import Vector
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CpuFaulted, SidecarCommandError
from sidecar.protocol.scan import Finished
from sidecar.protocol.slot import DriverState
from sidecar.qemu.session import Session
from tests.support import cpus

FORBIDDEN = "RAISE: this machine was not started for tests"


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=5, tests=True, directory=cpus.module_directory(request)) as session:
        yield session


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[1]


def test_two_faults_in_a_row(cpu: Cpu) -> None:
    first = cpus.fault_of(cpu, RaiseKind.DIVIDE_ERROR)
    cpu.restart()
    second = cpus.fault_of(cpu, RaiseKind.PAGE_FAULT, 0x5000)
    assert (second.count, second.vector, second.cr2) == (first.count + 1, Vector.PAGE_FAULT, 0x5000)
    assert second.tsc > first.tsc


def test_nothing_of_a_nested_report_stays_in_the_next_one(cpu: Cpu) -> None:
    nested = cpus.fault_of(cpu, RaiseKind.CORRUPT_PAGE_TABLE, 4)
    cpu.restart()
    plain = cpus.fault_of(cpu, RaiseKind.GENERAL_PROTECTION)
    assert (nested.nested, plain.nested, plain.count) == (True, False, nested.count + 1)
    assert cpus.line_at(plain.rip).routine == "raise_general_protection"


def test_all_cpus_at_once(session: Session) -> None:
    counts = {number: cpus.faults(cpu) for number, cpu in session.cpus.items()}
    different = (
        RaiseKind.INVALID_OPCODE, RaiseKind.DOUBLE_FAULT, RaiseKind.MACHINE_CHECK, RaiseKind.CORRUPT_PAGE_TABLE
    )
    kinds = dict(zip(session.cpus, different, strict=True))
    for turn in range(1, 6):
        with cpus.paused(session):
            runs = {number: cpus.start_raise(cpu, kinds[number], 6) for number, cpu in session.cpus.items()}
        for number, run in runs.items():
            with pytest.raises(CpuFaulted) as caught:
                run.wait(seconds=cpus.SECONDS)
            assert caught.value.fault.count == counts[number] + turn
            assert cpus.line_at(caught.value.fault.rip).routine == f"raise_{kinds[number].name.lower()}"
        for cpu in session.cpus.values():
            cpu.restart()
            cpus.assert_answers(cpu)


def test_finished_runs_say_who_faulted(session: Session) -> None:
    session.driver.finished()
    runs = [cpus.start_raise(cpu, RaiseKind.BREAKPOINT) for cpu in session.cpus.values()]
    ended: list[Finished] = []
    while len(ended) < len(runs):
        found = session.driver.finished(seconds=cpus.SECONDS)
        assert found
        ended += found
    assert sorted(one.cpu for one in ended) == list(session.cpus)
    assert {one.status for one in ended} == {CpuStatus.FAULTED}
    for run in runs:
        with pytest.raises(CpuFaulted):
            run.wait()


def test_others_run_hundreds_of_commands_meanwhile(session: Session, cpu: Cpu) -> None:
    """Every command of the others is executed once, although a neighbour faults and restarts all the time."""
    commands = 800
    before = {other.number: cpus.counters(other)["commands"] for other in cpus.others(session, cpu)}
    faults = {other.number: cpus.faults(other) for other in cpus.others(session, cpu)}
    workers = [
        threading.Thread(target=lambda other=other: [other.none() for _ in range(commands)])
        for other in cpus.others(session, cpu)
    ]
    for worker in workers:
        worker.start()
    turns = 0
    while turns < 5 or any(worker.is_alive() for worker in workers):
        cpus.fault_of(cpu, RaiseKind.GENERAL_PROTECTION)
        cpu.restart()
        turns += 1
    for worker in workers:
        worker.join()
    for other in cpus.others(session, cpu):
        assert cpus.counters(other)["commands"] == before[other.number] + commands
        assert cpus.faults(other) == faults[other.number]
    cpus.assert_answers(cpu)


def test_a_faulted_cpu_can_be_given_to_linux_and_comes_back(cpu: Cpu) -> None:
    cpus.fault_of(cpu, RaiseKind.STACK_FAULT)
    cpu.remove()
    assert (cpu.status, cpu.state) == (CpuStatus.REMOVED, DriverState.REMOVED)
    cpu.give_back()
    cpus.assert_answers(cpu)


def test_a_fault_leaves_a_line_in_the_log(cpu: Cpu) -> None:
    fault = cpus.fault_of(cpu, RaiseKind.PAGE_FAULT, 0x7000)
    line = f"sidecar: cpu 1: fault: vector 14 at {fault.rip:#x}, error code 0x0, cr2 0x7000"
    cpus.wait_log(cpu, line)
    cpu.restart()
    cpus.wait_log(cpu, f"sidecar: cpu 1: APIC id 1: arrival {cpus.arrivals(cpu)}")


def test_a_fault_without_a_log_page(cpu: Cpu) -> None:
    """The record is complete before the log is tried; the fault that this gives is not reported."""
    fault = cpus.fault_of(cpu, RaiseKind.CORRUPT_PAGE_TABLE, 10)
    assert (fault.vector, fault.nested) == (Vector.PAGE_FAULT, False)
    assert cpu.driver.fault(cpu.number) == fault


def test_raise_is_refused_by_a_machine_that_is_not_for_tests(plain: Session) -> None:
    cpu = plain.cpus[1]
    errors = cpus.counters(cpu)["errors"]
    for kind in RaiseKind:
        with pytest.raises(SidecarCommandError) as caught:
            cpu.raise_fault(kind, 3, seconds=cpus.SECONDS)
        assert caught.value.sentence == cpus.sentence(cpu) == FORBIDDEN
    cpus.assert_answers(cpu)
    assert cpus.counters(cpu)["errors"] == errors + len(RaiseKind)


@pytest.mark.parametrize("kind", [4, 5, 9, 17, 20, 0xFF, 0x105, 0xFFFFFFFF])
def test_an_unknown_kind_is_refused(cpu: Cpu, kind: int) -> None:
    with pytest.raises(SidecarCommandError) as caught:
        cpu.raise_fault(kind, seconds=cpus.SECONDS)
    assert caught.value.sentence == f"RAISE: kind {kind:#x} is not known"
    cpus.assert_answers(cpu)
