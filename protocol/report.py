"""The parts of a live dump as plain data, for the machine as a whole, a node, or a CPU; `render` makes text of them.

Host side, read only. Pages are read one after the other while their owners may be writing: what a report shows is true
of each page, not of all of them at one moment, unless the machine is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from sidecar.layout import CpuPolicy, CpuStatus, PrivatePage, SharedPage
from sidecar.protocol import decode, decode_command, recorder
from sidecar.protocol.address_check import ImageSegment, differences, names_of
from sidecar.protocol.decode import Decoded, Resolver
from sidecar.protocol.machine import Cpu, Discovered
from sidecar.protocol.memory import Memory
from sidecar.protocol.page_tables import PageTableError, walk


class Section(StrEnum):
    """What `sidecar dump live` can be asked for."""

    CONTROL = "control"
    COMMAND = "command"
    BOOT = "boot"
    FAULT = "fault"
    LOG = "log"
    RECORDER = "recorder"
    PAGE_TABLES = "page-tables"


def overview(found: Discovered, memory: Memory) -> Decoded:
    """The machine: the SDCR table's fields, the nodes, and one entry per CPU with its state and boot time."""
    plain = ("sdcr_pa", "trampoline_pa", "image_pa", "image_bytes", "relay_pa", "tsc_khz", "missing_count")
    nodes = ("number", "control_pa", "shared_pa", "private_pa", "memory_bytes", "base_cpu", "cpu_count", "numa_node",
             "memory_numa_node")
    return {
        **{name: getattr(found, name) for name in plain},
        "first_init_to_all_idle_us": round(found.microseconds(found.all_idle_tsc), 3),
        "nodes": [{name: getattr(node, name) for name in nodes} for node in found.nodes],
        "cpus": [
            {
                **numbers(cpu),
                "numa_node": cpu.numa_node,
                "policy": decode.name_of(CpuPolicy, cpu.policy),
                "state": _state(found, memory, cpu),
                "boot_us": _boot_us(found, memory, cpu),
            }
            for cpu in found.cpus
        ],
    }


def numbers(cpu: Cpu) -> Decoded:
    """The four numbers of a CPU, always side by side."""
    return {"linux_number": cpu.linux_number, "apic_id": cpu.apic_id, "node": cpu.node, "index": cpu.index}


def _state(found: Discovered, memory: Memory, cpu: Cpu) -> str:
    """The status byte's name; `linux` for a CPU that the sidecar never started."""
    status = found.status(memory, cpu)
    if status is None or (status == CpuStatus.REMOVED and not cpu.is_sidecars):
        return "linux"
    return decode.name_of(CpuStatus, status)


def _boot_us(found: Discovered, memory: Memory, cpu: Cpu) -> float | None:
    """Microseconds from the first INIT to IDLE at the CPU's last arrival; None if it has not arrived."""
    if not cpu.is_sidecars:
        return None
    phases: dict[str, float | None] = _boot(found, memory, cpu)["phases"]
    return phases["idle"]


def section(
    wanted: Section,
    found: Discovered,
    memory: Memory,
    cpus: Sequence[Cpu],
    *,
    resolve: Resolver | None = None,
    segments: Sequence[ImageSegment] | None = None,
) -> list[Decoded]:
    """One part of the dump: an entry per CPU, of CONTROL one per node that has one of the CPUs.

    `resolve` names the routine of a fault's rip; `segments` are the image's, for the rights in PAGE_TABLES.
    Raises DiscoveryError for a CPU that belongs to no node.
    """
    if wanted is Section.CONTROL:
        return control(found, memory, cpus)

    def fault(found: Discovered, memory: Memory, cpu: Cpu) -> Decoded:
        page = found.read_private(memory, cpu, PrivatePage.DIAGNOSTIC)
        return decode.fault_record(page, resolve) | {"counters": decode.counters(page)}

    def page_tables(found: Discovered, memory: Memory, cpu: Cpu) -> Decoded:
        return _page_tables(found, memory, cpu, segments)

    of_cpu: dict[Section, Callable[[Discovered, Memory, Cpu], Decoded]] = {
        Section.COMMAND: _command,
        Section.BOOT: _boot,
        Section.FAULT: fault,
        Section.LOG: _log,
        Section.RECORDER: _recorder,
        Section.PAGE_TABLES: page_tables,
    }
    return [numbers(cpu) | of_cpu[wanted](found, memory, cpu) for cpu in cpus]


def control(found: Discovered, memory: Memory, cpus: Iterable[Cpu]) -> list[Decoded]:
    """The control pages of the nodes that the CPUs belong to."""
    nodes = sorted({found.place(cpu)[0].number for cpu in cpus})
    return [decode.control_page(found.read_control(memory, found.nodes[number])) for number in nodes]


def _command(found: Discovered, memory: Memory, cpu: Cpu) -> Decoded:
    return decode_command.command_page(found.read_shared(memory, cpu, SharedPage.COMMAND))


def _boot(found: Discovered, memory: Memory, cpu: Cpu) -> Decoded:
    page = found.read_private(memory, cpu, PrivatePage.DIAGNOSTIC)
    record = decode.boot_record(page, first_init_tsc=found.first_init_tsc, tsc_khz=found.tsc_khz)
    return {name: record[name] for name in ("arrivals", "started_by_it", "phases")} | {
        "found_apic_id": record["apic_id"], "found_linux_number": record["linux_number"],
    }


def _log(found: Discovered, memory: Memory, cpu: Cpu) -> Decoded:
    return decode.log_ring(found.read_private(memory, cpu, PrivatePage.LOG))


def _recorder(found: Discovered, memory: Memory, cpu: Cpu) -> Decoded:
    page = found.read_private(memory, cpu, PrivatePage.DIAGNOSTIC)
    return recorder.recorder(page, first_init_tsc=found.first_init_tsc, tsc_khz=found.tsc_khz)


def _page_tables(
    found: Discovered, memory: Memory, cpu: Cpu, segments: Sequence[ImageSegment] | None
) -> Decoded:
    """The mappings and what is wrong with them; tables that cannot be walked are a difference too."""
    root = found.private_page_pa(cpu, PrivatePage.PML4)
    try:
        ranges = list(walk(memory, root))
    except PageTableError as error:
        return {"root_pa": root, "ranges": [], "differences": [str(error)]}
    return {
        "root_pa": root,
        "ranges": [
            {"va": one.va, "pa": one.pa, "size": one.size, "rights": one.rights, "what": names_of(one)}
            for one in ranges
        ],
        "differences": differences(ranges, found, cpu, segments),
    }
