"""ACPI tables as firmware makes them, in the emulated shim's memory: root pointer, root table, MADT and SRAT."""

from collections.abc import Iterable, Sequence

from sidecar.layout.acpi import MADT_ENTRIES_OFFSET, SRAT_ENTRIES_OFFSET, AcpiHeader, Rsdp
from tests.support.emulator import Emulator
from tests.unit.shim.helpers import RAM

ROOT, FIRST = RAM.start + 0x100, RAM.start + 0x1000
TABLE_BYTES = 0x4000
ENABLED = 1


def table(signature: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    """A table with the right checksum, or another one."""
    length = AcpiHeader.SIZE + len(body)
    data = bytearray(signature + length.to_bytes(4, "little") + bytes(AcpiHeader.SIZE - 8) + body)
    data[AcpiHeader.checksum] = -sum(data) % 256 if checksum is None else checksum
    return bytes(data)


def madt(entries: Iterable[bytes]) -> bytes:
    return table(b"APIC", bytes(MADT_ENTRIES_OFFSET - AcpiHeader.SIZE) + b"".join(entries))


def srat(entries: Iterable[bytes]) -> bytes:
    return table(b"SRAT", bytes(SRAT_ENTRIES_OFFSET - AcpiHeader.SIZE) + b"".join(entries))


def write_tables(shim: Emulator, tables: Sequence[bytes], *, wide: bool = False) -> None:
    """Put the tables into memory, with an XSDT (`wide`) or an RSDT that lists them, and find them."""
    places = [FIRST + number * TABLE_BYTES for number in range(len(tables))]
    for place, data in zip(places, tables, strict=True):
        shim.write(place, data)
    size = 8 if wide else 4
    pointers = b"".join(place.to_bytes(size, "little") for place in places)
    shim.write(ROOT, table(b"XSDT" if wide else b"RSDT", pointers))
    rsdp = RAM.start
    shim.write(rsdp, b"RSD PTR ")
    shim.write(rsdp + Rsdp.revision, 2 if wide else 0, size=1)
    shim.write(rsdp + Rsdp.rsdt_address, 0 if wide else ROOT, size=4)
    shim.write(rsdp + Rsdp.xsdt_address, ROOT if wide else 0)
    shim.write("rsdp_pa", rsdp)
    shim.call("find_acpi")
