"""Many machines of random shape: whatever the split, every CPU is somebody's, and every sidecar CPU answers."""

import random
from itertools import pairwise
from pathlib import Path

import pytest

from sidecar.layout import MAX_NODE_CPUS, CpuPolicy, CpuStatus, required_memory
from sidecar.protocol.machine import Node
from sidecar.qemu.session import FellBack, Session
from tests.support.booted import most_arrivals

MACHINES = 150


def shape(seed: int) -> tuple[int, int, set[int]]:
    """CPUs, NUMA nodes, and CPUs left to Linux."""
    chance = random.Random(seed)
    smp = chance.choice((chance.randint(2, 12), chance.randint(2, 70), chance.randint(33, 150)))
    numa = chance.randint(1, min(smp, 5))
    share = chance.choice((0.0, 0.1, 0.7, 0.95))
    linux = {cpu for cpu in range(smp) if chance.random() < share}
    return smp, numa, linux


@pytest.mark.parametrize("seed", range(MACHINES))
def test_a_machine_of_random_shape(seed: int, run_directory: Path) -> None:
    smp, numa, linux = shape(seed)
    words = f"sidecar.linux_cpus={','.join(map(str, sorted(linux)))}" if linux else ""
    reason = ""
    try:
        with Session(smp=smp, numa=numa, append=words, directory=run_directory) as session:
            check_nodes(session, linux)
            check_cpus(session, linux)
    except FellBack as fall_back:
        reason = fall_back.reason
    assert reason in ("", "no node has a CPU for the sidecar")


def check_nodes(session: Session, linux: set[int]) -> None:
    found = session.found
    for node in found.nodes:
        members = cpus_of(node)
        assert 2 <= node.cpu_count <= MAX_NODE_CPUS
        assert {found.cpu(cpu).numa_node for cpu in members} == {node.numa_node}
        assert [found.cpu(cpu).node for cpu in members] == [node.number] * len(members)
        assert set(members[1:]) - linux, "a node has a CPU for the sidecar"
        assert node.memory_bytes == required_memory(node.cpu_count)
    for one, other in pairwise(sorted(found.nodes, key=lambda node: node.control_pa)):
        assert one.control_pa + one.memory_bytes <= other.control_pa


def check_cpus(session: Session, linux: set[int]) -> None:
    found, ram = session.found, session.machine.ram
    in_nodes = {cpu for node in found.nodes for cpu in cpus_of(node)}
    first = {node.base_cpu for node in found.nodes}
    assert set(session.cpus) == in_nodes - first - linux
    assert found.missing_count == 0
    for cpu in found.cpus:
        started = cpu.linux_number in session.cpus
        assert cpu.policy == (CpuPolicy.SIDECAR if started else CpuPolicy.LINUX)
        expected = CpuStatus.IDLE if started else CpuStatus.REMOVED if cpu.linux_number in in_nodes else None
        assert found.status(ram, cpu) == expected
    for number, one in session.cpus.items():
        one.none()
        boot = one.pages.diagnostic.boot
        assert (boot.linux_number, boot.apic_id) == (number, found.cpu(number).apic_id)
        assert 1 <= boot.arrivals <= most_arrivals(session)


def cpus_of(node: Node) -> range:
    return range(node.base_cpu, node.base_cpu + node.cpu_count)
