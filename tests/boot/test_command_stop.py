"""Commands that do not end by themselves: STOP ends those that listen, a time-out and INIT those that do not."""

import time

import pytest

from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CommandTimeout, CpuBusy, NothingRuns
from sidecar.protocol.requests import raise_request, register_request
from sidecar.protocol.scan import Finished
from sidecar.protocol.slot import DriverState
from sidecar.qemu.session import Session
from tests.support import cpus

SHORT_SECONDS = 0.1
RACES = 400


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[1]


# --- commands that ignore STOP ----------------------------------------------------------------------------------------


def test_a_cpu_that_spins_is_restarted_after_the_time_out(cpu: Cpu) -> None:
    arrivals, restarts = cpus.arrivals(cpu), int(cpu.pages.privileged.restart_count)
    started = time.monotonic()
    with pytest.raises(CommandTimeout) as caught:
        cpu.raise_fault(RaiseKind.SPIN, seconds=SHORT_SECONDS)
    assert SHORT_SECONDS <= time.monotonic() - started < cpus.SECONDS
    assert str(caught.value) == (
        "CPU 1 (APIC id 0x1, node 0, index 1) did not finish RAISE within 0.1 s, its status was RUN; it was restarted"
    )
    assert (caught.value.cpu, caught.value.seconds) == (cpu.numbers, SHORT_SECONDS)
    assert (caught.value.status, caught.value.fault, caught.value.recovered) == (CpuStatus.RUN, None, True)
    assert (cpus.arrivals(cpu), cpu.pages.privileged.restart_count) == (arrivals + 1, restarts + 1)
    cpus.assert_answers(cpu)


def test_the_others_answer_while_one_spins(session: Session, cpu: Cpu) -> None:
    run = cpus.start_endless(session, cpu, RaiseKind.SPIN)
    for _ in range(20):
        for other in cpus.others(session, cpu):
            cpus.assert_answers(other)
    with pytest.raises(CommandTimeout):
        run.wait(seconds=SHORT_SECONDS)
    cpus.assert_answers(cpu)


def test_a_cpu_that_ignores_stop_is_restarted(session: Session, cpu: Cpu) -> None:
    run = cpus.start_endless(session, cpu, RaiseKind.SPIN)
    assert run.stop()
    assert cpu.status == CpuStatus.STOP
    with pytest.raises(CommandTimeout, match=r"its status was STOP; it was restarted"):
        run.wait(seconds=SHORT_SECONDS)
    cpus.assert_answers(cpu)


def test_all_cpus_spin_at_once(session: Session) -> None:
    runs = [cpus.start_raise(cpu, RaiseKind.SPIN) for cpu in session.cpus.values()]
    for run in runs:
        with pytest.raises(CommandTimeout, match="it was restarted"):
            run.wait(seconds=SHORT_SECONDS)
    for cpu in session.cpus.values():
        cpus.assert_answers(cpu)


def test_a_restart_ends_a_spin_without_an_answer(session: Session, cpu: Cpu) -> None:
    run = cpus.start_endless(session, cpu, RaiseKind.SPIN)
    cpu.restart()
    with pytest.raises(NothingRuns):
        run.wait()
    cpus.assert_answers(cpu)


def test_spin_and_restart_again_and_again(cpu: Cpu) -> None:
    arrivals = cpus.arrivals(cpu)
    for _ in range(20):
        with pytest.raises(CommandTimeout):
            cpu.raise_fault(RaiseKind.SPIN, seconds=0.001)
        cpus.assert_answers(cpu)
    assert cpus.arrivals(cpu) == arrivals + 20


# --- commands that end on STOP ----------------------------------------------------------------------------------------


def test_a_command_lasts_until_it_is_stopped(session: Session, cpu: Cpu) -> None:
    run = cpus.start_endless(session, cpu, RaiseKind.WAIT_FOR_STOP)
    time.sleep(SHORT_SECONDS)
    assert (cpu.status, cpu.state) == (CpuStatus.RUN, DriverState.ASYNC)
    with pytest.raises(CpuBusy):
        cpu.none()
    assert run.stop()
    run.wait(seconds=cpus.SECONDS)
    assert cpu.status == CpuStatus.IDLE
    assert not run.stop()
    cpus.assert_answers(cpu)


def test_a_stopped_run_is_handed_out_as_finished(session: Session, cpu: Cpu) -> None:
    session.driver.finished()
    run = cpus.start_endless(session, cpu, RaiseKind.WAIT_FOR_STOP)
    assert session.driver.finished() == []
    assert run.stop()
    assert session.driver.finished(seconds=cpus.SECONDS) == [Finished(cpu.number, CpuStatus.IDLE)]
    run.wait()


def test_stop_before_the_cpu_has_seen_run(session: Session, cpu: Cpu) -> None:
    """The CPU sleeps through IDLE -> RUN -> STOP, and still takes the command, once."""
    for _ in range(20):
        before = cpus.counters(cpu)["commands"]
        with cpus.paused(session):
            run = cpus.start_raise(cpu, RaiseKind.WAIT_FOR_STOP)
            assert run.stop()
            assert cpu.status == CpuStatus.STOP
        run.wait(seconds=cpus.SECONDS)
        assert cpu.status == CpuStatus.IDLE
        assert cpus.counters(cpu)["commands"] == before + 1


def test_a_command_that_is_stopped_before_it_began_has_its_answer(session: Session, cpu: Cpu) -> None:
    cpu.set_registers({"HvX64RegisterDr3": 0x1234})
    with cpus.paused(session):
        run = cpu.start(SidecarCommand.GET_VP_REGISTERS, register_request([(0x50003, 0)]))
        assert run.stop()
    assert 0x1234.to_bytes(8, "little") in run.wait(seconds=cpus.SECONDS)


def test_stop_races_completion(cpu: Cpu) -> None:
    """Whether the STOP came before or after the end: one execution, one answer, IDLE.

    The pause before the STOP grows when it came too early and shrinks when it came too late, so most are close.
    """
    before, stopped, pause = cpus.counters(cpu), 0, 20e-6
    for _ in range(RACES):
        run = cpu.start(SidecarCommand.NONE)
        wait_busily(pause)
        if run.stop():
            stopped, pause = stopped + 1, pause * 1.2
        else:
            pause /= 1.2
        run.wait(seconds=cpus.SECONDS)
        assert (cpu.status, cpu.state) == (CpuStatus.IDLE, DriverState.AVAIL)
    after = cpus.counters(cpu)
    assert after["commands"] == before["commands"] + RACES
    assert after["errors"] == before["errors"]
    assert 0 < stopped < RACES


def test_stop_races_the_beginning(cpu: Cpu) -> None:
    """WAIT_FOR_STOP never ends without the STOP, so each of them must arrive."""
    before = cpus.counters(cpu)["commands"]
    for turn in range(RACES):
        run = cpu.start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
        wait_busily(turn % 50 * 2e-6)
        assert run.stop()
        run.wait(seconds=cpus.SECONDS)
    assert cpus.counters(cpu)["commands"] == before + RACES


def wait_busily(seconds: float) -> None:
    """A sleep would be far too coarse."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        time.sleep(0)


# --- REMOVE -----------------------------------------------------------------------------------------------------------


def test_remove_and_give_back_again_and_again(session: Session, cpu: Cpu) -> None:
    arrivals, removals = cpus.arrivals(cpu), cpus.counters(cpu)["removals"]
    for turn in range(1, 11):
        cpu.remove()
        assert cpu.status == CpuStatus.REMOVED
        cpus.assert_halted_in(session, cpu, "halt_forever")
        assert cpus.counters(cpu)["removals"] == removals + turn
        cpu.give_back()
        cpus.assert_answers(cpu)
    assert cpus.arrivals(cpu) == arrivals + 10
