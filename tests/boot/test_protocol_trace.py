"""What a running machine's driver does and sees is what the protocol allows; with anything changed it is not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.layout import CpuStatus, RaiseKind
from sidecar.layout.x86 import Icr
from sidecar.protocol.errors import CommandTimeout, CpuFaulted
from sidecar.protocol.model.acceptor import Refused, accept
from sidecar.protocol.model.trace import Event, Look, Move, Recorder, Sent, Told
from sidecar.qemu.session import Session
from tests.support import cpus

ROUNDS = 5


@pytest.fixture(scope="module")
def run_directory(request: pytest.FixtureRequest) -> Path:
    return cpus.module_directory(request)


@pytest.fixture(scope="module")
def trace(run_directory: Path) -> list[Event]:
    """Of two CPUs: commands, cancels, faults, a time-out, removals and returns, some on both at once."""
    with Session(smp=3, tests=True, directory=run_directory) as session, Recorder(session.driver) as recorder:
        for _ in range(ROUNDS):
            for cpu in session.cpus.values():
                cpu.none(seconds=cpus.SECONDS)
                recorder.told(cpu.number)
            runs = [cpus.start_raise(cpu, RaiseKind.WAIT_FOR_STOP) for cpu in session.cpus.values()]
            for run in runs:
                assert run.stop()
            for run in runs:
                run.wait(seconds=cpus.SECONDS)
                recorder.told(run.cpu.number)
            for cpu in session.cpus.values():
                with pytest.raises(CpuFaulted):
                    cpu.raise_fault(RaiseKind.INVALID_OPCODE, seconds=cpus.SECONDS)
                recorder.told(cpu.number)
                cpu.restart()
                cpu.remove()
                cpu.give_back()
                with pytest.raises(CommandTimeout):
                    cpu.raise_fault(RaiseKind.SPIN, seconds=0.05)
    return recorder.trace()


def test_it_is_accepted(trace: list[Event]) -> None:
    accept(trace)
    moves = {(event.old, event.new) for event in trace if isinstance(event, Move) and event.found == event.old}
    S = CpuStatus
    assert moves >= {(S.IDLE, S.RUN), (S.RUN, S.STOP), (S.FAULTED, S.RUN), (S.IDLE, S.REMOVE), (S.REMOVED, S.RUN)}
    assert {event.status for event in trace if isinstance(event, Look)} >= {S.IDLE, S.FAULTED, S.REMOVED}
    assert {event.kind for event in trace if isinstance(event, Sent)} == {Icr.FIXED, Icr.INIT, Icr.STARTUP}


def without_requests(event: Event) -> Event | None:
    return None if isinstance(event, Sent) and event.kind is Icr.FIXED else event


def without_init(event: Event) -> Event | None:
    return None if isinstance(event, Sent) and event.kind is Icr.INIT else event


def without_starts(event: Event) -> Event | None:
    return None if isinstance(event, Move) and event.old == CpuStatus.IDLE and event.new == CpuStatus.RUN else event


def nothing_executed(event: Event) -> Event | None:
    return replace(event, commands=0) if isinstance(event, Look) else event


def executed_twice(event: Event) -> Event | None:
    return replace(event, commands=2 * event.commands) if isinstance(event, Look) else event


def not_arrived(event: Event) -> Event | None:
    return replace(event, arrivals=1) if isinstance(event, Look) else event


def removed_as_idle(event: Event) -> Event | None:
    return replace(event, status=CpuStatus.IDLE) if isinstance(event, Look) and event.status == 0 else event


def always_running(event: Event) -> Event | None:
    return replace(event, status=CpuStatus.RUN) if isinstance(event, Look) and event.status == 1 else event


CHANGES = [
    without_requests, without_init, without_starts, nothing_executed, executed_twice, not_arrived, removed_as_idle,
    always_running,
]


@pytest.mark.parametrize("change", CHANGES)
def test_with_every_such_event_changed(trace: list[Event], change: Callable[[Event], Event | None]) -> None:
    changed = [new for event in trace if (new := change(event)) is not None]
    assert changed != trace
    with pytest.raises(Refused):
        accept(changed)


def test_told_before_the_start(trace: list[Event]) -> None:
    """Each end is told once: told again right after the next start, it is that of a command that has not begun."""
    starts = [
        number for number, event in enumerate(trace)
        if isinstance(event, Move) and (event.found, event.new) == (CpuStatus.IDLE, CpuStatus.RUN)
    ]
    assert len(starts) > 2 * ROUNDS
    for number in starts:
        with pytest.raises(Refused):
            accept([*trace[: number + 1], Told(trace[number].cpu), *trace[number + 1 :]])


def test_a_removed_cpu_ends_no_command(trace: list[Event]) -> None:
    """One look changed is enough, wherever it is."""
    removed = [
        number for number, event in enumerate(trace) if isinstance(event, Look) and event.status == CpuStatus.REMOVED
    ]
    assert len(removed) >= 2 * ROUNDS
    for number in removed:
        event = trace[number]
        assert isinstance(event, Look)
        with pytest.raises(Refused):
            accept([*trace[:number], replace(event, status=CpuStatus.STOP), *trace[number + 1 :]])
