"""A machine's memory with a sidecar in it, built from the layouts alone: what discovery and the decoders are tested on.

Two nodes of three and two CPUs, one CPU that belongs to no node, and page tables as the address map says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sidecar.layout import (
    ABI_VERSION,
    PAGE_SIZE,
    ControlPage,
    CpuMapEntry,
    CpuPolicy,
    CpuStatus,
    DiagnosticPage,
    Layout,
    LogRing,
    PrivatePage,
    SharedPage,
    TrampolinePage,
    abi_hash,
    private_pa,
    required_memory,
    shared_pa,
)
from sidecar.layout.acpi import AcpiHeader, Sdcr, SdcrNode
from sidecar.layout.address_map import CPU_MAP_SLOT, IMAGE_VA, PER_CPU_MAP, PER_CPU_VA, PML4_SLOT, PdSlot, Source
from sidecar.layout.boot import TRAMPOLINE_MAGIC
from sidecar.layout.params import NO_NODE
from sidecar.layout.x86 import Pte

TRAMPOLINE_PA = 0x8000
IMAGE_PA = 0x100000
IMAGE_BYTES = 4 * PAGE_SIZE
IMAGE_TABLE_PA = 0x110000
CPU_MAP_PA = 0x118000
SDCR_PA = 0x120040
NODE_PAS = (0x200000, 0x280000)
NODES = ((0, 3), (3, 2))
"""Base CPU and number of CPUs."""
LONELY_CPU = 5
TSC_KHZ = 1000_000
FIRST_INIT = 5_000_000
SIZE = 0x300000

IMAGE_RIGHTS = (Pte.NX, 0, Pte.WRITE | Pte.NX, Pte.WRITE | Pte.NX)
"""What the page-table entries of the image's pages add to PRESENT."""


def page(layout: Layout, **values: Any) -> bytes:
    """The layout with zeros but for `values`, whose nested names have `__` for the dot."""
    parsed = layout.parse(bytes(layout.SIZE))
    for name, value in values.items():
        *path, last = name.split("__")
        owner = parsed
        for step in path:
            owner = owner[step]
        if last not in owner:
            raise KeyError(f"{layout.NAME} has no field {name}")
        owner[last] = value
    return layout.build(**{f.name: parsed[f.name] for f in layout.fields if not f.name.startswith("reserved")})


def array(count: int, values: Mapping[int, int]) -> list[int]:
    """`count` zeros but for the indices in `values`."""
    return [values.get(index, 0) for index in range(count)]


@dataclass
class Synthetic:
    """The memory; `data` may be changed to make it wrong. `read` is what the tools call."""

    data: bytearray = field(default_factory=lambda: bytearray(SIZE))

    def read(self, pa: int, size: int) -> bytes:
        if pa + size > len(self.data):
            raise LookupError(f"{pa:#x} is not in this memory")
        return bytes(self.data[pa : pa + size])

    def write(self, pa: int, data: bytes) -> None:
        self.data[pa : pa + len(data)] = data

    def write_u64(self, pa: int, value: int) -> None:
        self.write(pa, value.to_bytes(8, "little"))


def machine() -> Synthetic:
    """A machine whose CPUs 1 and 2 are idle and running, and CPU 4 idle; 0 and 3 are the nodes' base CPUs."""
    memory = Synthetic()
    memory.write(TRAMPOLINE_PA, page(
        TrampolinePage, magic=TRAMPOLINE_MAGIC, abi_version=ABI_VERSION, abi_hash=abi_hash(), sdcr_pa=SDCR_PA,
    ))
    memory.write(SDCR_PA, sdcr())
    status = ({1: CpuStatus.IDLE, 2: CpuStatus.RUN}, {1: CpuStatus.IDLE})
    for number, (base_pa, (base_cpu, count)) in enumerate(zip(NODE_PAS, NODES, strict=True)):
        memory.write(base_pa, page(
            ControlPage, index=number, base_cpu=base_cpu, cpu_count=count, request_vector=0x20,
            abi_version=ABI_VERSION, abi_hash=abi_hash(), cpu_status=array(4032, status[number]),
        ))
        for index in range(1, count):
            fill_cpu(memory, base_pa, count, index, base_cpu + index)
    return memory


def fill_cpu(memory: Synthetic, base_pa: int, count: int, index: int, linux_number: int) -> None:
    """Boot record, log and page tables of a CPU that has arrived; stamps are 1 ms * CPU + 1 us * phase after INIT."""
    stamps = [FIRST_INIT + linux_number * 1_000_000 + phase * 1000 for phase in range(7)] + [0]
    memory.write(private_pa(base_pa, count, index, PrivatePage.DIAGNOSTIC), page(
        DiagnosticPage, boot__arrivals=1, boot__apic_id=2 * linux_number, boot__linux_number=linux_number,
        boot__stamps=stamps,
    ))
    text = f"sidecar: cpu {linux_number}: hello\n".encode()
    memory.write(private_pa(base_pa, count, index, PrivatePage.LOG), page(
        LogRing, written=len(text), text=text.ljust(LogRing.text.SIZE, b"\0"),
    ))
    map_cpu(memory, base_pa, count, index)


def map_cpu(memory: Synthetic, base_pa: int, count: int, index: int) -> None:
    """The CPU's four tables and the image's, as the address map says."""
    def pa(which: PrivatePage) -> int:
        return private_pa(base_pa, count, index, which)

    link = Pte.PRESENT | Pte.WRITE
    memory.write_u64(pa(PrivatePage.PML4) + 8 * PML4_SLOT, pa(PrivatePage.PDPT) | link)
    memory.write_u64(pa(PrivatePage.PDPT), pa(PrivatePage.PD) | link)
    memory.write_u64(pa(PrivatePage.PD) + 8 * PdSlot.IMAGE, IMAGE_TABLE_PA | link)
    memory.write_u64(pa(PrivatePage.PD) + 8 * PdSlot.PER_CPU, pa(PrivatePage.PT) | link)
    for number, rights in enumerate(IMAGE_RIGHTS):
        memory.write_u64(IMAGE_TABLE_PA + 8 * number, IMAGE_PA + number * PAGE_SIZE | Pte.PRESENT | rights)
    memory.write_u64(IMAGE_TABLE_PA + 8 * CPU_MAP_SLOT, CPU_MAP_PA | Pte.PRESENT | Pte.NX)
    for mapping in PER_CPU_MAP:
        target = {
            Source.CONTROL: base_pa,
            Source.SHARED: shared_pa(base_pa, index, SharedPage(min(mapping.index, 1))),
            Source.PRIVATE: pa(PrivatePage(mapping.index)),
        }[mapping.source]
        rights = Pte.PRESENT | Pte.NX | (Pte.WRITE if mapping.writable else 0)
        memory.write_u64(pa(PrivatePage.PT) + 8 * mapping.slot, target | rights)


def table_slot(index: int, *, va: int) -> int:
    """Where the entry of `va` is in the page tables of the first node's CPU `index`, or of the image."""
    if IMAGE_VA <= va < PER_CPU_VA:
        return IMAGE_TABLE_PA + 8 * ((va - IMAGE_VA) // PAGE_SIZE)
    base, count = NODE_PAS[0], NODES[0][1]
    return private_pa(base, count, index, PrivatePage.PT) + 8 * ((va - PER_CPU_VA) // PAGE_SIZE)


def sdcr(**changes: Any) -> bytes:
    """The SDCR table with its checksum right; `changes` replace fields of Sdcr, or `nodes` and `cpus` (bytes)."""
    nodes = changes.pop("nodes", None)
    if nodes is None:
        nodes = b"".join(node(number) for number in range(len(NODES)))
    cpus = changes.pop("cpus", None)
    if cpus is None:
        cpus = b"".join(cpu(number) for number in range(LONELY_CPU + 1))
    fields: dict[str, Any] = {
        "abi_version": ABI_VERSION, "abi_hash": abi_hash(), "node_count": len(nodes) // SdcrNode.SIZE,
        "node_offset": Sdcr.SIZE, "cpu_count": len(cpus) // CpuMapEntry.SIZE,
        "cpu_offset": Sdcr.SIZE + len(nodes), "trampoline_pa": TRAMPOLINE_PA, "image_pa": IMAGE_PA,
        "image_bytes": IMAGE_BYTES, "relay_pa": 0, "tsc_khz": TSC_KHZ, "missing_count": 0,
        "shim_entry_tsc": 1_000_000, "sidecar_entry_tsc": 4_000_000, "first_init_tsc": FIRST_INIT,
        "all_idle_tsc": FIRST_INIT + 4_006_000, "hand_over_tsc": 20_000_000,
    }
    length = Sdcr.SIZE + len(nodes) + len(cpus)
    head = page(AcpiHeader, signature=b"SDCR", length=length, revision=1)
    return checksummed(Sdcr.build(header=head, **(fields | changes)) + nodes + cpus)


def checksummed(table: bytes) -> bytes:
    """The table with the checksum byte that makes all bytes sum to 0."""
    at = AcpiHeader.checksum
    rest = sum(table) - table[at]
    return table[:at] + bytes([-rest % 256]) + table[at + 1 :]


def node(number: int, **changes: Any) -> bytes:
    """A node's entry in the SDCR table."""
    base, (base_cpu, count) = NODE_PAS[number], NODES[number]
    fields: dict[str, Any] = {
        "control_pa": base, "shared_pa": shared_pa(base, 0), "private_pa": private_pa(base, count, 0, PrivatePage.PML4),
        "memory_bytes": required_memory(count), "base_cpu": base_cpu, "cpu_count": count,
        "numa_node": number, "memory_numa_node": number,
    }
    return SdcrNode.build(**(fields | changes))


def cpu(linux_number: int, **changes: Any) -> bytes:
    """A CPU's entry; APIC ids are even."""
    number = next((n for n, (base, count) in enumerate(NODES) if base <= linux_number < base + count), NO_NODE)
    base = linux_number in {base for base, _ in NODES}
    fields: dict[str, Any] = {
        "apic_id": 2 * linux_number, "linux_number": linux_number, "node": number, "numa_node": 0,
        "policy": CpuPolicy.LINUX if base or number == NO_NODE else CpuPolicy.SIDECAR,
    }
    return CpuMapEntry.build(**(fields | changes))
