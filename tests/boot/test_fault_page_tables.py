"""A CPU whose own page tables break: contained for every page it has, and whole again after a restart.

RAISE's CORRUPT_PAGE_TABLE clears one entry of the CPU's own table and touches the page. Pages that the fault handler
itself needs make it fault in turn; then the first fault is reported over the transition tables.
"""

import struct
from collections.abc import Iterator

import pytest

from sidecar.layout import CpuStatus, PrivatePage, RaiseKind, SidecarCommand
from sidecar.layout.address_map import PER_CPU_MAP, PER_CPU_VA, TABLE_ENTRIES, Mapping
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.x86 import Vector
from sidecar.protocol.address_check import differences
from sidecar.protocol.commands import Cpu
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.fault import Fault
from sidecar.protocol.page_tables import walk
from sidecar.qemu.session import Session
from tests.support import cpus

NEEDED_BY_THE_HANDLER = ("vp_globals", "control_page", "diagnostic_page")
INTERRUPT_SLOT, STACK_SLOT = (
    next(mapping.slot for mapping in PER_CPU_MAP if mapping.symbol == symbol) for symbol in ("interrupt_page", "stack")
)
UNMAPPED = (0, 1, 5, 11, 300, INTERRUPT_SLOT - 1, INTERRUPT_SLOT + 1)
REFUSED = (INTERRUPT_SLOT, TABLE_ENTRIES, TABLE_ENTRIES + 3, 1 << 32, (1 << 64) - 1)

every_page = pytest.mark.parametrize(
    "mapping", [one for one in PER_CPU_MAP if one.slot != INTERRUPT_SLOT], ids=lambda mapping: mapping.symbol
)


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=3, tests=True, directory=cpus.module_directory(request)) as session:
        yield session


@pytest.fixture
def cpu(session: Session) -> Cpu:
    return session.cpus[1]


def corrupt(cpu: Cpu, slot: int) -> Fault:
    fault = cpus.fault_of(cpu, RaiseKind.CORRUPT_PAGE_TABLE, slot)
    assert cpus.line_at(fault.rip).routine == "raise_corrupt_page_table"
    assert (fault.error_code, fault.status) == (0, CpuStatus.RUN)
    return fault


def entry(session: Session, cpu: Cpu, slot: int) -> int:
    """An entry of the CPU's own table, read through QEMU."""
    table = session.found.private_page_pa(session.found.cpu(cpu.number), PrivatePage.PT)
    (value,) = struct.unpack("<Q", session.machine.read_memory(table + 8 * slot, 8))
    return int(value)


@every_page
def test_a_missing_page_is_contained(session: Session, cpu: Cpu, mapping: Mapping) -> None:
    fault = corrupt(cpu, mapping.slot)
    if mapping.slot == STACK_SLOT:
        assert fault.vector == Vector.DOUBLE_FAULT  # nothing to deliver the page fault on
    else:
        assert (fault.vector, fault.cr2) == (Vector.PAGE_FAULT, mapping.va)
    assert fault.nested == (mapping.symbol in NEEDED_BY_THE_HANDLER)
    assert fault.command == (0 if fault.nested else SidecarCommand.RAISE)
    assert entry(session, cpu, mapping.slot) == 0
    cpus.assert_halted_in(session, cpu, "halt_forever")


@every_page
def test_the_driver_is_told_and_the_other_answers(session: Session, cpu: Cpu, mapping: Mapping) -> None:
    before = cpus.settled_responses(session)
    session.driver.nodes[0].attention.exchange(0)
    corrupt(cpu, mapping.slot)
    assert cpus.settled_responses(session) == before + 1
    assert session.driver.nodes[0].attention.load() == 1
    cpus.assert_answers(session.cpus[2])


@every_page
def test_a_restart_builds_the_tables_anew(session: Session, cpu: Cpu, mapping: Mapping) -> None:
    fault = corrupt(cpu, mapping.slot)
    root = fault.cr3
    cpu.restart()
    cpus.assert_answers(cpu)
    assert session.machine.registers(cpu.number).cr3 == root
    ranges = list(walk(session.machine.ram, root))
    assert differences(ranges, session.found, session.found.cpu(cpu.number)) == []
    assert entry(session, cpu, mapping.slot) != 0


@pytest.mark.parametrize("slot", UNMAPPED)
def test_a_page_that_never_was(cpu: Cpu, slot: int) -> None:
    fault = corrupt(cpu, slot)
    assert (fault.vector, fault.cr2, fault.nested) == (Vector.PAGE_FAULT, PER_CPU_VA + slot * PAGE_SIZE, False)


@pytest.mark.parametrize("slot", REFUSED)
def test_a_refused_slot(cpu: Cpu, slot: int) -> None:
    """Without its interrupt page a CPU could not deliver any exception."""
    with pytest.raises(SidecarCommandError) as caught:
        cpu.raise_fault(RaiseKind.CORRUPT_PAGE_TABLE, slot, seconds=cpus.SECONDS)
    assert caught.value.sentence == f"RAISE: slot {slot}, expected 0 to 511 and not that of the interrupt page"
    assert cpus.sentence(cpu) == caught.value.sentence
    cpus.assert_answers(cpu)


def test_every_page_in_turn_without_a_wrong_count(cpu: Cpu) -> None:
    before, first = cpus.arrivals(cpu), cpus.faults(cpu)
    slots = [mapping.slot for mapping in PER_CPU_MAP if mapping.slot != INTERRUPT_SLOT] * 3
    for done, slot in enumerate(slots, 1):
        assert corrupt(cpu, slot).count == first + done
        cpu.restart()
    assert cpus.arrivals(cpu) == before + len(slots)
