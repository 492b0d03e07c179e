"""NUMA: nodes do not mix NUMA nodes, their memory is local where there is room, and where there is none a note says so.

QEMU's memory backends (`info mtree -f`) are the judge of where memory is, its `query-cpus-fast` of where a CPU is.
"""

from pathlib import Path

import pytest

from sidecar.layout import CpuPolicy, CpuStatus, required_memory
from sidecar.protocol.machine import Node
from sidecar.qemu.session import FellBack, Session
from sidecar.qemu.sizes import GIB, MIB
from tests.support.booted import transition_root

SMALL = 2 * MIB
"""Of three NUMA nodes of this size the first has 1 MiB to give, the second has the shim in it, the third firmware."""


def backends_of(session: Session, node: Node) -> set[str]:
    """The memory backends that a node's memory lies in."""
    ends = (node.control_pa, node.control_pa + node.memory_bytes - 1)
    return {session.machine.ram.memory_map.range_at(pa).backend for pa in ends}


def answer_all(session: Session) -> None:
    for cpu in session.cpus.values():
        cpu.none()
        assert cpu.status == CpuStatus.IDLE


def test_eighty_cpus_on_two_numa_nodes(run_directory: Path) -> None:
    with Session(smp=80, numa=2, directory=run_directory) as session:
        nodes = session.found.nodes
        assert [(node.base_cpu, node.cpu_count) for node in nodes] == [(0, 20), (20, 20), (40, 20), (60, 20)]
        assert [node.numa_node for node in nodes] == [0, 0, 1, 1]
        assert [node.memory_numa_node for node in nodes] == [0, 0, 1, 1]
        assert [backends_of(session, node) for node in nodes] == [{"ram0"}, {"ram0"}, {"ram1"}, {"ram1"}]
        judge = {cpu["cpu-index"]: cpu["props"]["node-id"] for cpu in session.machine.qmp("query-cpus-fast")}
        assert {cpu.linux_number: cpu.numa_node for cpu in session.found.cpus} == judge
        assert len(session.cpus) == 76
        assert session.found.missing_count == 0
        answer_all(session)


def test_node_memory_above_4_gib(run_directory: Path) -> None:
    with Session(smp=8, numa=2, memory_bytes=12 * GIB, directory=run_directory) as session:
        assert all(node.control_pa > 4 * GIB for node in session.found.nodes)
        assert transition_root(session) < 4 * GIB, "CPUs load it as a 32-bit CR3"
        assert [backends_of(session, node) for node in session.found.nodes] == [{"ram0"}, {"ram1"}]
        answer_all(session)


def test_a_numa_node_too_small_borrows_from_the_next(run_directory: Path) -> None:
    with Session(smp=64, numa=3, memory_bytes=3 * SMALL, directory=run_directory) as session:
        nodes = session.found.nodes
        assert [(node.cpu_count, node.numa_node, node.memory_numa_node) for node in nodes] == [
            (22, 0, 1), (21, 1, 2), (21, 2, 0)
        ]  # fmt: skip
        assert [backends_of(session, node) for node in nodes] == [{"ram1"}, {"ram2"}, {"ram0"}]
        for line in (
            "node 0: NUMA node 0 has no memory to spare, taken from NUMA node 1",
            "node 1: NUMA node 1 has no memory to spare, taken from NUMA node 2",
            "node 2: NUMA node 2 has no memory to spare, taken from NUMA node 0",
        ):
            assert line in session.notes
        answer_all(session)


def test_no_numa_node_has_room(run_directory: Path) -> None:
    with pytest.raises(FellBack) as caught, Session(smp=66, numa=3, memory_bytes=3 * SMALL, directory=run_directory):
        pass
    assert caught.value.reason == f"not enough memory for node 2 ({required_memory(22)} bytes)"


def test_a_numa_node_of_one_cpu_stays_with_linux(run_directory: Path) -> None:
    with Session(smp=3, numa=2, directory=run_directory) as session:
        assert [(node.base_cpu, node.cpu_count) for node in session.found.nodes] == [(0, 2)]
        alone = session.found.cpu(2)
        assert (alone.node, alone.numa_node, alone.policy) == (None, 1, CpuPolicy.LINUX)
        assert "CPUs 2 to 2 stay with Linux: a node needs a CPU for the sidecar besides its first" in session.console
        answer_all(session)


def test_one_cpu_per_numa_node_everywhere(run_directory: Path) -> None:
    with pytest.raises(FellBack, match="no node has a CPU for the sidecar"), Session(
        smp=3, numa=3, directory=run_directory
    ):
        pass
