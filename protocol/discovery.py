"""From nothing but physical memory to every page of every CPU: the anchor, the SDCR table, nodes and CPU map.

Host side, read only, on a machine that is running, stopped or only a file. The anchor is the trampoline page: the one
page below 640 KiB that carries TRAMPOLINE_MAGIC; it holds the ABI's version and hash, and the SDCR table's address.

    found = discover(memory)
    page = found.read_private(memory, found.cpu(3), PrivatePage.DIAGNOSTIC)

Ref: ACPI specification 6.5, 5.2.6 (table header and checksum).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sidecar.layout import (
    PAGE_SIZE,
    CpuMapEntry,
    CpuPolicy,
    Layout,
    PrivatePage,
    SharedPage,
    TrampolinePage,
)
from sidecar.layout.acpi import AcpiHeader, Sdcr, SdcrNode
from sidecar.layout.boot import TRAMPOLINE_MAGIC
from sidecar.layout.control import CPU_STATUS_COUNT
from sidecar.layout.params import NO_NODE
from sidecar.protocol.abi_check import AbiMismatch, require_abi
from sidecar.protocol.machine import Cpu, Discovered, DiscoveryError, Node
from sidecar.protocol.memory import Memory

__all__ = [
    "AbiMismatch", "Anchor", "BadTable", "Cpu", "Discovered", "DiscoveryError", "Memory", "NoAnchor", "Node",
    "discover", "find_anchor", "parse_table", "read_table",
]

SCAN_END = 0xA0000
"""Conventional memory ends here; a SIPI can only reach the first megabyte."""

LARGEST_TABLE = 1 << 20


class NoAnchor(DiscoveryError):
    """No page of conventional memory carries the trampoline's magic number."""


class BadTable(DiscoveryError):
    """The SDCR table is truncated, damaged or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The trampoline page's address, and what stands in it."""

    trampoline_pa: int
    sdcr_pa: int


def discover(memory: Memory) -> Discovered:
    """The whole machine. Raises NoAnchor, AbiMismatch, BadTable."""
    return read_table(memory, find_anchor(memory))


def find_anchor(memory: Memory) -> Anchor:
    """Scan conventional memory page by page. Raises NoAnchor, AbiMismatch."""
    conventional = _conventional_memory(memory)
    magic = TRAMPOLINE_MAGIC.to_bytes(8, "little")
    for pa in range(0, SCAN_END, PAGE_SIZE):
        at = pa + TrampolinePage.magic
        if conventional[at : at + 8] == magic:
            page = TrampolinePage.parse(conventional[pa : pa + PAGE_SIZE])
            require_abi(f"the sidecar whose trampoline page is at {pa:#x}", page.abi_version, page.abi_hash)
            return Anchor(trampoline_pa=pa, sdcr_pa=page.sdcr_pa)
    raise NoAnchor(
        f"no sidecar in this memory: no page of 0x0 to {SCAN_END:#x} carries the trampoline's magic "
        f"{TRAMPOLINE_MAGIC:#x}; the machine must have booted the sidecar, a file must begin at physical address 0"
    )


def _conventional_memory(memory: Memory) -> bytes:
    try:
        return memory.read(0, SCAN_END)
    except LookupError as error:
        raise NoAnchor(f"no sidecar in this memory: 0x0 to {SCAN_END:#x} cannot be scanned: {error}") from error


def read_table(memory: Memory, anchor: Anchor) -> Discovered:
    """The SDCR table, checked, with its nodes and CPUs. Raises BadTable, AbiMismatch."""
    where = f"the SDCR table at {anchor.sdcr_pa:#x}"
    return parse_table(_read_table(memory, anchor.sdcr_pa, where), where, anchor.sdcr_pa)


def parse_table(data: bytes, where: str, sdcr_pa: int) -> Discovered:
    """The table's bytes as a machine; `where` names it in errors. Raises BadTable, AbiMismatch."""
    if len(data) < AcpiHeader.SIZE or len(data) != _length(data, where):
        raise BadTable(f"{where} is truncated: got {len(data):#x} bytes")
    if rest := sum(data) % 256:
        raise BadTable(f"{where}: expected bytes that sum to 0, got checksum remainder {rest:#x}")
    table = Sdcr.parse(data)
    require_abi(where, table.abi_version, table.abi_hash)
    nodes = tuple(
        _node(where, number, entry)
        for number, entry in enumerate(_entries(where, "node", data, SdcrNode, table.node_offset, table.node_count))
    )
    entries = list(_entries(where, "CPU", data, CpuMapEntry, table.cpu_offset, table.cpu_count))
    cpus = tuple(_cpu(where, number, entry, nodes) for number, entry in enumerate(entries))
    for node in nodes:
        if node.base_cpu + node.cpu_count > len(cpus):
            raise BadTable(
                f"{where}: node {node.number} has CPUs {node.base_cpu} to {node.base_cpu + node.cpu_count - 1}, "
                f"expected at most {len(cpus) - 1}"
            )
    plain = ("trampoline_pa", "image_pa", "image_bytes", "relay_pa", "tsc_khz", "missing_count", "shim_entry_tsc",
             "sidecar_entry_tsc", "first_init_tsc", "all_idle_tsc", "hand_over_tsc")
    return Discovered(sdcr_pa=sdcr_pa, nodes=nodes, cpus=cpus, **{name: table[name] for name in plain})


def _read_table(memory: Memory, pa: int, where: str) -> bytes:
    """As many bytes as the table's header says."""
    try:
        head = memory.read(pa, AcpiHeader.SIZE)
        return memory.read(pa, _length(head, where))
    except LookupError as error:
        raise BadTable(f"{where} cannot be read: {error}") from error


def _length(head: bytes, where: str) -> int:
    """The length in the table's header, whose signature is right."""
    header = AcpiHeader.parse(head)
    if header.signature != b"SDCR":
        raise BadTable(f"{where}: expected signature b'SDCR', got {header.signature!r}")
    if header.length < Sdcr.SIZE:
        raise BadTable(f"{where} is truncated: expected {Sdcr.SIZE:#x} bytes or more, got {header.length:#x}")
    if header.length > LARGEST_TABLE:
        raise BadTable(f"{where}: expected at most {LARGEST_TABLE:#x} bytes, got {header.length:#x}")
    return int(header.length)


def _entries(where: str, what: str, data: bytes, layout: Layout, offset: int, count: int) -> Iterator[Any]:
    end = offset + count * layout.SIZE
    if offset < Sdcr.SIZE or end > len(data):
        raise BadTable(
            f"{where} is truncated: its {count} {what} entries at {offset:#x} to {end:#x} are not inside "
            f"{Sdcr.SIZE:#x} to {len(data):#x}"
        )
    for position in range(offset, end, layout.SIZE):
        yield layout.parse(data[position : position + layout.SIZE])


def _node(where: str, number: int, entry: Any) -> Node:
    names = ("control_pa", "shared_pa", "private_pa", "memory_bytes", "base_cpu", "cpu_count", "numa_node",
             "memory_numa_node")
    node = Node(number=number, **{name: entry[name] for name in names})
    if not 1 <= node.cpu_count <= CPU_STATUS_COUNT:
        raise BadTable(f"{where}: node {number} has {node.cpu_count} CPUs, expected 1 to {CPU_STATUS_COUNT}")
    for name, expected in (
        ("control_pa", node.control_pa & -PAGE_SIZE),
        ("shared_pa", node.shared_page_pa(0, SharedPage.COMMAND)),
        ("private_pa", node.private_page_pa(0, PrivatePage.PML4)),
    ):
        if entry[name] != expected:
            raise BadTable(f"{where}: node {number}, {name}: expected {expected:#x}, got {entry[name]:#x}")
    return node


def _cpu(where: str, number: int, entry: Any, nodes: tuple[Node, ...]) -> Cpu:
    if entry.linux_number != number:
        raise BadTable(f"{where}: CPU entry {number}: expected linux_number {number}, got {entry.linux_number}")
    policy = int(entry.policy)
    policy = CpuPolicy(policy) if policy in list(CpuPolicy) else policy
    if entry.node == NO_NODE:
        return Cpu(number, entry.apic_id, None, None, entry.numa_node, policy)
    if entry.node >= len(nodes):
        raise BadTable(f"{where}: CPU {number} is of node {entry.node}, expected less than {len(nodes)}")
    node = nodes[entry.node]
    index = number - node.base_cpu
    if not 0 <= index < node.cpu_count:
        raise BadTable(
            f"{where}: CPU {number} is of node {node.number}, whose CPUs are {node.base_cpu} to "
            f"{node.base_cpu + node.cpu_count - 1}"
        )
    return Cpu(number, entry.apic_id, node.number, index, entry.numa_node, policy)
