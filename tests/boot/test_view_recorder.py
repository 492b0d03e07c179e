"""The flight recorder: every event of a CPU's life in its order, from the running machine and after its death."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.layout.diagnostics import RECORDER_ENTRIES, RecorderEvent
from sidecar.protocol import recorder
from sidecar.protocol.errors import CpuFaulted
from sidecar.protocol.typed import TypedCpu
from sidecar.qemu.session import Session
from tests.support.booted import fresh_directory

MEMORY = 128 << 20


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=4, tests=True, memory_bytes=MEMORY, directory=fresh_directory(request)) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


def events(session: Session, cpu: TypedCpu) -> list[recorder.Event]:
    return recorder.events(session.driver.diagnostic_page(cpu.number))


def test_a_life_is_told_in_order(session: Session) -> None:
    cpu, driver = session.cpus[1], session.driver
    cpu.none()
    with pytest.raises(CpuFaulted):
        cpu.raise_fault(RaiseKind.INVALID_OPCODE)
    cpu.restart()
    driver.remove(cpu.number)
    driver.give_back(cpu.number)
    told = events(session, cpu)
    kind = RecorderEvent
    assert [(one.event, one.value) for one in told] == [
        (kind.ARRIVED, 1), (kind.FINISHED, CpuStatus.RUN),
        (kind.COMMAND, SidecarCommand.NONE), (kind.FINISHED, CpuStatus.RUN),
        (kind.COMMAND, SidecarCommand.RAISE), (kind.FAULTED, RaiseKind.INVALID_OPCODE),
        (kind.ARRIVED, 2), (kind.FINISHED, CpuStatus.RUN),
        (kind.REMOVED, 1),
        (kind.ARRIVED, 3), (kind.FINISHED, CpuStatus.RUN),
    ]  # fmt: skip
    assert [one.number for one in told] == list(range(len(told)))
    stamps = [one.tsc for one in told]
    assert stamps == sorted(stamps)
    assert stamps[0] > session.found.first_init_tsc


def test_a_fault_that_breaks_the_own_page_table_is_recorded_too(session: Session) -> None:
    cpu = session.cpus[2]
    with pytest.raises(CpuFaulted) as caught:
        cpu.raise_fault(RaiseKind.CORRUPT_PAGE_TABLE, 3)
    last = events(session, cpu)[-1]
    assert (last.event, last.value) == (RecorderEvent.FAULTED, caught.value.fault.vector)
    cpu.restart()


def test_the_oldest_are_overwritten(session: Session) -> None:
    cpu = session.cpus[3]
    for _ in range(RECORDER_ENTRIES):
        cpu.none()
    told = events(session, cpu)
    assert [one.number for one in told] == list(range(2 + RECORDER_ENTRIES + 1, 2 + 2 * RECORDER_ENTRIES))
    assert {one.event for one in told} == {RecorderEvent.COMMAND, RecorderEvent.FINISHED}
    command = session.driver.pages(cpu.number).command
    assert told[-2].tsc == command.start_tsc
    assert told[-1].tsc >= command.end_tsc


def test_it_survives_the_machine(session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Last, because it kills QEMU: the memory that the host had mapped is all that is left."""
    before = {number: events(session, cpu) for number, cpu in session.cpus.items()}
    os.kill(session.machine.pid, signal.SIGKILL)
    ram = tmp_path / "ram"
    with ram.open("wb") as file:
        for part in session.machine.ram.ranges:
            file.seek(part.start)
            file.write(session.machine.ram.read(part.start, part.end - part.start))
    assert main(["dump", "recorder", "--ram", str(ram), "--format", "json"]) == 0
    told = {entry["linux_number"]: entry for entry in json.loads(capsys.readouterr().out)}
    for number, expected in before.items():
        assert [(one["number"], one["tsc"], one["value"]) for one in told[number]["events"]] == [
            (one.number, one.tsc, one.value) for one in expected
        ]
    assert main(["dump", "recorder", "--ram", str(ram), "--cpu", "1"]) == 0
    text = capsys.readouterr().out
    assert "faulted   #UD" in text
    assert "arrived   arrival 3" in text
