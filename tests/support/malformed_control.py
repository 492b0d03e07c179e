"""Control pages as they must not be, and what has to come of them; see malformed.py."""

import random
from collections.abc import Sequence

from sidecar.layout import PAGE_SIZE, REQUEST_VECTOR, ControlPage, CpuStatus, RaiseKind
from sidecar.layout.x86 import EXCEPTION_VECTORS, Icr, Vector
from sidecar.protocol.commands import Cpu
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support import cpus, malformed

OUTCOMES = {
    CpuStatus.REMOVED: (CpuStatus.REMOVED, "halt_forever"),
    CpuStatus.IDLE: (CpuStatus.IDLE, "park"),
    CpuStatus.RUN: (CpuStatus.IDLE, "park"),
    CpuStatus.STOP: (CpuStatus.IDLE, "park"),
    CpuStatus.REMOVE: (CpuStatus.REMOVED, "halt_forever"),
    CpuStatus.FAULTED: (CpuStatus.FAULTED, "halt_forever"),
}
"""What becomes of a status byte that somebody stores into an idle CPU, and where the CPU is then."""

OUTSIDE_THE_TABLE = (CpuStatus.FAULTED, "halt_forever")


def check_status_byte(session: Session, cpu: Cpu, status: int) -> None:
    """An idle CPU that finds this status when it is woken."""
    cpus.tidy(session)
    before, faults = cpus.counters(cpu)["requests"], cpus.faults(cpu)
    expected, routine = OUTCOMES[CpuStatus(status)] if status in set(CpuStatus) else OUTSIDE_THE_TABLE
    with malformed.undisturbed(cpus.others(session, cpu)):
        with cpus.paused(session):
            malformed.force(cpu, status)
            session.backing.send(cpu.numbers.apic_id << 32 | Icr.FIXED | REQUEST_VECTOR)
        wait_until(
            lambda: cpus.counters(cpu)["requests"] > before and cpu.status == expected,
            seconds=cpus.SECONDS, what=f"{cpu} to make {expected.name} of {status:#x}",
        )
        cpus.assert_halted_in(session, cpu, routine)
        if status in set(CpuStatus):
            assert cpus.faults(cpu) == faults
        else:
            assert_unexpected_status(cpu, status)
        malformed.recover(session, cpu)


def assert_unexpected_status(cpu: Cpu, status: int) -> None:
    fault = cpus.wait_faulted(cpu)
    assert (fault.vector, fault.status, fault.command) == (Vector.INVALID_OPCODE, status, 0)
    assert cpus.instruction(cpus.line_at(fault.rip)) == "ud2"
    assert cpus.line_at(fault.rip).routine == "park"


def check_status_during_a_command(session: Session, cpu: Cpu, statuses: Sequence[int]) -> None:
    """Statuses that somebody stores one after the other while the CPU waits to be stopped."""
    cpus.tidy(session)
    with malformed.undisturbed(cpus.others(session, cpu)):
        cpus.start_raise(Cpu(session.driver, cpu.number), RaiseKind.WAIT_FOR_STOP)  # a run that nobody waits for
        for status in statuses:
            malformed.force(cpu, status)
            malformed.request(session, cpu)
        malformed.recover(session, cpu)


def check_response_target(session: Session, cpu: Cpu, apic_id: int, vector: int) -> None:
    """Whoever the driver names is sent an interrupt at most: nobody faults, and every command is answered."""
    cpus.tidy(session)
    cpus.settle(session)
    node = session.driver.nodes[cpu.numbers.node]
    every = list(session.cpus.values())
    before = [(cpus.arrivals(each), cpus.faults(each)) for each in every]
    stray = {each.number: sum(cpus.stray(each).values()) for each in every}
    node.response.store(apic_id | vector << 32)
    try:
        for each in every:
            cpus.assert_answers(each)
        for each in every:
            cpus.assert_answers(each)
    finally:
        session.driver.attach()
    cpus.settle(session)
    assert [(cpus.arrivals(each), cpus.faults(each)) for each in every] == before
    if not EXCEPTION_VECTORS <= vector < 256:
        assert {each.number: sum(cpus.stray(each).values()) for each in every} == stray


def check_control_page(session: Session, cpu: Cpu, seed: int) -> None:
    """Everything on the page but its CPUs' status bytes is garbage, the response target excepted, and nobody minds.

    The sidecar reads no other field, and writes none but needs_attention.
    """
    cpus.tidy(session)
    node = session.driver.nodes[cpu.numbers.node]
    original = bytes(node.memory)
    garbage = random.Random(seed).randbytes(PAGE_SIZE)
    held = (
        slice(int(ControlPage.response_cpu), ControlPage.response_vector + ControlPage.response_vector.SIZE),
        slice(ControlPage.cpu_status + 1, ControlPage.cpu_status + len(node.slots)),
    )
    free = _between(held)
    attention = slice(int(ControlPage.needs_attention), ControlPage.needs_attention + 4)
    for part in free:
        node.memory[part] = garbage[part]
    try:
        for each in session.cpus.values():
            cpus.assert_answers(each)
        cpu.restart()
        cpu.remove()
        cpu.give_back()
        cpus.fault_of(cpu, RaiseKind.BREAKPOINT)
        cpu.restart()
        wait_until(lambda: node.attention.load() == 1, seconds=cpus.SECONDS, what="attention")
        after, expected = bytearray(node.memory), bytearray(garbage)
        expected[attention] = after[attention]
        assert [after[part] for part in free] == [expected[part] for part in free]
    finally:
        for part in free:
            node.memory[part] = original[part]
    for each in session.cpus.values():
        cpus.assert_answers(each)


def _between(held: Sequence[slice]) -> list[slice]:
    """The parts of a page that are not in `held`, which is in order."""
    starts = [0, *(part.stop for part in held)]
    stops = [*(part.start for part in held), PAGE_SIZE]
    return [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]
