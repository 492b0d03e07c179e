"""Interrupts that are nobody's: each is counted by its vector and harms nothing; so are requests without a command.

A fixed interrupt is pending at most once per vector, so a count is exact if the CPU takes one before the next is sent.
Ref: SDM vol. 3A, 11.8.4 (acceptance of fixed interrupts), 11.9 (spurious interrupt).
"""

import random

import pytest

from sidecar.kernel import interrupts
from sidecar.layout import REQUEST_VECTOR, SPURIOUS_VECTOR, CpuStatus, RaiseKind
from sidecar.layout.x86 import EXCEPTION_VECTORS, Icr
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.waiting import poll
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support import cpus

STRAY = [vector for vector in range(EXCEPTION_VECTORS, 256) if vector not in interrupts.HANDLERS]


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[2]


def wait_stray(cpu: Cpu, expected: dict[int, int]) -> None:
    poll(lambda: cpus.stray(cpu) == expected, cpus.SECONDS)
    assert cpus.stray(cpu) == expected


def wait_count(cpu: Cpu, counter: str, least: int) -> None:
    wait_until(
        lambda: cpus.counters(cpu)[counter] >= least, seconds=cpus.SECONDS, what=f"{cpu} to count {least} {counter}"
    )


def plus(counts: dict[int, int], vectors: list[int]) -> dict[int, int]:
    return {vector: counts.get(vector, 0) + vectors.count(vector) for vector in {*counts, *vectors}}


def test_every_vector_is_counted_once(session: Session, cpu: Cpu) -> None:
    """One after the other; the CPU answers after each."""
    before, faults = cpus.stray(cpu), cpus.faults(cpu)
    neighbours = {other.number: cpus.stray(other) for other in cpus.others(session, cpu)}
    for done, vector in enumerate(STRAY, 1):
        cpus.interrupt(session, cpu, Icr.FIXED, vector)
        wait_stray(cpu, plus(before, STRAY[:done]))
        cpu.none(seconds=cpus.SECONDS)
    assert {other.number: cpus.stray(other) for other in cpus.others(session, cpu)} == neighbours
    assert cpus.faults(cpu) == faults


def test_a_burst_of_all_vectors(session: Session, cpu: Cpu) -> None:
    """Sent as fast as the boot CPU can, in a random order: each is pending once, and taken once."""
    vectors = STRAY[:]
    random.Random(1).shuffle(vectors)
    for _ in range(4):
        before = cpus.stray(cpu)
        for vector in vectors:
            session.backing.send(cpu.numbers.apic_id << 32 | Icr.FIXED | vector)
        session.backing.drain(cpus.SECONDS)
        wait_stray(cpu, plus(before, vectors))
        cpus.assert_answers(cpu)


def test_a_burst_during_commands(session: Session, cpu: Cpu) -> None:
    """No command is lost or done twice, whatever comes between."""
    before, commands = cpus.stray(cpu), cpus.counters(cpu)["commands"]
    for vector in STRAY:
        session.backing.send(cpu.numbers.apic_id << 32 | Icr.FIXED | vector)
        cpu.none(seconds=cpus.SECONDS)
    wait_stray(cpu, plus(before, STRAY))
    assert cpus.counters(cpu)["commands"] == commands + len(STRAY)


def test_a_burst_of_one_vector_is_counted_at_least_once(session: Session, cpu: Cpu) -> None:
    sent, before = 300, cpus.stray(cpu).get(0x80, 0)
    for _ in range(sent):
        session.backing.send(cpu.numbers.apic_id << 32 | Icr.FIXED | 0x80)
    session.backing.drain(cpus.SECONDS)
    cpus.assert_answers(cpu)
    cpus.assert_halted_in(session, cpu, "park")
    assert before < cpus.stray(cpu)[0x80] <= before + sent


def test_all_cpus_are_showered_at_once(session: Session) -> None:
    before = {number: cpus.stray(cpu) for number, cpu in session.cpus.items()}
    for vector in STRAY:
        for cpu in session.cpus.values():
            session.backing.send(cpu.numbers.apic_id << 32 | Icr.FIXED | vector)
    session.backing.drain(cpus.SECONDS)
    for number, cpu in session.cpus.items():
        wait_stray(cpu, plus(before[number], STRAY))
        cpus.assert_answers(cpu)


def test_interrupts_to_oneself(cpu: Cpu) -> None:
    """RAISE VECTOR leaves it pending; it is taken when the CPU parks."""
    before = cpus.stray(cpu)
    for vector in STRAY:
        cpu.raise_fault(RaiseKind.VECTOR, vector, seconds=cpus.SECONDS)
    cpus.assert_answers(cpu)
    wait_stray(cpu, plus(before, STRAY))


@pytest.mark.parametrize("vector", [0, 2, 8, 31, 256, 1 << 32, (1 << 64) - 1])
def test_a_vector_that_is_none(cpu: Cpu, vector: int) -> None:
    before = cpus.stray(cpu)
    with pytest.raises(SidecarCommandError) as caught:
        cpu.raise_fault(RaiseKind.VECTOR, vector, seconds=cpus.SECONDS)
    assert caught.value.sentence == cpus.sentence(cpu) == f"RAISE: vector {vector}, expected 32 to 255"
    cpus.assert_answers(cpu)
    assert cpus.stray(cpu) == before


@pytest.mark.parametrize("by", ["an interrupt", "itself"])
def test_the_spurious_vector(session: Session, cpu: Cpu, by: str) -> None:
    """Sent as an interrupt it is in service, and would bar all others if it were never acknowledged."""
    for _ in range(3):
        before = cpus.counters(cpu)["spurious"]
        if by == "itself":
            cpu.raise_fault(RaiseKind.VECTOR, SPURIOUS_VECTOR, seconds=cpus.SECONDS)
        else:
            cpus.interrupt(session, cpu, Icr.FIXED, SPURIOUS_VECTOR)
        wait_count(cpu, "spurious", before + 1)
        cpus.assert_answers(cpu)
        assert cpus.counters(cpu)["spurious"] == before + 1
    assert SPURIOUS_VECTOR not in cpus.stray(cpu)


def test_requests_with_nothing_to_do(session: Session, cpu: Cpu) -> None:
    sent, before = 50, cpus.counters(cpu)
    for _ in range(sent):
        seen = cpus.counters(cpu)["requests"]
        cpus.interrupt(session, cpu, Icr.FIXED, REQUEST_VECTOR)
        wait_count(cpu, "requests", seen + 1)
        assert cpu.status == CpuStatus.IDLE
    after = cpus.counters(cpu)
    assert sent <= after["requests"] - before["requests"] <= sent + 1  # that of the last command may have been late
    assert after | {"requests": 0} == before | {"requests": 0}
    cpus.assert_halted_in(session, cpu, "park")
    cpus.assert_answers(cpu)


def test_requests_to_a_removed_cpu(session: Session, cpu: Cpu) -> None:
    """Its APIC is switched off: nothing is taken, and nothing of it is left when the CPU comes back."""
    cpu.remove()
    before, stray = cpus.counters(cpu), cpus.stray(cpu)
    for vector in (REQUEST_VECTOR, 0x40, SPURIOUS_VECTOR):
        cpus.interrupt(session, cpu, Icr.FIXED, vector)
    assert cpu.status == CpuStatus.REMOVED
    cpus.assert_halted_in(session, cpu, "halt_forever")
    cpu.give_back()
    assert (cpus.counters(cpu), cpus.stray(cpu)) == (before, stray)
    cpus.assert_answers(cpu)


def test_interrupts_to_a_faulted_cpu_wait_for_nobody(session: Session, cpu: Cpu) -> None:
    """INIT empties the APIC: the next life begins without what came in the last one."""
    fault = cpus.fault_of(cpu, RaiseKind.INVALID_OPCODE)
    stray = cpus.stray(cpu)
    for vector in (REQUEST_VECTOR, 0x40, 0xF0, SPURIOUS_VECTOR):
        cpus.interrupt(session, cpu, Icr.FIXED, vector)
    assert (cpu.status, cpu.driver.fault(cpu.number)) == (CpuStatus.FAULTED, fault)
    cpu.restart()
    cpus.assert_answers(cpu)
    assert cpus.stray(cpu) == stray
