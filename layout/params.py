"""What the shim gives to the sidecar's entry, and what it gets back: the params and output pages, and the CPU map.

The shim writes SidecarParams and the CPU map before the call; the sidecar writes SidecarOutput during it.
Ref: OpenHCL `sidecar_defs` (offsets below 0xDA8 and 0xD00 are upstream's; the tails are this project's).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from sidecar.layout.abi import MAX_NODES
from sidecar.layout.parts import Array, Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import PAGE_SIZE, Layout, register_enum, values_of

PerCpuState = Layout(
    "PerCpuState",
    Struct(
        "per_cpu_state_specified" / Int8ul * "upstream: sidecar_starts_cpu is valid; must be 0, the CPU map rules",
        "sidecar_starts_cpu" / Array(400, Int8ul) * "upstream: 1 where the sidecar starts the CPU; not used",
    ),
    size=401,
    align=1,
    doc="Upstream's selection of CPUs, limited to 400; the policy in the CPU map replaces it.",
)

SidecarNodeParams = Layout(
    "SidecarNodeParams",
    Struct(
        "memory_base" / Int64ul * "physical address of the node's memory, page aligned",
        "memory_size" / Int64ul * "its bytes, at least required_memory(vp_count)",
        "base_vp" / Int32ul * "Linux number of the node's first CPU",
        "vp_count" / Int32ul * "CPUs of the node, the first one included",
    ),
    size=24,
    doc="One node as the shim split it.",
)


@register_enum
class CpuPolicy(IntEnum):
    """Who starts a CPU."""

    SIDECAR = 0
    LINUX = 1


CpuMapEntry = Layout(
    "CpuMapEntry",
    Struct(
        "apic_id" / Int32ul * "x2APIC id, as CPUID leaf 0xB reports it",
        "linux_number" / Int32ul * "number Linux will give: the boot CPU is 0, then MADT order; equals the index",
        "node" / Int16ul * "sidecar node, 0xFFFF if the CPU belongs to none",
        "numa_node" / Int16ul * "proximity domain of the SRAT, 0 without one",
        "policy" / values_of(CpuPolicy, Int32ul) * "who starts it",
    ),
    size=16,
    align=4,
    doc="One CPU of the machine; the map's index is the Linux number.",
)

NO_NODE = 0xFFFF


class ParamsFlags(IntFlag):
    """SidecarParams.flags."""

    ALLOW_RAISE = 1
    """The RAISE command may raise faults on purpose: a machine for tests."""
    SERIAL_UNTIL_RETURN = 2
    """The serial log ends when the entry returns: then the port is Linux's."""
    FAN_OUT = 4
    """Each arriving CPU starts another one."""


SidecarParams = Layout(
    "SidecarParams",
    Struct(
        "hypercall_page" / Int64ul * "upstream: hypercall page; must be 0, there is no hypervisor interface",
        "enable_logging" / Int8ul * "1: the sidecar logs each request to log_port as well as to the log rings",
        "reserved_9" / Bytes(3) * "zero",
        "node_count" / Int32ul * "valid entries of nodes, 1 to 128",
        "nodes" / Array(MAX_NODES, SidecarNodeParams.struct) * "the nodes",
        "initial_state" / PerCpuState.struct * "upstream's selection of CPUs, not used",
        "reserved_da1" / Bytes(7) * "zero",
        "abi_version" / Int32ul * "ABI_VERSION of the shim",
        "flags" / Int32ul * "ParamsFlags",
        "abi_hash" / Int64ul * "ABI hash of the shim",
        "cpu_map_pa" / Int64ul * "physical address of the CPU map, page aligned",
        "cpu_map_count" / Int32ul * "entries of the CPU map, 2 to 2048",
        "tsc_khz" / Int32ul * "TSC ticks per millisecond",
        "trampoline_pa" / Int64ul * "free page below 1 MiB for the AP trampoline",
        "sdcr_pa" / Int64ul * "where the shim will publish the SDCR table, copied to the trampoline page's anchor",
        "log_port" / Int16ul * "I/O base of the 16550 for enable_logging, 0 for none",
        "reserved_dda" / Bytes(2) * "zero",
        "start_timeout_ms" / Int32ul * "without any CPU arriving for so long, the missing ones are started again",
        "reserved_de0" / Bytes(PAGE_SIZE - 0xDE0) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Shim to sidecar: what to start, where, with which memory.",
)

CommandError = Layout(
    "CommandError",
    Struct(
        "length" / Int8ul * "bytes of the sentence",
        "text" / Bytes(255) * "UTF-8",
    ),
    size=256,
    align=1,
    doc="One sentence about what went wrong.",
)

SidecarNodeOutput = Layout(
    "SidecarNodeOutput",
    Struct(
        "control_page" / Int64ul * "physical address of the node's control page",
        "shmem_pages_base" / Int64ul * "physical address of the shared pages: command and register page of each CPU",
        "shmem_pages_size" / Int64ul * "their bytes: vp_count * 8192",
    ),
    size=24,
    doc="Where the sidecar put a node's pages.",
)

MISSING_LISTED = 64

SidecarOutput = Layout(
    "SidecarOutput",
    Struct(
        "error" / CommandError.struct * "meaningful only if the entry returned false",
        "nodes" / Array(MAX_NODES, SidecarNodeOutput.struct) * "the nodes, in the order of SidecarParams.nodes",
        "abi_version" / Int32ul * "ABI_VERSION of the sidecar",
        "faulted_count" / Int32ul * "CPUs that faulted during their arrival; their fault records say why",
        "abi_hash" / Int64ul * "ABI hash of the sidecar",
        "image_pa" / Int64ul * "physical address of the running image",
        "image_bytes" / Int64ul * "its bytes with .bss",
        "entry_tsc" / Int64ul * "TSC when the entry was called",
        "first_init_tsc" / Int64ul * "TSC before the first INIT",
        "all_idle_tsc" / Int64ul * "TSC when the last CPU was seen idle",
        "started_count" / Int32ul * "CPUs that reached IDLE",
        "missing_count" / Int32ul * "CPUs that did not, within three attempts",
        "missing_apic_ids" / Array(MISSING_LISTED, Int32ul) * "x2APIC ids of the first 64 of them",
        "reserved_e40" / Bytes(PAGE_SIZE - 0xE40) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Sidecar to shim: the answer of the entry.",
)
