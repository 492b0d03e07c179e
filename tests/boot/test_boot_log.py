"""The logs: rings that are always kept, and with `sidecar=log` a serial log that all CPUs write, every line whole."""

import re
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.builder import image
from sidecar.layout import PrivatePage, SidecarCommand
from sidecar.layout.diagnostics import LOG_TEXT_BYTES
from sidecar.protocol.commands import Cpu
from sidecar.protocol.decode import log_ring
from sidecar.protocol.errors import SidecarCommandError
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support.booted import fresh_directory

LINE = re.compile(r"sidecar: cpu (\d+): (.+)")
COMMANDS = 150
"""More lines than a ring can hold."""
UNKNOWN = 0x1FF
DEAD = 99
"""No CPU of the machine."""


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=16, append="sidecar=log", directory=fresh_directory(request)) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


def serial_lines(session: Session) -> dict[int, list[str]]:
    """What each CPU has written to the serial log, in its order; fails on any line that is not whole."""
    text = session.machine.sidecar_log.replace("\r\n", "\n")
    assert text.endswith("\n")
    lines: dict[int, list[str]] = {cpu: [] for cpu in session.cpus}
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        assert match, f"a torn line: {line!r}"
        lines[int(match[1])].append(line)
    return lines


def ring(session: Session, cpu: int) -> dict[str, object]:
    return log_ring(session.found.read_private(session.machine.ram, session.found.cpu(cpu), PrivatePage.LOG))


def command_line(cpu: int, command: int, sequence: int) -> str:
    return f"sidecar: cpu {cpu}: command {command:#x}, sequence {sequence}"


def test_every_cpu_logs_its_arrival(session: Session) -> None:
    for cpu, lines in serial_lines(session).items():
        assert lines[0] == f"sidecar: cpu {cpu}: APIC id {session.found.cpu(cpu).apic_id}: arrival 1"


def test_a_few_lines_are_in_the_ring_as_on_the_port(session: Session) -> None:
    session.cpus[15].none()
    with pytest.raises(SidecarCommandError):
        session.cpus[15].execute(UNKNOWN)
    lines = serial_lines(session)[15]
    assert lines[-2:] == [command_line(15, 0, 1), command_line(15, UNKNOWN, 2)]
    assert ring(session, 15) == {"written": len("\n".join(lines)) + 1, "cut": False, "open": False, "lines": lines}


def test_three_cpus_log_at_once_and_no_line_is_torn(session: Session) -> None:
    busy = [session.cpus[number] for number in (1, 2, 3)]
    before = serial_lines(session)
    first = {cpu.number: int(cpu.pages.command.sequence) + 1 for cpu in busy}
    with ThreadPoolExecutor(len(busy)) as pool:
        list(pool.map(talk, busy))
    after = serial_lines(session)
    for number, start in first.items():
        sequences = range(start, start + COMMANDS)
        expected = [command_line(number, SidecarCommand.NONE, sequence) for sequence in sequences]
        assert after[number] == before[number] + expected
    for number in session.cpus.keys() - first.keys():
        assert after[number] == before[number]


def talk(cpu: Cpu) -> None:
    for _ in range(COMMANDS):
        cpu.none()


def test_a_dead_cpus_lock_goes_to_one_of_those_who_wait(session: Session) -> None:
    """They wait from the same moment on and give the dead one up at about the same moment."""
    waiting = [session.cpus[number] for number in (6, 7, 8)]
    lock = session.found.image_pa + image.kernel().linked.symbols["serial_lock"]
    before = serial_lines(session)
    session.machine.ram.write(lock, struct.pack("<I", DEAD + 1))
    with ThreadPoolExecutor(len(waiting)) as pool:
        list(pool.map(Cpu.none, waiting))
    after = serial_lines(session)
    for cpu in waiting:
        assert after[cpu.number] == [*before[cpu.number], command_line(cpu.number, SidecarCommand.NONE, 1)]
    assert session.machine.ram.read(lock, 4) == bytes(4)


def test_a_ring_that_has_wrapped_holds_the_newest_lines(session: Session) -> None:
    cpu = session.cpus[4]
    talk(cpu)
    text = "".join(f"{line}\n" for line in serial_lines(session)[4])
    decoded = ring(session, 4)
    assert len(text) > LOG_TEXT_BYTES
    assert (decoded["written"], decoded["cut"], decoded["open"]) == (len(text), True, False)
    assert decoded["lines"] == text[-LOG_TEXT_BYTES:].splitlines()


def test_a_removal_and_a_return_are_logged(session: Session) -> None:
    cpu = session.cpus[5]
    cpu.remove()
    cpu.give_back()
    expected = ["sidecar: cpu 5: removed", "sidecar: cpu 5: APIC id 5: arrival 2"]
    wait_until(lambda: serial_lines(session)[5][-2:] == expected, seconds=20, what="the two lines")
    assert ring(session, 5)["lines"] == serial_lines(session)[5]


def test_without_the_option_the_port_is_silent_and_the_ring_is_kept(request: pytest.FixtureRequest) -> None:
    with Session(smp=3, directory=fresh_directory(request, "silent")) as quiet:
        for cpu in quiet.cpus.values():
            cpu.none()
        assert quiet.machine.sidecar_log == ""
        for number in quiet.cpus:
            assert ring(quiet, number)["lines"] == [f"sidecar: cpu {number}: APIC id {number}: arrival 1"]
