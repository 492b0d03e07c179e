"""The node split against its rule in Python: CPUs of one NUMA node, in balanced chunks of at most 32, on local memory.

The rule is upstream's (OpenHCL `openhcl_boot/src/sidecar.rs`): a node covers consecutive numbers, its first CPU is
Linux's, and a node without a CPU for the sidecar is never created.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.layout import MAX_CPUS, MAX_NODE_CPUS, MAX_NODES, CpuMapEntry, CpuPolicy, SidecarParams, required_memory
from sidecar.layout.params import NO_NODE, SidecarNodeParams
from tests.support.emulator import Emulator, Outcome
from tests.unit.shim.helpers import fallback, fresh, notes, returned
from tests.unit.shim.test_memory import Area, take, write_ranges

PLENTY = [Area((16 + number) << 30, (17 + number) << 30, number) for number in range(64)]
NOWHERE = (1 << 64) - 1


@dataclass
class Split:
    """The rule's result; `numa` is each node's own NUMA node and that of its memory."""

    nodes: list[tuple[int, int]] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)
    numa: list[tuple[int, int]] = field(default_factory=list)
    cpus: list[tuple[int, CpuPolicy]] = field(default_factory=list)
    reason: str = ""  # why the sidecar is not used
    notes: list[str] = field(default_factory=list)


def chunks(count: int) -> list[int]:
    """How many CPUs each of the chunks of `count` CPUs has."""
    number = -(-count // MAX_NODE_CPUS)
    return [count // number + (chunk < count % number) for chunk in range(number)]


def by_the_rule(numa_nodes: Sequence[int], linux: set[int], free: list[Area]) -> Split:
    """numa_nodes: of each CPU; linux: the CPUs that stay with it; free: what memory there is, taken from."""
    split = Split(cpus=[(NO_NODE, CpuPolicy.LINUX)] * len(numa_nodes))
    first = 0
    for numa, group in itertools.groupby(numa_nodes):
        for count in chunks(len(list(group))):
            make_node(split, range(first, first + count), numa, linux, free)
            if split.reason:
                return split
            first += count
    if len(numa_nodes) == 1:
        split.reason = "the machine has one CPU"
    elif not split.nodes:
        split.reason = "no node has a CPU for the sidecar"
    return split


def make_node(split: Split, cpus: range, numa: int, linux: set[int], free: list[Area]) -> None:
    ours = set(cpus[1:]) - linux
    if not ours:
        if len(split.cpus) > 1:
            split.notes.append(
                f"CPUs {cpus[0]} to {cpus[-1]} stay with Linux: a node needs a CPU for the sidecar besides its first"
            )
        return
    number, size = len(split.nodes), required_memory(len(cpus))
    if number == MAX_NODES:
        split.reason = f"more than {MAX_NODES} nodes"
        return
    address, memory_numa = take(free, size, numa, NOWHERE)
    if not address:
        split.reason = f"not enough memory for node {number} ({size} bytes)"
        return
    if memory_numa != numa:
        split.notes.append(
            f"node {number}: NUMA node {numa} has no memory to spare, taken from NUMA node {memory_numa}"
        )
    split.nodes.append((cpus[0], len(cpus)))
    split.memory.append((address, size))
    split.numa.append((numa, memory_numa))
    for cpu in cpus:
        split.cpus[cpu] = (number, CpuPolicy.SIDECAR if cpu in ours else CpuPolicy.LINUX)


def by_the_shim(numa_nodes: Sequence[int], linux: set[int], free: Sequence[Area]) -> tuple[Emulator, Outcome]:
    shim = fresh()
    entries = [
        CpuMapEntry.build(apic_id=3 * n, linux_number=n, node=NO_NODE, numa_node=numa, policy=CpuPolicy.LINUX)
        for n, numa in enumerate(numa_nodes)
    ]
    shim.write("cpu_map", b"".join(entries))
    shim.write("cpu_count", len(entries), size=4)
    shim.write("linux_cpus", sum(1 << n for n in linux), size=MAX_CPUS // 8)
    write_ranges(shim, "free_ranges", free)
    shim.write("free_count", len(free), size=4)
    return shim, shim.call("split_nodes")


def result(shim: Emulator, cpu_count: int) -> Split:
    """What the shim's variables say."""
    split = Split(notes=notes(shim))
    params = shim.at("params_page") + SidecarParams.nodes
    for number in range(shim.number("node_count", 4)):
        node = SidecarNodeParams.parse(shim.read(params + number * SidecarNodeParams.SIZE, SidecarNodeParams.SIZE))
        split.nodes.append((node.base_vp, node.vp_count))
        split.memory.append((node.memory_base, node.memory_size))
        numa = shim.at("node_numa") + 8 * number
        split.numa.append((shim.number(numa, 4), shim.number(numa + 4, 4)))
    for number in range(cpu_count):
        entry = CpuMapEntry.parse(shim.read(shim.at("cpu_map") + number * CpuMapEntry.SIZE, CpuMapEntry.SIZE))
        assert (entry.apic_id, entry.linux_number) == (3 * number, number)
        split.cpus.append((entry.node, CpuPolicy(int(entry.policy))))
    return split


def compare(numa_nodes: Sequence[int], linux: set[int], free: Sequence[Area]) -> None:
    """The shim and the rule say the same, and split or fall back."""
    shim, outcome = by_the_shim(numa_nodes, linux, free)
    expected = by_the_rule(numa_nodes, linux, list(free))
    if expected.reason:
        assert fallback(shim, outcome) == expected.reason
        expected = Split(cpus=[(NO_NODE, CpuPolicy.LINUX)] * len(numa_nodes), notes=expected.notes)
    else:
        returned(shim, outcome)
    assert result(shim, len(numa_nodes)) == expected


RUN = st.tuples(st.integers(0, 3) | st.just(63), st.integers(1, 70))
LAYOUT = st.lists(RUN, min_size=1, max_size=5).map(lambda runs: [numa for numa, count in runs for _ in range(count)])


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[int], set[int]]:
    """NUMA node of each CPU, and which stay with Linux: none, some, or nearly all."""
    numa_nodes = draw(LAYOUT)
    numbers = st.sets(st.integers(0, len(numa_nodes) + 5))
    kept = draw(st.just(set()) | numbers | st.sets(st.integers(0, len(numa_nodes) - 1), max_size=3).map(
        lambda ours: set(range(len(numa_nodes))) - ours
    ))  # fmt: skip
    return numa_nodes, kept


SMALL = st.lists(st.tuples(st.integers(0, 500), st.sampled_from([0, 1, 2, 3, 63])), max_size=6).map(
    lambda sizes: [Area(n << 24, (n << 24) + (pages << 12), numa) for n, (pages, numa) in enumerate(sizes, 1)]
)


@given(machines(), st.just(PLENTY) | SMALL)
@example(([0] * 64, set()), PLENTY)
@example(([0], set()), PLENTY)
@example(([0, 1, 0, 1], set()), PLENTY)
@example(([0] * 4, {1, 2, 3}), PLENTY)
@example(([0] * 33 + [1], set()), [])
def test_the_split_follows_the_rule(machine: tuple[list[int], set[int]], free: list[Area]) -> None:
    numa_nodes, linux = machine
    compare(numa_nodes, linux, free)


@pytest.mark.parametrize("count", [2, 31, 32, 33, 64, 65, 255, 260, 2048])
def test_chunks_are_balanced_and_no_larger_than_32(count: int) -> None:
    compare([0] * count, set(), PLENTY)
    sizes = [size for _, size in by_the_rule([0] * count, set(), list(PLENTY)).nodes]
    assert max(sizes) <= MAX_NODE_CPUS
    assert sum(sizes) == count
    assert len(sizes) == -(-count // MAX_NODE_CPUS)


def test_64_cpus_are_two_nodes_of_32() -> None:
    shim, _ = by_the_shim([0] * 64, set(), PLENTY)
    assert result(shim, 64).nodes == [(0, 32), (32, 32)]


def test_80_cpus_on_two_numa_nodes_are_four_nodes_of_20_with_memory_of_their_own() -> None:
    shim, _ = by_the_shim([0] * 40 + [1] * 40, set(), PLENTY)
    split = result(shim, 80)
    assert split.nodes == [(0, 20), (20, 20), (40, 20), (60, 20)]
    assert split.numa == [(0, 0), (0, 0), (1, 1), (1, 1)]


@pytest.mark.parametrize("count", [MAX_NODES, MAX_NODES + 1])
def test_more_nodes_than_the_params_page_holds_are_a_reason_to_fall_back(count: int) -> None:
    compare([numa % 2 for numa in range(count) for _ in range(2)], set(), PLENTY)
