"""The checks of `malformed` for pages that change while the CPU works with them; see `scribbler` for who changes them.

The kernel copies what it checks, so whatever it takes is either refused or kept to the rules: that is what is checked.
"""

import time
from collections.abc import Sequence

from hypothesis import strategies

from sidecar.layout import VP_REGISTERS, CommandPage, ControlPage, CpuStatus, PrivatePage, RaiseKind, SidecarCommand
from sidecar.layout.private import VpGlobals
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import CpuFaulted, SidecarCommandError
from sidecar.protocol.requests import raise_request, register_request
from sidecar.qemu.session import Session
from tests.support import cpus, malformed
from tests.support.register_model import GET, NUMBERS, SET
from tests.support.scribbler import scribbled

COMMANDS = 20
"""Commands per example: each meets the patterns at other moments."""

REQUESTS = 30
FLICKERS, FLICKER_SECONDS = 300, 2.0
"""Requests that became bad under the CPU's eyes; on a busy host they are rare."""

requests = strategies.lists(malformed.requests, min_size=2, max_size=8)
pages = strategies.lists(malformed.pages, min_size=2, max_size=6)
raises = strategies.lists(
    strategies.tuples(malformed.raise_kinds, malformed.raise_arguments), min_size=2, max_size=8
)
statuses = strategies.lists(malformed.status_bytes, min_size=2, max_size=12)
targets = strategies.lists(malformed.response_targets, min_size=2, max_size=8)


def check_registers(session: Session, cpu: Cpu, choices: Sequence[malformed.Request]) -> None:
    """GET and SET of what changes all the time: no register is ever given a bit that it does not have."""
    cpus.tidy(session)
    patterns = [bytes(choice) for choice in choices]
    memory = cpu.driver.command_memory(cpu.number)
    tail = slice(int(CommandPage.reserved_b00), len(memory))
    memory[tail] = bytes(range(256)) * (len(memory[tail]) // 256) + bytes(len(memory[tail]) % 256)
    before, faults = bytes(memory[tail]), cpus.faults(cpu)
    with malformed.undisturbed(cpus.others(session, cpu)), scribbled(memory[malformed.DATA], patterns):
        for turn in range(COMMANDS):
            outcome = malformed.outcome_of(cpu, SET if turn % 2 else GET, patterns[turn % len(patterns)])
            assert not isinstance(outcome, CpuFaulted)
            if isinstance(outcome, SidecarCommandError):  # the kernel's, or the driver's if the answer was overwritten
                assert outcome.sentence.startswith(("command ", "status "))
    assert (bytes(memory[tail]), cpus.faults(cpu), cpu.status) == (before, faults, CpuStatus.IDLE)
    assert_legal(cpu)


def check_flickering_values(session: Session, cpu: Cpu) -> None:
    """Every value of a SET is good at one moment and bad at the next: what is stored is what was checked."""
    cpus.tidy(session)
    names = [register.number for register in VP_REGISTERS if register.writable and register.writable >> 60 == 0]
    good = register_request([(name, 0) for name in names])
    bad = register_request([(name, 1 << 60) for name in names])
    memory = cpu.driver.command_memory(cpu.number)[malformed.DATA]
    stored, refused = session.found.private_page_pa(session.found.cpu(cpu.number), PrivatePage.GLOBALS), 0
    values = session.machine.ram.view(stored + VpGlobals.registers, VpGlobals.registers.SIZE).cast("Q")
    with scribbled(memory[: len(good)], [good, good, good, bad] * 64):
        started = time.monotonic()
        while refused < FLICKERS and time.monotonic() < started + (FLICKER_SECONDS if refused else cpus.SECONDS):
            refused += malformed.outcome_of(cpu, SET, good) is not None
            for register, value in zip(VP_REGISTERS, values, strict=True):
                assert value & ~(register.writable | register.reset) == 0
    assert refused > 0


def assert_legal(cpu: Cpu) -> None:
    """Every register has only bits that it may have, and all that it must have."""
    values = cpu.get_registers(NUMBERS, seconds=cpus.SECONDS)
    for register in VP_REGISTERS:
        assert values[register.number] & ~(register.writable | register.reset) == 0
        assert values[register.number] & register.reset == register.reset


def check_page(session: Session, cpu: Cpu, choices: Sequence[malformed.Page]) -> None:
    """The whole page changes, the command too. For a machine that forbids RAISE, where every command ends by itself."""
    cpus.tidy(session)
    before, faults = cpus.counters(cpu)["commands"], cpus.faults(cpu)
    with malformed.undisturbed(cpus.others(session, cpu)):
        with scribbled(cpu.driver.command_memory(cpu.number), [bytes(choice) for choice in choices]):
            for _ in range(COMMANDS):
                cpu.driver.run(cpu.number, seconds=cpus.SECONDS)
        assert (cpus.counters(cpu)["commands"], cpus.faults(cpu)) == (before + COMMANDS, faults)
        assert_legal(cpu)
        cpu.restart()
        cpus.assert_answers(cpu)


def check_raise(session: Session, cpu: Cpu, choices: Sequence[tuple[int, int]]) -> None:
    """RAISE whose kind and argument change: what was checked is what is done, so the machine lives."""
    cpus.tidy(session)
    requests = [raise_request(kind, argument) for kind, argument in choices]
    memory = cpu.driver.command_memory(cpu.number)[malformed.DATA]
    with malformed.undisturbed(cpus.others(session, cpu)):
        with scribbled(memory[: len(requests[0])], requests):
            for _ in range(COMMANDS // 4):
                if isinstance(malformed.outcome_of(cpu, SidecarCommand.RAISE, requests[0]), CpuFaulted):
                    cpu.restart()
        cpus.bring_back(cpu)


def check_status(session: Session, cpu: Cpu, choices: Sequence[int], *, busy: bool) -> None:
    """The status byte changes all the time, while the CPU sleeps or waits for STOP, and requests come."""
    cpus.tidy(session)
    node = session.driver.nodes[cpu.numbers.node]
    byte = ControlPage.cpu_status + cpu.numbers.index
    with malformed.undisturbed(cpus.others(session, cpu)):
        if busy:
            cpus.start_raise(Cpu(session.driver, cpu.number), RaiseKind.WAIT_FOR_STOP)
        with scribbled(node.memory[byte : byte + 1], [bytes([choice]) for choice in choices]):
            for _ in range(REQUESTS):
                malformed.request(session, cpu)
        malformed.recover(session, cpu)


def check_control(session: Session, cpu: Cpu, choices: Sequence[tuple[int, int]]) -> None:
    """Whom to notify changes while everybody notifies; commands, faults and restarts go on."""
    cpus.tidy(session)
    node = session.driver.nodes[cpu.numbers.node]
    pair = slice(int(ControlPage.response_cpu), ControlPage.response_cpu + 8)
    patterns = [(apic_id | vector << 32).to_bytes(8, "little") for apic_id, vector in choices]
    faults = {other.number: cpus.faults(other) for other in cpus.others(session, cpu)}
    with scribbled(node.memory[pair], patterns):
        for _ in range(COMMANDS):
            for each in session.cpus.values():
                cpus.assert_answers(each)
        cpus.fault_of(cpu, RaiseKind.GENERAL_PROTECTION)
        cpu.restart()
        cpus.fault_of(cpu, RaiseKind.CORRUPT_PAGE_TABLE, 4)
        cpu.restart()
    session.driver.attach()
    assert {other.number: cpus.faults(other) for other in cpus.others(session, cpu)} == faults
    cpus.settle(session)


