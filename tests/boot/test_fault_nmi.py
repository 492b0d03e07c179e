"""NMIs that the boot CPU sends to one CPU: contained wherever they hit, and none is lost to a later life of the CPU.

After an NMI the CPU blocks further ones until IRET or INIT (SDM vol. 3A, 6.7.1); a restart begins with INIT.
"""

import time

import pytest

from sidecar.builder.asm import where_is
from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.x86 import Icr, Rflags, Vector
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CpuFaulted
from sidecar.protocol.scan import Finished
from sidecar.protocol.slot import DriverState
from sidecar.qemu.session import Session
from tests.support import cpus

NOTHING_HAPPENS_SECONDS = 0.02


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[3]


def nmi(session: Session, cpu: Cpu) -> None:
    cpus.interrupt(session, cpu, Icr.NMI)


def test_nmi_to_an_idle_cpu(session: Session, cpu: Cpu) -> None:
    cpus.assert_halted_in(session, cpu, "park")
    nmi(session, cpu)
    fault = cpus.wait_faulted(cpu)
    assert (fault.vector, fault.error_code, fault.status, fault.command) == (Vector.NMI, 0, CpuStatus.IDLE, 0)
    assert cpus.instruction(cpus.line_before(fault.rip)) == "hlt"
    assert cpus.line_before(fault.rip).routine == "park"
    assert fault.rflags & Rflags.IF
    cpus.assert_halted_in(session, cpu, "halt_forever")
    for other in cpus.others(session, cpu):
        cpus.assert_answers(other)


def test_nmi_and_restart_again_and_again(session: Session, cpu: Cpu) -> None:
    count, arrivals = cpus.faults(cpu), cpus.arrivals(cpu)
    for turn in range(1, 26):
        nmi(session, cpu)
        assert cpus.wait_faulted(cpu).count == count + turn
        cpu.restart()
        cpus.assert_answers(cpu)
    assert cpus.arrivals(cpu) == arrivals + 25


def test_nmi_during_a_command(session: Session, cpu: Cpu) -> None:
    run = cpus.start_endless(session, cpu, RaiseKind.WAIT_FOR_STOP)
    nmi(session, cpu)
    with pytest.raises(CpuFaulted, match=r"faulted: NMI \(vector 2\).*in command 0x100") as caught:
        run.wait(seconds=cpus.SECONDS)
    fault = caught.value.fault
    assert (fault.status, fault.command) == (CpuStatus.RUN, SidecarCommand.RAISE)
    assert cpus.line_at(fault.rip).routine == "raise_wait_for_stop"
    assert cpu.pages.command.completed_sequence != cpu.pages.command.sequence


def test_nmi_during_a_cancelled_command(session: Session, cpu: Cpu) -> None:
    run = cpus.start_endless(session, cpu, RaiseKind.SPIN)
    assert run.stop()
    nmi(session, cpu)
    with pytest.raises(CpuFaulted) as caught:
        run.wait(seconds=cpus.SECONDS)
    assert caught.value.fault.status == CpuStatus.STOP


def test_nmi_ends_a_started_run_for_who_asks_for_finished_ones(session: Session, cpu: Cpu) -> None:
    session.driver.finished()
    run = cpus.start_endless(session, cpu, RaiseKind.WAIT_FOR_STOP)
    nmi(session, cpu)
    assert session.driver.finished(seconds=cpus.SECONDS) == [Finished(cpu.number, CpuStatus.FAULTED)]
    with pytest.raises(CpuFaulted):
        run.wait()


def test_nmi_to_a_removed_cpu_changes_nothing(session: Session, cpu: Cpu) -> None:
    cpu.remove()
    cpus.assert_halted_in(session, cpu, "halt_forever")
    count = cpus.faults(cpu)
    for _ in range(3):
        nmi(session, cpu)
        time.sleep(NOTHING_HAPPENS_SECONDS)
        assert (cpu.status, cpus.faults(cpu)) == (CpuStatus.REMOVED, count)
    cpus.assert_halted_in(session, cpu, "halt_forever")
    assert cpu.state is DriverState.REMOVED
    cpu.give_back()
    cpus.assert_answers(cpu)


def test_nmi_to_a_faulted_cpu_keeps_the_first_fault(session: Session, cpu: Cpu) -> None:
    fault = cpus.fault_of(cpu, RaiseKind.INVALID_OPCODE)
    for _ in range(3):
        nmi(session, cpu)
        time.sleep(NOTHING_HAPPENS_SECONDS)
    assert (cpu.status, cpu.driver.fault(cpu.number)) == (CpuStatus.FAULTED, fault)
    cpu.restart()
    cpus.assert_answers(cpu)


def test_nmi_to_a_cpu_that_waits_for_startup(session: Session, cpu: Cpu) -> None:
    """INIT has taken it: an NMI between INIT and STARTUP must not be there when it arrives."""
    arrivals, count = cpus.arrivals(cpu), cpus.faults(cpu)
    cpus.interrupt(session, cpu, Icr.INIT)
    nmi(session, cpu)
    cpu.restart()
    cpus.assert_answers(cpu)
    assert (cpus.arrivals(cpu), cpus.faults(cpu)) == (arrivals + 1, count)


def test_nmi_to_every_cpu(session: Session) -> None:
    for cpu in session.cpus.values():
        session.backing.send(cpu.numbers.apic_id << 32 | Icr.NMI)
    session.backing.drain(cpus.SECONDS)
    for cpu in session.cpus.values():
        assert cpus.wait_faulted(cpu).vector == Vector.NMI
    for cpu in session.cpus.values():
        cpu.restart()
        cpus.assert_answers(cpu)


def test_nmi_anywhere_in_the_life_of_commands(session: Session, cpu: Cpu) -> None:
    """Sent while one command follows another: it hits park, execute, finish, handlers, or what they call."""
    names = ["HvX64RegisterDr0", "HvX64RegisterDr7", "HvX64RegisterMsrMtrrFix4kF8000"]
    for turn in range(40):
        count = cpus.faults(cpu)
        for _ in range(turn % 7):
            cpu.get_registers(names)
        session.backing.send(cpu.numbers.apic_id << 32 | Icr.NMI)
        with pytest.raises(CpuFaulted) as caught:
            command_for_ever(cpu, names)
        fault = caught.value.fault
        assert (fault.vector, fault.count, fault.nested) == (Vector.NMI, count + 1, False)
        assert "in no routine" not in where_is(cpus.kernel_code(), cpus.offset(fault.rip))
        assert cpu.status == CpuStatus.FAULTED
        cpu.restart()


def command_for_ever(cpu: Cpu, names: list[str]) -> None:
    deadline = time.monotonic() + cpus.SECONDS
    while time.monotonic() < deadline:
        cpu.get_registers(names)


@pytest.mark.parametrize("kind", [RaiseKind.INVALID_OPCODE, RaiseKind.CORRUPT_PAGE_TABLE])
def test_nmi_while_a_fault_is_reported(session: Session, cpu: Cpu, kind: RaiseKind) -> None:
    """Whichever comes first is the one fault; the record is whole."""
    slot_of_the_command_page = 3
    for _ in range(25):
        count = cpus.faults(cpu)
        with cpus.paused(session):
            run = cpus.start_raise(cpu, kind, slot_of_the_command_page)
            session.backing.send(cpu.numbers.apic_id << 32 | Icr.NMI)
        with pytest.raises(CpuFaulted) as caught:
            run.wait(seconds=cpus.SECONDS)
        fault = caught.value.fault
        assert fault.vector in (Vector.NMI, Vector.INVALID_OPCODE, Vector.PAGE_FAULT)
        cpus.assert_halted_in(session, cpu, "halt_forever")
        assert cpu.status == CpuStatus.FAULTED
        assert cpus.faults(cpu) == count + 1
        cpu.restart()
        cpus.assert_answers(cpu)


def test_a_spinning_cpu_is_freed_by_an_nmi(session: Session, cpu: Cpu) -> None:
    run = cpus.start_endless(session, cpu, RaiseKind.SPIN)
    nmi(session, cpu)
    with pytest.raises(CpuFaulted) as caught:
        run.wait(seconds=cpus.SECONDS)
    assert cpus.line_at(caught.value.fault.rip).routine == "raise_spin"
