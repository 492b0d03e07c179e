"""The sidecar's virtual and node-physical address map: one table; slots, addresses and required memory follow from it.

The image is mapped at IMAGE_VA on every CPU, the CPU's own pages 2 MiB above it. Arriving CPUs run for a moment on the
shared transition tables, which map the image, the trampoline page and a window onto every node's memory, so that a
CPU can rebuild its own tables whatever happened to them.

Ref: OpenHCL sidecar, `arch/x86_64/mod.rs` (slots 3, 4, 6, 7, 511 are upstream's; its self map
in slot 0 is left out, so that no page table is writable through a CPU's own map).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from sidecar.layout.abi import MAX_CPUS, MAX_NODES
from sidecar.layout.params import CpuMapEntry
from sidecar.layout.schema import PAGE_SIZE, LayoutError, register_enum
from sidecar.layout.svm import XSAVE_PAGES, VpPage

IMAGE_VA = 0xFFFFFF8000000000
TABLE_ENTRIES = 512
LARGE_PAGE = PAGE_SIZE * TABLE_ENTRIES
PER_CPU_VA = IMAGE_VA + LARGE_PAGE
WINDOWS_VA = IMAGE_VA + 2 * LARGE_PAGE
PML4_SLOT = 511
"""Slot of IMAGE_VA in a PML4; in the PDPT below it is slot 0."""


class PdSlot(IntEnum):
    """Slots of the page directory that maps IMAGE_VA."""

    IMAGE = 0
    PER_CPU = 1
    WINDOWS = 2
    """First of the node windows, in the transition tables only."""
    VP = 2
    """The virtual processor's own table, VpPage.TABLE, in a CPU's own tables only."""


WINDOW_SLOTS = TABLE_ENTRIES - PdSlot.WINDOWS

CPU_MAP_PAGES = MAX_CPUS * CpuMapEntry.SIZE // PAGE_SIZE
CPU_MAP_SLOT = TABLE_ENTRIES - CPU_MAP_PAGES
"""The CPU map stands at the end of the image's 2 MiB, mapped by the image's page table."""

IMAGE_MAX_BYTES = CPU_MAP_SLOT * PAGE_SIZE


@register_enum
class PrivatePage(IntEnum):
    """A CPU's private pages, in the order in which they lie in node memory."""

    PML4 = 0
    PDPT = 1
    PD = 2
    PT = 3
    STACK = 4
    INTERRUPT = 5
    GLOBALS = 6
    PRIVILEGED = 7
    DIAGNOSTIC = 8
    LOG = 9


@register_enum
class SharedPage(IntEnum):
    """A CPU's shared pages, in the order in which user space maps them."""

    COMMAND = 0
    REGISTER = 1


PRIVATE_PAGES = len(PrivatePage)
SHARED_PAGES = len(SharedPage)
PAGES_PER_CPU = PRIVATE_PAGES + SHARED_PAGES


class Source(IntEnum):
    """Where the physical page of a mapping comes from."""

    CONTROL = 0
    SHARED = 1
    PRIVATE = 2


@dataclass(frozen=True, slots=True)
class Mapping:
    """One page of a CPU's own 2 MiB: `symbol` names its address in the assembly; all are no-execute."""

    symbol: str
    slot: int
    source: Source
    index: int
    writable: bool
    doc: str

    @property
    def va(self) -> int:
        return PER_CPU_VA + self.slot * PAGE_SIZE


PER_CPU_MAP: tuple[Mapping, ...] = (
    Mapping("command_page", 3, Source.SHARED, SharedPage.COMMAND, True, "CommandPage"),
    Mapping("vp_globals", 4, Source.PRIVATE, PrivatePage.GLOBALS, True, "VpGlobals: who this CPU is, VP registers"),
    Mapping("control_page", 6, Source.CONTROL, 0, True, "ControlPage of the node"),
    Mapping("register_page", 7, Source.SHARED, SharedPage.REGISTER, True, "register page"),
    Mapping("privileged_page", 8, Source.PRIVATE, PrivatePage.PRIVILEGED, True, "PrivilegedPage"),
    Mapping("diagnostic_page", 9, Source.PRIVATE, PrivatePage.DIAGNOSTIC, True, "DiagnosticPage"),
    Mapping("log_page", 10, Source.PRIVATE, PrivatePage.LOG, True, "LogRing"),
    Mapping("interrupt_page", 509, Source.PRIVATE, PrivatePage.INTERRUPT, True, "InterruptPage; guard pages around"),
    Mapping("stack", 511, Source.PRIVATE, PrivatePage.STACK, True, "stack; guard page below"),
)

VP_TABLE_SLOT = 12
"""Slot of the per-CPU table that maps VpPage.TABLE as data, so that the CPU can fill it; empty without one."""

VP_VA = IMAGE_VA + PdSlot.VP * LARGE_PAGE

VP_MAP: tuple[tuple[str, int, VpPage, str], ...] = (
    ("vp_vmcb", 0, VpPage.VMCB, "Vmcb of the virtual processor"),
    ("vp_xsave", 1, VpPage.XSAVE, "its XSAVE image, three pages"),
)
"""What VpPage.TABLE maps: symbol, slot, page, what. VMRUN's and VMLOAD's pages of the sidecar are mapped nowhere."""


def vp_page_count(page: VpPage) -> int:
    """How many pages start at `page`."""
    return XSAVE_PAGES if page == VpPage.XSAVE else 1


GUEST_WINDOW_SLOT = 8
GUEST_WINDOWS = 8
"""Slots of VpPage.TABLE in which guest memory and nested page tables are mapped for a moment, page by page."""

CODE_WINDOW_SLOT = GUEST_WINDOW_SLOT + GUEST_WINDOWS
"""Slot of VpPage.TABLE that shows the page of guest code that was read last, while guest_generation stays."""

_slots = [mapping.slot for mapping in PER_CPU_MAP] + [VP_TABLE_SLOT]
if len(set(_slots)) != len(_slots):
    raise LayoutError(f"per-CPU slots overlap: {sorted(_slots)}")


def window_tables(cpu_count: int) -> int:
    """Page tables that the window onto a node of `cpu_count` CPUs needs."""
    return -(-(1 + PAGES_PER_CPU * cpu_count) // TABLE_ENTRIES)


if MAX_NODES + window_tables(MAX_CPUS) > WINDOW_SLOTS:
    raise LayoutError(f"windows of {MAX_CPUS} CPUs in {MAX_NODES} nodes need more than {WINDOW_SLOTS} slots")


def required_memory(cpu_count: int) -> int:
    """Bytes of node memory for `cpu_count` CPUs: control page, shared pages, private pages, window tables.

    >>> required_memory(32) // PAGE_SIZE
    386
    """
    return (1 + PAGES_PER_CPU * cpu_count + window_tables(cpu_count)) * PAGE_SIZE


def shared_pa(memory_base: int, index: int, page: SharedPage = SharedPage.COMMAND) -> int:
    """Physical address of a shared page of the node's CPU number `index`."""
    return memory_base + (1 + SHARED_PAGES * index + page) * PAGE_SIZE


def private_pa(memory_base: int, cpu_count: int, index: int, page: PrivatePage) -> int:
    """Physical address of a private page of the node's CPU number `index`."""
    return memory_base + (1 + SHARED_PAGES * cpu_count + PRIVATE_PAGES * index + page) * PAGE_SIZE


def absolute_symbols() -> dict[str, int]:
    """Addresses, relative to IMAGE_VA, of what lies outside the image and is referenced from its code."""
    symbols = {mapping.symbol: mapping.va - IMAGE_VA for mapping in PER_CPU_MAP}
    symbols |= {symbol: VP_VA + slot * PAGE_SIZE - IMAGE_VA for symbol, slot, _, _ in VP_MAP}
    return symbols | {
        "vp_table": PER_CPU_VA + VP_TABLE_SLOT * PAGE_SIZE - IMAGE_VA,
        "code_window": VP_VA + CODE_WINDOW_SLOT * PAGE_SIZE - IMAGE_VA,
        "guest_windows": VP_VA + GUEST_WINDOW_SLOT * PAGE_SIZE - IMAGE_VA,
        "per_cpu_pages": PER_CPU_VA - IMAGE_VA,
        "stack_end": symbols["stack"] + PAGE_SIZE,
        "cpu_map": CPU_MAP_SLOT * PAGE_SIZE,
        "node_windows": WINDOWS_VA - IMAGE_VA,
    }
