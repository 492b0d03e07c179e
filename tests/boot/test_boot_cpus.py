"""Machines of every size: each CPU that the split gives to the sidecar is idle, is who it should be, and answers.

QEMU's own lists of CPUs are the judge of numbers and APIC ids. Each machine is booted once.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sidecar.layout import MAX_NODE_CPUS, PAGE_SIZE, BootPhase, ControlPage, CpuMapEntry, CpuPolicy, CpuStatus
from sidecar.layout.address_map import PER_CPU_VA
from sidecar.protocol.address_check import CPU_MAP_VA
from sidecar.qemu.session import Session
from tests.support.booted import fresh_directory, most_arrivals, stamps
from tests.support.qemu_view import translations

SPLIT = {2: (1, 1), 4: (1, 3), 16: (1, 15), 64: (2, 62), 255: (8, 247), 260: (9, 251)}
"""Nodes and sidecar CPUs by the number of CPUs."""


@pytest.fixture(scope="module", params=SPLIT, ids=lambda smp: f"smp-{smp}")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=request.param, directory=fresh_directory(request, f"smp-{request.param}")) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


def test_every_sidecar_cpu_is_idle_and_every_first_one_linuxs(session: Session) -> None:
    found, ram = session.found, session.machine.ram
    first = {node.base_cpu for node in found.nodes}
    expected = {
        cpu: CpuStatus.REMOVED if cpu in first else CpuStatus.IDLE for cpu in range(session.smp)
    }
    assert {cpu.linux_number: found.status(ram, cpu) for cpu in found.cpus} == expected
    assert set(session.cpus) == set(range(session.smp)) - first
    assert {cpu.linux_number for cpu in found.cpus if cpu.policy == CpuPolicy.LINUX} == first


def test_no_status_byte_beyond_the_nodes_cpus(session: Session) -> None:
    for node in session.found.nodes:
        page = session.found.read_control(session.machine.ram, node)
        assert not any(page[ControlPage.cpu_status + node.cpu_count :])


def test_the_split_is_balanced_and_leaves_nobody_out(session: Session) -> None:
    nodes = session.found.nodes
    sizes = [node.cpu_count for node in nodes]
    assert (len(nodes), len(session.cpus)) == SPLIT[session.smp]
    assert max(sizes) <= MAX_NODE_CPUS
    assert max(sizes) - min(sizes) <= 1
    covered = [cpu for node in nodes for cpu in range(node.base_cpu, node.base_cpu + node.cpu_count)]
    assert covered == list(range(session.smp))
    for one, other in pairwise(sorted(nodes, key=lambda node: node.control_pa)):
        assert one.control_pa + one.memory_bytes <= other.control_pa


def test_every_sidecar_cpu_answers_with_the_right_sequence(session: Session) -> None:
    for cpu in session.cpus.values():
        before = int(cpu.pages.command.sequence)
        executed = int(cpu.pages.diagnostic.counters.commands)
        for _ in range(2):
            cpu.none()
        assert cpu.pages.command.completed_sequence == before + 2
        assert cpu.pages.diagnostic.counters.commands == executed + 2
        assert cpu.status == CpuStatus.IDLE


def test_every_cpu_arrived_once_and_knows_who_it_is(session: Session) -> None:
    for number, cpu in session.cpus.items():
        boot = cpu.pages.diagnostic.boot
        assert (boot.linux_number, boot.apic_id) == (number, session.found.cpu(number).apic_id)
        assert 1 <= boot.arrivals <= most_arrivals(session)


def test_the_stamps_of_a_boot_are_in_order(session: Session) -> None:
    found = session.found
    assert found.shim_entry_tsc < found.sidecar_entry_tsc < found.first_init_tsc < found.all_idle_tsc
    assert found.all_idle_tsc < found.hand_over_tsc
    for number in session.cpus:
        by_phase = stamps(session, number)
        times = [found.first_init_tsc, *(by_phase[phase] for phase in BootPhase), found.all_idle_tsc]
        assert times == sorted(times), f"CPU {number}: {by_phase}"


def test_nobody_is_missing(session: Session) -> None:
    assert session.found.missing_count == 0
    assert f"sidecar: {len(session.cpus)} CPUs idle in {len(session.found.nodes)} nodes" in session.console
    assert started_by_each_other(session) == 0, "the boot CPU starts all"


def started_by_each_other(session: Session) -> int:
    return sum(int(cpu.pages.diagnostic.boot.started_by_it) for cpu in session.cpus.values())


def test_no_cpu_is_started_twice_if_arriving_cpus_start_others(run_directory: Path) -> None:
    with Session(smp=16, append="sidecar.fan_out", directory=run_directory) as session:
        assert session.found.missing_count == 0
        assert started_by_each_other(session) < len(session.cpus)  # the first CPU is the boot CPU's
        for cpu in session.cpus.values():
            cpu.none(seconds=60)


def test_numbers_are_qemus_numbers_and_madt_order(session: Session) -> None:
    machine = session.machine
    apic_ids = [cpu.apic_id for cpu in session.found.cpus]
    running = sorted(machine.qmp("query-cpus-fast"), key=lambda cpu: int(cpu["cpu-index"]))
    assert apic_ids == [apic_id_of(session, cpu) for cpu in running]
    possible = machine.qmp("query-hotpluggable-cpus")[::-1]  # the list from which QEMU makes the MADT, last one first
    assert apic_ids == [apic_id_of(session, cpu) for cpu in possible]
    assert [cpu.linux_number for cpu in session.found.cpus] == list(range(session.smp))
    if session.smp > 255:
        assert max(apic_ids) > 255


def test_every_cpu_sees_the_whole_cpu_map_and_may_only_read_it(session: Session) -> None:
    expected = -(-session.smp * CpuMapEntry.SIZE // PAGE_SIZE)
    for cpu in (min(session.cpus), max(session.cpus)):
        pages = translations(session.machine, cpu)
        mapped = {va: page for va, page in pages.items() if CPU_MAP_VA <= va < PER_CPU_VA}
        assert sorted(mapped) == [CPU_MAP_VA + number * PAGE_SIZE for number in range(expected)]
        assert not any(page.writable or page.executable for page in mapped.values())


def apic_id_of(session: Session, cpu: dict[str, Any]) -> int:
    return int(session.machine.qmp("qom-get", path=cpu["qom-path"], property="apic-id"))
