"""Nodes on the boot CPU: control pages, output page and the windows onto node memory, for random splits of the CPUs."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from sidecar.builder import image
from sidecar.layout import (
    ABI_VERSION,
    PAGE_SIZE,
    REQUEST_VECTOR,
    ControlPage,
    CpuPolicy,
    CpuStatus,
    DiagnosticPage,
    PrivatePage,
    abi_hash,
    private_pa,
    required_memory,
    shared_pa,
)
from sidecar.layout.address_map import PAGES_PER_CPU, WINDOWS_VA
from sidecar.layout.private import NodeState
from sidecar.protocol.page_tables import walk
from tests.support.emulator import Emulator
from tests.unit.kernel.helpers import BASE, NODES, OUTPUT, PARAMS, RAM, Node, accepted, cpu, fresh, output, write_params

FILLED = 0xA5
Policies = list[list[CpuPolicy]]

POLICY = st.sampled_from(CpuPolicy)
SPLITS = st.lists(
    st.lists(POLICY, min_size=1, max_size=11).filter(lambda node: CpuPolicy.SIDECAR in node).map(
        lambda node: [CpuPolicy.LINUX, *node]
    ),
    min_size=1, max_size=5,
)  # fmt: skip
"""Per node and CPU who starts it: the first is Linux's, at least one is the sidecar's."""


def split(policies: Policies, gap: int) -> tuple[list[Node], list[bytes]]:
    """Nodes with `gap` pages between their memories, and CPUs of their own numbers."""
    nodes: list[Node] = []
    base, memory = 0, NODES
    for node in policies:
        nodes.append(Node(base, len(node), memory))
        base += len(node)
        memory += required_memory(len(node)) + gap * PAGE_SIZE
    cpus = [
        cpu(node.base_vp + index, number, policy)
        for number, node in enumerate(nodes)
        for index, policy in enumerate(policies[number])
    ]
    return nodes, cpus


def prepared(nodes: Sequence[Node], cpus: Sequence[bytes]) -> Emulator:
    """The entry up to the start of the first CPU, over memory that is not zero."""
    kernel = fresh()
    kernel.write(NODES, bytes([FILLED]) * (RAM.stop - NODES))
    write_params(kernel, nodes, cpus)
    accepted(kernel)
    return kernel


@given(SPLITS, st.integers(0, 2))
def test_control_pages_name_the_nodes_and_the_cpus_to_start(policies: Policies, gap: int) -> None:
    nodes, cpus = split(policies, gap)
    kernel = prepared(nodes, cpus)
    for number, (node, policy) in enumerate(zip(nodes, policies, strict=True)):
        page = ControlPage.parse(kernel.read(node.memory_base, PAGE_SIZE))
        assert (page.index, page.base_cpu, page.cpu_count) == (number, node.base_vp, node.vp_count)
        assert (page.request_vector, page.response_cpu, page.response_vector) == (REQUEST_VECTOR, 0, 0)
        assert (page.needs_attention, page.abi_version, page.abi_hash) == (0, ABI_VERSION, abi_hash())
        started = [CpuStatus.RUN if one is CpuPolicy.SIDECAR else CpuStatus.REMOVED for one in policy]
        assert list(page.cpu_status) == started + [CpuStatus.REMOVED] * (len(page.cpu_status) - node.vp_count)


@given(SPLITS, st.integers(0, 2))
def test_the_output_page_says_where_everything_is(policies: Policies, gap: int) -> None:
    nodes, cpus = split(policies, gap)
    said = output(prepared(nodes, cpus))
    assert [(one.control_page, one.shmem_pages_base, one.shmem_pages_size) for one in said.nodes[: len(nodes)]] == [
        (node.memory_base, shared_pa(node.memory_base, 0), node.vp_count * 2 * PAGE_SIZE) for node in nodes
    ]
    assert {one.control_page for one in said.nodes[len(nodes) :]} <= {0}
    assert said.started_count == sum(policy.count(CpuPolicy.SIDECAR) for policy in policies)
    assert (said.abi_version, said.abi_hash, said.image_pa) == (ABI_VERSION, abi_hash(), BASE)
    assert said.image_bytes == image.kernel().plan.memory_bytes


@given(SPLITS, st.integers(0, 2))
def test_the_windows_show_the_pages_of_each_node_and_no_table(policies: Policies, gap: int) -> None:
    nodes, cpus = split(policies, gap)
    kernel = prepared(nodes, cpus)
    states = [
        NodeState.parse(kernel.read(kernel.at("node_states") + number * NodeState.SIZE, NodeState.SIZE))
        for number in range(len(nodes))
    ]
    windows = [one for one in walk(kernel, kernel.number("transition_cr3")) if one.va >= WINDOWS_VA]
    assert {one.rights for one in windows} == {"RW"}
    assert [(one.va, one.pa, one.size) for one in windows] == [
        (state.window_va, node.memory_base, (1 + PAGES_PER_CPU * node.vp_count) * PAGE_SIZE)
        for state, node in zip(states, nodes, strict=True)
    ]
    assert [(one.base_vp, one.vp_count, one.next_vp, one.memory_base) for one in states] == [
        (node.base_vp, node.vp_count, 1, node.memory_base) for node in nodes
    ]
    assert states[0].window_va == WINDOWS_VA


@given(SPLITS, st.integers(1, 2))
def test_pages_count_as_not_initialised_and_nothing_beyond_is_written(policies: Policies, gap: int) -> None:
    nodes, cpus = split(policies, gap)
    kernel = prepared(nodes, cpus)
    for node in nodes:
        for index in range(node.vp_count):
            diagnostic = private_pa(node.memory_base, node.vp_count, index, PrivatePage.DIAGNOSTIC)
            assert kernel.number(diagnostic + DiagnosticPage.boot.arrivals) == 0
        behind = node.memory_base + required_memory(node.vp_count)
        assert kernel.read(behind, gap * PAGE_SIZE) == bytes([FILLED]) * gap * PAGE_SIZE
        first, second = shared_pa(node.memory_base, 0), private_pa(node.memory_base, node.vp_count, 0, PrivatePage.PML4)
        assert kernel.read(first, second - first) == bytes([FILLED]) * (second - first)


def test_a_node_of_the_most_cpus_fits_into_its_memory() -> None:
    nodes, cpus = split([[CpuPolicy.LINUX] + [CpuPolicy.SIDECAR] * 31], gap=0)
    assert output(prepared(nodes, cpus)).started_count == 31


def test_a_cpu_that_faulted_during_its_arrival_is_not_counted_as_started() -> None:
    """The boot CPU's wait, over status bytes as the arriving CPUs leave them."""
    nodes, cpus = split([[CpuPolicy.LINUX] + [CpuPolicy.SIDECAR] * 3, [CpuPolicy.LINUX, CpuPolicy.SIDECAR]], gap=1)
    kernel = prepared(nodes, cpus)
    removed, idle, faulted = CpuStatus.REMOVED, CpuStatus.IDLE, CpuStatus.FAULTED
    for node, statuses in zip(nodes, [(removed, idle, faulted, idle), (removed, faulted)], strict=True):
        kernel.write(node.memory_base + ControlPage.cpu_status, bytes(statuses))
    assert kernel.call("wait_for_all", r15=PARAMS, r14=OUTPUT).stop == ""
    said = output(kernel)
    assert (said.started_count, said.faulted_count, said.missing_count) == (2, 2, 0)
