"""What a loader needs of an ELF file: its entry, and its segments by physical address.

Ref: System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sidecar.client.vmm.errors import BadImage

MAGIC = b"\x7fELF"
PT_LOAD = 1
HEADERS = {1: "<16xHHIIIIIHHH", 2: "<16xHHIQQQIHHH"}
"""By EI_CLASS: e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum."""

SEGMENTS = {1: "<IIIIIIII", 2: "<IIQQQQQQ"}
MACHINES = {3: "i386", 62: "x86-64"}


@dataclass(frozen=True, slots=True)
class ElfSegment:
    """`data` at physical address pa, and zeros up to `size` bytes."""

    pa: int
    va: int
    data: bytes
    size: int


@dataclass(frozen=True, slots=True)
class ElfImage:
    """entry: as the file has it, a virtual address."""

    entry: int
    segments: tuple[ElfSegment, ...]

    @property
    def entry_pa(self) -> int:
        """The entry as a physical address."""
        for segment in self.segments:
            if segment.va <= self.entry < segment.va + segment.size:
                return self.entry - segment.va + segment.pa
        return self.entry


def read_elf(data: bytes) -> ElfImage:
    """Raises BadImage."""
    if data[:4] != MAGIC or len(data) < 0x40:
        raise BadImage("the file is no ELF file")
    kind, order = data[4], data[5]
    if kind not in HEADERS or order != 1:
        raise BadImage(f"the ELF file has class {kind} and byte order {order}: expected 1 or 2, and 1")
    _, machine, _, entry, table, _, _, _, stride, count = struct.unpack_from(HEADERS[kind], data)
    if machine not in MACHINES:
        raise BadImage(f"the ELF file is for machine {machine}, expected {' or '.join(map(str, MACHINES))}")
    try:
        found = [_segment(data, kind, table + stride * number) for number in range(count)]
    except struct.error as error:
        raise BadImage(f"the ELF file's program headers reach beyond its end: {error}") from error
    segments = tuple(segment for segment in found if segment is not None)
    if not segments:
        raise BadImage("the ELF file has nothing to load")
    return ElfImage(entry, segments)


def _segment(data: bytes, kind: int, offset: int) -> ElfSegment | None:
    values = struct.unpack_from(SEGMENTS[kind], data, offset)
    if values[0] != PT_LOAD:
        return None
    start, va, pa, file_size, size = values[1:6] if kind == 1 else values[2:7]
    if start + file_size > len(data) or file_size > size:
        raise BadImage(f"the ELF file's segment for {pa:#x} has {file_size:#x} bytes, which are not in the file")
    return ElfSegment(pa, va, data[start : start + file_size], size) if size else None
