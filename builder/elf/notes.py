"""ELF notes: the GNU build id and the PVH entry point.

A PVH note, as `pvh_note(0x201000)` makes it:

    04 00 00 00  08 00 00 00  12 00 00 00   name 4 bytes, descriptor 8 bytes, type 18
    58 65 6e 00                             "Xen"
    00 10 20 00  00 00 00 00                physical address of the 32-bit entry

Ref: gABI chapter 5, "Note Section"; Xen `docs/misc/pvh.pandoc` and `public/elfnote.h`.
"""

import hashlib

from sidecar.builder.elf.constants import NoteType
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.structures import NHDR

NOTE_ALIGN = 4
"""Name and descriptor are padded to 4. QEMU takes p_align for that padding: 8 makes it read a wrong entry."""

BUILD_ID_SECTION = ".note.gnu.build-id"
PVH_SECTION = ".note.Xen"
BUILD_ID_BYTES = hashlib.sha1(usedforsecurity=False).digest_size


def note(owner: str, note_type: NoteType, descriptor: bytes) -> bytes:
    """One note, padded to a multiple of 4 bytes."""
    name = owner.encode("ascii") + b"\0"
    head = NHDR.build(n_namesz=len(name), n_descsz=len(descriptor), n_type=note_type)
    return head + _padded(name) + _padded(descriptor)


def build_id_note(build_id: bytes = bytes(BUILD_ID_BYTES)) -> bytes:
    """The content of .note.gnu.build-id; without an argument the zeroed form over which the id is computed."""
    return note("GNU", NoteType.NT_GNU_BUILD_ID, build_id)


def pvh_note(entry_pa: int) -> bytes:
    """The content of .note.Xen: QEMU enters at this physical address in 32-bit protected mode, paging off.

    Raises ElfError when 32-bit code cannot be at that address.
    """
    if not 0 <= entry_pa < 1 << 32:
        raise ElfError(f"PVH entry: expected a physical address below 0x100000000, got {entry_pa:#x}")
    return note("Xen", NoteType.XEN_ELFNOTE_PHYS32_ENTRY, entry_pa.to_bytes(8, "little"))


def stamp_build_id(image: bytearray, *, note_offset: int) -> None:
    """Replace the zeroed id in the build-id note at `note_offset` by the SHA-1 over the whole file as it is."""
    digest = hashlib.sha1(image, usedforsecurity=False).digest()
    image[note_offset : note_offset + BUILD_ID_NOTE_BYTES] = build_id_note(digest)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % NOTE_ALIGN)


PVH_NOTE_BYTES = len(pvh_note(0))
BUILD_ID_NOTE_BYTES = len(build_id_note())
