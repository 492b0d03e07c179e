"""What exists only at boot and for the host: trampoline page, boot bundle, PVH start info, the relay's page."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from sidecar.layout.parts import Array, Bytes, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import PAGE_SIZE, Layout, register_enum, values_of

TRAMPOLINE_MAGIC = 0x504D415254524353
"""'SCRTRAMP' in memory."""

TrampolinePage = Layout(
    "TrampolinePage",
    Struct(
        "code" / Bytes(0xE00) * "the trampoline, entered by SIPI at offset 0 in real mode",
        "gdt" / Array(4, Int64ul) * "null, 64-bit code, data, unused",
        "gdt_limit" / Int16ul * "pseudo-descriptor for LGDT: limit",
        "gdt_base_low" / Int16ul * "pseudo-descriptor: base bits 0 to 15",
        "gdt_base_high" / Int16ul * "pseudo-descriptor: base bits 16 to 31",
        "reserved_e26" / Int16ul * "zero",
        "long_mode_offset" / Int32ul * "far pointer to the 64-bit part: offset",
        "long_mode_selector" / Int16ul * "far pointer: selector",
        "reserved_e2e" / Int16ul * "zero",
        "transition_cr3" / Int64ul * "root of the transition page tables, below 4 GiB",
        "arrive_va" / Int64ul * "virtual address of `arrive` in the image",
        "reserved_e40" / Bytes(0xF00 - 0xE40) * "zero",
        "magic" / Int64ul * "TRAMPOLINE_MAGIC: the anchor by which a tool finds everything",
        "abi_version" / Int32ul * "ABI_VERSION of the sidecar",
        "reserved_f0c" / Int32ul * "zero",
        "abi_hash" / Int64ul * "ABI hash of the sidecar",
        "sdcr_pa" / Int64ul * "physical address of the SDCR table",
        "reserved_f20" / Bytes(PAGE_SIZE - 0xF20) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Sidecar to arriving CPUs and tools: read by any number of CPUs at once, written once, before the first INIT.",
)

BUNDLE_MAGIC = 0x454C444E55424353
"""'SCBUNDLE' in memory."""


@register_enum
class BundleKind(IntEnum):
    """What a part of the bundle is."""

    END = 0
    SIDECAR = 1
    LINUX = 2
    INITRAMFS = 3
    COMMAND_LINE = 4


BundlePart = Layout(
    "BundlePart",
    Struct(
        "kind" / values_of(BundleKind, Int32ul) * "what it is",
        "checksum" / Int32ul * "sum of the part's u32 words, padded with zeros to a multiple of 4, modulo 2^32",
        "offset" / Int64ul * "from the bundle's start, page aligned",
        "size" / Int64ul * "bytes",
    ),
    size=24,
    doc="One part of the boot bundle.",
)

BUNDLE_PARTS = 8

Bundle = Layout(
    "Bundle",
    Struct(
        "magic" / Int64ul * "BUNDLE_MAGIC",
        "abi_version" / Int32ul * "ABI_VERSION of the builder",
        "part_count" / Int32ul * "valid entries of parts, 1 to 8",
        "abi_hash" / Int64ul * "ABI hash of the builder",
        "total_bytes" / Int64ul * "size of the whole bundle",
        "parts" / Array(BUNDLE_PARTS, BundlePart.struct) * "the parts",
        "reserved_e0" / Bytes(PAGE_SIZE - 0xE0) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Host tools to shim: head of the boot bundle, which QEMU loads by -initrd.",
)

HvmStartInfo = Layout(
    "HvmStartInfo",
    Struct(
        "magic" / Int32ul * "0x336EC578",
        "version" / Int32ul * "1 if the memory map is given",
        "flags" / Int32ul * "SIF_ flags",
        "nr_modules" / Int32ul * "entries of the module list",
        "modlist_paddr" / Int64ul * "module list",
        "cmdline_paddr" / Int64ul * "command line, zero terminated",
        "rsdp_paddr" / Int64ul * "ACPI RSDP",
        "memmap_paddr" / Int64ul * "memory map",
        "memmap_entries" / Int32ul * "entries of the memory map",
        "reserved_34" / Int32ul * "zero",
    ),
    size=56,
    doc="PVH entry: what EBX points at. Ref: Xen public headers, arch-x86/hvm/start_info.h.",
)

HVM_START_MAGIC = 0x336EC578

HvmModule = Layout(
    "HvmModule",
    Struct(
        "paddr" / Int64ul * "physical address",
        "size" / Int64ul * "bytes",
        "cmdline_paddr" / Int64ul * "its command line",
        "reserved_18" / Int64ul * "zero",
    ),
    size=32,
    doc="PVH module list entry.",
)

HvmMemoryMapEntry = Layout(
    "HvmMemoryMapEntry",
    Struct(
        "addr" / Int64ul * "start",
        "size" / Int64ul * "bytes",
        "type" / Int32ul * "E820 type; 1 is RAM",
        "reserved_14" / Int32ul * "zero",
    ),
    size=24,
    doc="PVH memory map entry.",
)

MultibootInfo = IntEnum("MultibootInfo", {"MULTIBOOT2_MAGIC": 0x36D76289})
"""What EAX holds at a multiboot2 entry. Ref: Multiboot2 specification 3.2."""

RELAY_MAGIC = 0x59414C4552524353
"""'SCRRELAY' in memory."""

RELAY_RING = 256


class RelayFlags(IntFlag):
    """RelayPage.flags."""

    READY = 1


RelayPage = Layout(
    "RelayPage",
    Struct(
        "magic" / Int64ul * "RELAY_MAGIC, written by the shim",
        "flags" / Int32ul * "RelayFlags, written by the shim",
        "response_vector" / Int32ul * "vector on the boot CPU that the shim counts, written by the shim",
        "bsp_apic_id" / Int32ul * "x2APIC id of the boot CPU, written by the shim",
        "tail" / Int32ul * "ring entries consumed, modulo 2^32, written by the shim",
        "responses" / Int64ul * "response interrupts taken, written by the shim",
        "wakeups" / Int64ul * "interrupts of the kick UART, written by the shim",
        "reserved_28" / Bytes(24) * "zero",
        "head" / Int32ul * "ring entries produced, modulo 2^32, written by the host",
        "reserved_44" / Bytes(60) * "zero",
        "ring" / Array(RELAY_RING, Int64ul) * "x2APIC ICR values to send, written by the host",
        "reserved_880" / Bytes(PAGE_SIZE - 0x880) * "zero",
    ),
    size=PAGE_SIZE,
    align=PAGE_SIZE,
    doc="Host and the shim's relay: interrupt commands to send on the host's behalf.",
)
