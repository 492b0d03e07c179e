"""ACPI tables: those the shim reads (RSDP, MADT, SRAT) and the one it publishes, SDCR.

Ref: ACPI specification 6.5, chapters 5.2.5 (RSDP), 5.2.6 (header), 5.2.12 (MADT), 5.2.16 (SRAT).
"""

from __future__ import annotations

from enum import IntEnum

from sidecar.layout.parts import Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from sidecar.layout.schema import Layout

AcpiHeader = Layout(
    "AcpiHeader",
    Struct(
        "signature" / Bytes(4) * "four letters",
        "length" / Int32ul * "bytes of the whole table",
        "revision" / Int8ul * "revision of the table",
        "checksum" / Int8ul * "makes all bytes sum to 0",
        "oem_id" / Bytes(6) * "who made it",
        "oem_table_id" / Bytes(8) * "which one",
        "oem_revision" / Int32ul * "maker's revision",
        "creator_id" / Bytes(4) * "tool",
        "creator_revision" / Int32ul * "tool's revision",
    ),
    size=36,
    align=4,
    doc="Head of every system description table.",
)

Rsdp = Layout(
    "Rsdp",
    Struct(
        "signature" / Bytes(8) * "'RSD PTR '",
        "checksum" / Int8ul * "makes the first 20 bytes sum to 0",
        "oem_id" / Bytes(6) * "who made it",
        "revision" / Int8ul * "2 if the extended part is there",
        "rsdt_address" / Int32ul * "RSDT, 32-bit pointers",
        "length" / Int32ul * "bytes of this structure",
        "xsdt_address" / Int64ul * "XSDT, 64-bit pointers",
        "extended_checksum" / Int8ul * "makes all bytes sum to 0",
        "reserved_21" / Bytes(3) * "zero",
    ),
    size=36,
    doc="Root pointer.",
)


class MadtType(IntEnum):
    """Ref: ACPI 5.2.12, table 5.21."""

    LOCAL_APIC = 0
    IO_APIC = 1
    LOCAL_X2APIC = 9


class SratType(IntEnum):
    """Ref: ACPI 5.2.16, table 5.56."""

    LOCAL_APIC_AFFINITY = 0
    MEMORY_AFFINITY = 1
    LOCAL_X2APIC_AFFINITY = 2


MadtLocalApic = Layout(
    "MadtLocalApic",
    Struct(
        "type" / Int8ul * "0",
        "length" / Int8ul * "8",
        "processor_uid" / Int8ul * "ACPI processor UID",
        "apic_id" / Int8ul * "local APIC id",
        "flags" / Int32ul * "bit 0: enabled",
    ),
    size=8,
    align=4,
    doc="MADT: processor local APIC.",
)

MadtIoApic = Layout(
    "MadtIoApic",
    Struct(
        "type" / Int8ul * "1",
        "length" / Int8ul * "12",
        "io_apic_id" / Int8ul * "id",
        "reserved_3" / Int8ul * "zero",
        "address" / Int32ul * "physical address of its registers",
        "gsi_base" / Int32ul * "first global system interrupt",
    ),
    size=12,
    align=4,
    doc="MADT: I/O APIC.",
)

MadtLocalX2Apic = Layout(
    "MadtLocalX2Apic",
    Struct(
        "type" / Int8ul * "9",
        "length" / Int8ul * "16",
        "reserved_2" / Int16ul * "zero",
        "x2apic_id" / Int32ul * "local x2APIC id",
        "flags" / Int32ul * "bit 0: enabled",
        "processor_uid" / Int32ul * "ACPI processor UID",
    ),
    size=16,
    align=4,
    doc="MADT: processor local x2APIC.",
)

SratLocalApic = Layout(
    "SratLocalApic",
    Struct(
        "type" / Int8ul * "0",
        "length" / Int8ul * "16",
        "proximity_low" / Int8ul * "proximity domain, bits 0 to 7",
        "apic_id" / Int8ul * "local APIC id",
        "flags" / Int32ul * "bit 0: enabled",
        "sapic_eid" / Int8ul * "unused",
        "proximity_high" / Bytes(3) * "proximity domain, bits 8 to 31",
        "clock_domain" / Int32ul * "clock domain",
    ),
    size=16,
    align=4,
    doc="SRAT: processor local APIC affinity.",
)

SRAT_MEMORY_ENTRY_BYTES = 40
"""Bytes of an SRAT memory affinity structure."""

SratMemory = IntEnum("SratMemory", {"proximity": 2, "base": 8, "length": 16, "flags": 28})
"""Byte offsets in the SRAT's memory affinity structure; its fields are not naturally aligned. Ref: ACPI 5.2.16.2."""

SratLocalX2Apic = Layout(
    "SratLocalX2Apic",
    Struct(
        "type" / Int8ul * "2",
        "length" / Int8ul * "24",
        "reserved_2" / Int16ul * "zero",
        "proximity" / Int32ul * "proximity domain",
        "x2apic_id" / Int32ul * "local x2APIC id",
        "flags" / Int32ul * "bit 0: enabled",
        "clock_domain" / Int32ul * "clock domain",
        "reserved_14" / Int32ul * "zero",
    ),
    size=24,
    align=4,
    doc="SRAT: processor local x2APIC affinity.",
)

MADT_ENTRIES_OFFSET = 44
FADT_PM_TIMER_BLOCK = 76
"""Offset of PM_TMR_BLK in the FADT: the timer's I/O port. Ref: ACPI 5.2.9."""
SRAT_ENTRIES_OFFSET = 48

SDCR_REVISION = 1

Sdcr = Layout(
    "Sdcr",
    Struct(
        "header" / Bytes(36) * "AcpiHeader with signature SDCR",
        "abi_version" / Int32ul * "ABI_VERSION",
        "abi_hash" / Int64ul * "ABI hash",
        "node_count" / Int32ul * "SdcrNode entries",
        "node_offset" / Int32ul * "their offset in the table",
        "cpu_count" / Int32ul * "CpuMapEntry entries, every CPU of the machine",
        "cpu_offset" / Int32ul * "their offset in the table",
        "trampoline_pa" / Int64ul * "page for SIPI, by which a CPU comes back",
        "image_pa" / Int64ul * "physical address of the sidecar image",
        "image_bytes" / Int64ul * "its bytes",
        "relay_pa" / Int64ul * "RelayPage, 0 where Linux runs",
        "tsc_khz" / Int32ul * "TSC ticks per millisecond",
        "missing_count" / Int32ul * "CPUs that did not start",
        "shim_entry_tsc" / Int64ul * "TSC at the shim's entry",
        "sidecar_entry_tsc" / Int64ul * "TSC when the sidecar was called",
        "first_init_tsc" / Int64ul * "TSC before the first INIT",
        "all_idle_tsc" / Int64ul * "TSC when the last CPU was idle",
        "hand_over_tsc" / Int64ul * "TSC when the shim was done",
    ),
    size=0x90,
    doc="Shim to driver and tools: where everything is. Ref: ACPI 5.2.6 for the header.",
)

SdcrNode = Layout(
    "SdcrNode",
    Struct(
        "control_pa" / Int64ul * "control page",
        "shared_pa" / Int64ul * "shared pages: command and register page of each CPU",
        "private_pa" / Int64ul * "private pages, PRIVATE_PAGES of each CPU",
        "memory_bytes" / Int64ul * "bytes of the node's memory, from the control page on",
        "base_cpu" / Int32ul * "Linux number of the first CPU",
        "cpu_count" / Int32ul * "CPUs",
        "numa_node" / Int32ul * "proximity domain of its CPUs",
        "memory_numa_node" / Int32ul * "proximity domain of its memory",
    ),
    size=48,
    doc="One node in the SDCR table.",
)


def signature(text: str) -> int:
    """Four or eight letters as the number they are in memory.

    >>> hex(signature("SDCR"))
    '0x52434453'
    """
    return int.from_bytes(text.encode(), "little")


RSDP_SIGNATURE = signature("RSD PTR ")
MADT_SIGNATURE = signature("APIC")
SRAT_SIGNATURE = signature("SRAT")
FADT_SIGNATURE = signature("FACP")
XSDT_SIGNATURE = signature("XSDT")
SDCR_SIGNATURE = signature("SDCR")
OEM_ID_LOW = signature("SIDE")
OEM_ID_HIGH = signature("CR")
OEM_TABLE_ID = signature("SIDECAR ")
