"""The header fields of an ELF64 file by name, to make one of them wrong.

Ref: System V gABI, chapter 4, "ELF Header"; chapter 5, "Program Header".
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    offset: int
    size: int


def _fields(**sizes: int) -> dict[str, Field]:
    fields, offset = {}, 0
    for name, size in sizes.items():
        fields[name] = Field(name, offset, size)
        offset += size
    return fields


EHDR: Final = _fields(
    ei_mag=4, ei_class=1, ei_data=1, ei_version=1, ei_osabi=1, ei_abiversion=1, ei_pad=7, e_type=2, e_machine=2,
    e_version=4, e_entry=8, e_phoff=8, e_shoff=8, e_flags=4, e_ehsize=2, e_phentsize=2, e_phnum=2, e_shentsize=2,
    e_shnum=2, e_shstrndx=2,
)  # fmt: skip
PHDR: Final = _fields(p_type=4, p_flags=4, p_offset=8, p_vaddr=8, p_paddr=8, p_filesz=8, p_memsz=8, p_align=8)

EHDR_BYTES: Final = 64
PHDR_BYTES: Final = 56


def number(data: bytes, field: Field, start: int = 0) -> int:
    """The value of a field of the structure at `start`."""
    return int.from_bytes(data[start + field.offset : start + field.offset + field.size], "little")


def segments(data: bytes) -> list[dict[str, int]]:
    """Every program header."""
    start, count = number(data, EHDR["e_phoff"]), number(data, EHDR["e_phnum"])
    return [
        {name: number(data, field, start + index * PHDR_BYTES) for name, field in PHDR.items()}
        for index in range(count)
    ]


def change(data: bytes, field: Field, value: int, *, segment: int | None = None) -> bytes:
    """The file with another value in a field of its header, or of program header number `segment`."""
    start = 0 if segment is None else EHDR_BYTES + segment * PHDR_BYTES
    at = start + field.offset
    return data[:at] + (value % (1 << 8 * field.size)).to_bytes(field.size, "little") + data[at + field.size :]
