"""The Multiboot2 header, by which GRUB recognises the boot shim, and the search for Multiboot magics.

`multiboot2_header(0x201000)` makes 40 bytes:

    d6 50 52 e8  00 00 00 00  28 00 00 00  02 af ad 17   magic, i386, length, checksum
    03 00 00 00  0c 00 00 00  00 10 20 00  00 00 00 00   entry address tag, padded to 8
    00 00 00 00  08 00 00 00                             end tag

Ref: Multiboot2 Specification 2.0, section 3.1 "OS image format".
"""

from enum import IntEnum

from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.record import U16, U32, Record

MULTIBOOT2_SECTION = ".multiboot2"
MULTIBOOT2_MAGIC = 0xE852_50D6
MULTIBOOT2_ALIGN = 8
MULTIBOOT2_SEARCH_BYTES = 0x8000
"""The header lies 8-byte aligned and whole within the first 32 KiB. Ref: section 3.1.1."""

MULTIBOOT1_MAGIC = 0x1BAD_B002
MULTIBOOT1_ALIGN = 4
MULTIBOOT1_SEARCH_BYTES = 0x2000
"""QEMU looks for Multiboot 1 first, and refuses an ELF64 that has it even when a PVH note is there."""

_WORD = 1 << 32


class Architecture(IntEnum):
    """Ref: section 3.1.2, "The magic fields of Multiboot2 header"."""

    I386 = 0
    MIPS32 = 4


class TagType(IntEnum):
    """Ref: sections 3.1.3 to 3.1.11."""

    END = 0
    ENTRY_ADDRESS = 3
    MODULE_ALIGNMENT = 6


HEADER = Record(
    "Multiboot2 header",
    16,
    magic=U32,  # MULTIBOOT2_MAGIC
    architecture=U32,  # Architecture; I386 also for a 64-bit kernel: entered in 32-bit mode
    header_length=U32,  # bytes with all tags
    checksum=U32,  # makes the four words add up to 0
)
"""Ref: section 3.1.2, "The magic fields of Multiboot2 header"."""

TAG = Record(
    "Multiboot2 header tag",
    8,
    type=U16,  # TagType
    flags=U16,  # 0: the boot loader must understand the tag
    size=U32,  # bytes with these fields, without padding
)
"""A tag without content. Ref: sections 3.1.3, "General tag structure", and 3.1.11, "Module alignment tag"."""

ENTRY_ADDRESS_TAG = Record(
    "Multiboot2 entry address tag",
    12,
    type=U16,  # TagType.ENTRY_ADDRESS
    flags=U16,  # as in TAG
    size=U32,  # as in TAG
    entry_addr=U32,  # physical address of the 32-bit entry; GRUB prefers it to e_entry
)
"""Ref: section 3.1.6, "The entry address tag of Multiboot2 header"."""


def multiboot2_header(entry_pa: int, *, module_alignment: bool = False) -> bytes:
    """The header with an entry address tag and, if asked, the tag that wants modules on page boundaries.

    Raises ElfError when the entry is not a 32-bit physical address.
    """
    if not 0 <= entry_pa < _WORD:
        raise ElfError(f"Multiboot2 entry: expected a physical address below 0x100000000, got {entry_pa:#x}")
    entry = ENTRY_ADDRESS_TAG.build(
        type=TagType.ENTRY_ADDRESS, flags=0, size=ENTRY_ADDRESS_TAG.size, entry_addr=entry_pa
    )
    tags = entry + bytes(-len(entry) % MULTIBOOT2_ALIGN)
    if module_alignment:
        tags += TAG.build(type=TagType.MODULE_ALIGNMENT, flags=0, size=TAG.size)
    tags += TAG.build(type=TagType.END, flags=0, size=TAG.size)
    length = HEADER.size + len(tags)
    head = HEADER.build(
        magic=MULTIBOOT2_MAGIC,
        architecture=Architecture.I386,
        header_length=length,
        checksum=-(MULTIBOOT2_MAGIC + Architecture.I386 + length) % _WORD,
    )
    return head + tags


def find_multiboot2(data: bytes) -> int | None:
    """Offset of the header as a boot loader finds it: aligned magic, right checksum, whole in the first 32 KiB."""
    window = data[:MULTIBOOT2_SEARCH_BYTES]
    for offset in _magic_offsets(window, magic=MULTIBOOT2_MAGIC, align=MULTIBOOT2_ALIGN):
        if offset + HEADER.size > len(window):
            return None
        head = HEADER.parse(window, offset)
        if sum(head.values()) % _WORD == 0 and offset + head["header_length"] <= len(window):
            return offset
    return None


def find_multiboot1(data: bytes) -> int | None:
    """Offset of a Multiboot 1 magic where QEMU would take it for a header, or None."""
    window = data[:MULTIBOOT1_SEARCH_BYTES]
    return next(iter(_magic_offsets(window, magic=MULTIBOOT1_MAGIC, align=MULTIBOOT1_ALIGN)), None)


def _magic_offsets(window: bytes, *, magic: int, align: int) -> list[int]:
    wanted = magic.to_bytes(4, "little")
    return [offset for offset in range(0, len(window), align) if window[offset : offset + 4] == wanted]
