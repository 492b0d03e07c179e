"""What discovery finds: the machine's nodes and CPUs, and the physical address of each of their pages.

Host side, read only. Addresses come from `layout.address_map`; nothing is computed here a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.layout import (
    PAGE_SIZE,
    ControlPage,
    CpuPolicy,
    CpuStatus,
    PrivatePage,
    SharedPage,
    private_pa,
    shared_pa,
)
from sidecar.protocol.memory import Memory


class DiscoveryError(Exception):
    """The machine has no sidecar that we can read, or not the CPU that was asked for; one sentence says why."""


@dataclass(frozen=True, slots=True)
class Node:
    """A sidecar node; `number` is its place in the SDCR table. Physical addresses and bytes."""

    number: int
    control_pa: int
    shared_pa: int
    private_pa: int
    memory_bytes: int
    base_cpu: int
    cpu_count: int
    numa_node: int
    memory_numa_node: int

    def shared_page_pa(self, index: int, page: SharedPage) -> int:
        """Where a shared page of the node's CPU `index` is."""
        return shared_pa(self.control_pa, index, page)

    def private_page_pa(self, index: int, page: PrivatePage) -> int:
        """Where a private page of the node's CPU `index` is."""
        return private_pa(self.control_pa, self.cpu_count, index, page)


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU of the machine; `node` and `index` are None for one that belongs to no node. A policy may be unknown."""

    linux_number: int
    apic_id: int
    node: int | None
    index: int | None
    numa_node: int
    policy: CpuPolicy | int

    @property
    def is_sidecars(self) -> bool:
        """Does the sidecar start it? A node's first CPU has pages too, and is Linux's."""
        return self.policy == CpuPolicy.SIDECAR and bool(self.index)


@dataclass(frozen=True, slots=True)
class Discovered:
    """A machine with a sidecar: the SDCR table's fields, and where every page of every CPU is."""

    sdcr_pa: int
    trampoline_pa: int
    image_pa: int
    image_bytes: int
    relay_pa: int
    tsc_khz: int
    missing_count: int
    shim_entry_tsc: int
    sidecar_entry_tsc: int
    first_init_tsc: int
    all_idle_tsc: int
    hand_over_tsc: int
    nodes: tuple[Node, ...]
    cpus: tuple[Cpu, ...]

    @property
    def sidecar_cpus(self) -> tuple[Cpu, ...]:
        """The CPUs that the sidecar starts, by Linux number."""
        return tuple(cpu for cpu in self.cpus if cpu.is_sidecars)

    def cpu(self, linux_number: int) -> Cpu:
        """The CPU with this Linux number; DiscoveryError if the machine has none."""
        if not 0 <= linux_number < len(self.cpus):
            raise DiscoveryError(f"there is no CPU {linux_number}: the machine has CPUs 0 to {len(self.cpus) - 1}")
        return self.cpus[linux_number]

    def place(self, cpu: Cpu) -> tuple[Node, int]:
        """The CPU's node and its index there; DiscoveryError for a CPU that belongs to no node."""
        if cpu.node is None or cpu.index is None:
            raise DiscoveryError(f"CPU {cpu.linux_number} belongs to no sidecar node: it has no pages")
        return self.nodes[cpu.node], cpu.index

    def shared_page_pa(self, cpu: Cpu, page: SharedPage) -> int:
        """Where a shared page of the CPU is; DiscoveryError if it belongs to no node."""
        node, index = self.place(cpu)
        return node.shared_page_pa(index, page)

    def private_page_pa(self, cpu: Cpu, page: PrivatePage) -> int:
        """Where a private page of the CPU is; DiscoveryError if it belongs to no node."""
        node, index = self.place(cpu)
        return node.private_page_pa(index, page)

    def read_control(self, memory: Memory, node: Node) -> bytes:
        """The node's control page."""
        return memory.read(node.control_pa, PAGE_SIZE)

    def read_shared(self, memory: Memory, cpu: Cpu, page: SharedPage) -> bytes:
        """A shared page of the CPU."""
        return memory.read(self.shared_page_pa(cpu, page), PAGE_SIZE)

    def read_private(self, memory: Memory, cpu: Cpu, page: PrivatePage) -> bytes:
        """A private page of the CPU; DIAGNOSTIC has boot record, fault record and counters."""
        return memory.read(self.private_page_pa(cpu, page), PAGE_SIZE)

    def status(self, memory: Memory, cpu: Cpu) -> CpuStatus | int | None:
        """The CPU's status byte, a bare number if it is outside the table; None if it belongs to no node."""
        if cpu.node is None:
            return None
        node, index = self.place(cpu)
        value = memory.read(node.control_pa + ControlPage.cpu_status + index, 1)[0]
        return CpuStatus(value) if value in list(CpuStatus) else value

    def microseconds(self, tsc: int) -> float:
        """A TSC stamp as microseconds since the first INIT; 0.0 if the table has no TSC frequency."""
        return (tsc - self.first_init_tsc) * 1000 / self.tsc_khz if self.tsc_khz else 0.0
