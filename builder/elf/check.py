"""What the loaders in machine code would refuse, refused on the host first, with a sentence each.

`check` holds the sidecar image to what the boot shim's loader relies on: it copies the file's beginning, clears
.bss, and calls the entry; the image applies its own relocations. `check_shim` holds the shim to QEMU and GRUB.
Every number is read from the file as the loader reads it; a truncated file is an ElfError, too.
"""

from collections.abc import Mapping, Sequence

from sidecar.builder.elf.constants import (
    ELF_MAGIC,
    IMAGE_LIMIT_BYTES,
    PAGE_BYTES,
    DynamicTag,
    ElfClass,
    ElfData,
    ElfType,
    ElfVersion,
    Machine,
    NoteType,
    RelocationType,
    SectionType,
    SegmentFlag,
    SegmentType,
)
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.multiboot2 import MULTIBOOT2_SEARCH_BYTES, find_multiboot1, find_multiboot2
from sidecar.builder.elf.notes import NOTE_ALIGN
from sidecar.builder.elf.structures import DYN, EHDR, NHDR, PHDR, RELA, SHDR

Fields = Mapping[str, int]


def check(data: bytes) -> None:
    """Raises ElfError, one sentence with field, expected and got in hex, unless `data` is a sound sidecar image."""
    header = _check_header(data, ElfType.ET_DYN)
    segments = _segments(data, header)
    loads = _check_loads(segments, base=0)
    end = loads[-1]["p_vaddr"] + loads[-1]["p_memsz"]
    if end > IMAGE_LIMIT_BYTES:
        raise ElfError(f"image size: expected at most {IMAGE_LIMIT_BYTES:#x} bytes with .bss, got {end:#x}")
    _check_entry("e_entry", header["e_entry"], loads)
    _check_relocations(data, segments, loads, image_end=end)


def check_shim(data: bytes) -> None:
    """Raises ElfError unless `data` is an ET_EXEC that QEMU (PVH) and GRUB (Multiboot2) take."""
    header = _check_header(data, ElfType.ET_EXEC)
    segments = _segments(data, header)
    loads = _check_loads(segments, base=_base(segments))
    _check_entry("e_entry", header["e_entry"], loads)
    _check_entry("PVH entry", _pvh_entry(data, segments), loads)
    if find_multiboot2(data) is None:
        raise ElfError(
            f"Multiboot2 header: expected one, 8-byte aligned, in the first {MULTIBOOT2_SEARCH_BYTES:#x} bytes, "
            f"got none"
        )
    if (found := find_multiboot1(data)) is not None:
        raise ElfError(f"Multiboot 1 magic: expected none, for QEMU would refuse the ELF64 file, got one at {found:#x}")
    for index in range(header["e_shnum"]):
        section = SHDR.parse(data, header["e_shoff"] + index * SHDR.size)
        # GRUB 2.06: "ELF files with relocs are not supported yet".
        _expect_not(f"section {index:#x} sh_type", section["sh_type"], SectionType.SHT_RELA, "which GRUB refuses")


def _base(segments: Sequence[Fields]) -> int:
    """The lowest loaded address."""
    return min((one["p_vaddr"] for one in segments if one["p_type"] == SegmentType.PT_LOAD), default=0)


def _check_header(data: bytes, elf_type: ElfType) -> Fields:
    header = EHDR.parse(data)
    for field, expected in (
        ("ei_mag", ELF_MAGIC),
        ("ei_class", ElfClass.ELFCLASS64),
        ("ei_data", ElfData.ELFDATA2LSB),
        ("ei_version", ElfVersion.EV_CURRENT),
        ("e_type", elf_type),
        ("e_machine", Machine.EM_X86_64),
        ("e_version", ElfVersion.EV_CURRENT),
        ("e_flags", 0),
        ("e_ehsize", EHDR.size),
        ("e_phentsize", PHDR.size),
        ("e_shentsize", SHDR.size),
    ):
        _expect(field, header[field], expected)
    return header


def _segments(data: bytes, header: Fields) -> list[Fields]:
    segments = [PHDR.parse(data, header["e_phoff"] + index * PHDR.size) for index in range(header["e_phnum"])]
    for index, segment in enumerate(segments):
        where = f"program header {index:#x}"
        end = segment["p_offset"] + segment["p_filesz"]
        if end > len(data):
            raise ElfError(f"{where} p_offset + p_filesz: expected at most the file size {len(data):#x}, got {end:#x}")
        both = SegmentFlag.PF_W | SegmentFlag.PF_X
        if segment["p_flags"] & both == both:
            raise ElfError(f"{where} p_flags: expected not both W and X, got {segment['p_flags']:#x}")
    return segments


def _check_loads(segments: Sequence[Fields], *, base: int) -> list[Fields]:
    """The PT_LOADs: page-aligned, ascending, apart, offset = distance from base, .bss only at the very end."""
    loads = [segment for segment in segments if segment["p_type"] == SegmentType.PT_LOAD]
    if not loads:
        raise ElfError(f"e_phnum: expected at least one PT_LOAD, got none among {len(segments):#x} program headers")
    previous_end = base
    for index, load in enumerate(loads):
        where = f"PT_LOAD {index:#x}"
        _expect(f"{where} p_align", load["p_align"], PAGE_BYTES)
        _expect(f"{where} p_vaddr modulo a page", load["p_vaddr"] % PAGE_BYTES, 0)
        _expect(f"{where} p_paddr", load["p_paddr"], load["p_vaddr"])
        _expect(f"{where} p_offset", load["p_offset"], load["p_vaddr"] - base)
        if load["p_vaddr"] < previous_end:
            raise ElfError(f"{where} p_vaddr: expected {previous_end:#x} or above, got {load['p_vaddr']:#x}")
        if load["p_memsz"] < load["p_filesz"] or load["p_memsz"] == 0:
            raise ElfError(
                f"{where} p_memsz: expected at least 0x1 and p_filesz {load['p_filesz']:#x}, got {load['p_memsz']:#x}"
            )
        if load is not loads[-1]:
            _expect(f"{where} p_memsz (only the last segment has .bss)", load["p_memsz"], load["p_filesz"])
        previous_end = load["p_vaddr"] + load["p_memsz"]
    return loads


def _check_entry(field: str, entry: int, loads: Sequence[Fields]) -> None:
    code = [load for load in loads if load["p_flags"] & SegmentFlag.PF_X]
    if not any(load["p_vaddr"] <= entry < load["p_vaddr"] + load["p_filesz"] for load in code):
        ranges = ", ".join(f"{load['p_vaddr']:#x}..{load['p_vaddr'] + load['p_filesz']:#x}" for load in code)
        raise ElfError(f"{field}: expected an address in an executable segment ({ranges or 'none'}), got {entry:#x}")


def _check_relocations(data: bytes, segments: Sequence[Fields], loads: Sequence[Fields], *, image_end: int) -> None:
    dynamic = _dynamic(data, segments)
    if DynamicTag.DT_TEXTREL in dynamic:
        raise ElfError("DT_TEXTREL: expected no relocation of read-only segments, got the tag")
    size = dynamic.get(DynamicTag.DT_RELASZ, 0)
    if not size:
        return
    _expect("DT_RELAENT", dynamic.get(DynamicTag.DT_RELAENT, 0), RELA.size)
    _expect("DT_RELASZ modulo DT_RELAENT", size % RELA.size, 0)
    _expect("DT_RELACOUNT", dynamic.get(DynamicTag.DT_RELACOUNT, 0), size // RELA.size)
    start = dynamic.get(DynamicTag.DT_RELA, 0)
    if not any(load["p_vaddr"] <= start and start + size <= load["p_vaddr"] + load["p_filesz"] for load in loads):
        raise ElfError(f"DT_RELA: expected a table inside a loaded segment, got {start:#x}..{start + size:#x}")
    writable = [load for load in loads if load["p_flags"] & SegmentFlag.PF_W]
    for offset in range(start, start + size, RELA.size):
        _check_relocation(RELA.parse(data, offset), offset, writable, image_end)


def _check_relocation(relocation: Fields, offset: int, writable: Sequence[Fields], image_end: int) -> None:
    where = f"relocation at offset {offset:#x}"
    _expect(f"{where} r_info", relocation["r_info"], RelocationType.R_X86_64_RELATIVE)
    target, addend = relocation["r_offset"], relocation["r_addend"]
    if not any(load["p_vaddr"] <= target and target + 8 <= load["p_vaddr"] + load["p_filesz"] for load in writable):
        raise ElfError(f"{where} r_offset: expected 8 bytes of a writable segment's file part, got {target:#x}")
    if not 0 <= addend <= image_end:
        raise ElfError(f"{where} r_addend: expected an address from 0x0 to {image_end:#x}, got {addend:#x}")


def _dynamic(data: bytes, segments: Sequence[Fields]) -> dict[int, int]:
    """Tags up to DT_NULL; an image without PT_DYNAMIC has nothing to relocate."""
    entries: dict[int, int] = {}
    for segment in segments:
        if segment["p_type"] == SegmentType.PT_DYNAMIC:
            end = segment["p_offset"] + segment["p_filesz"]
            for offset in range(segment["p_offset"], end, DYN.size):
                entry = DYN.parse(data, offset)
                if entry["d_tag"] == DynamicTag.DT_NULL:
                    return entries
                entries[entry["d_tag"]] = entry["d_un"]
            raise ElfError(f"PT_DYNAMIC: expected a DT_NULL before offset {end:#x}, got none")
    return entries


def _pvh_entry(data: bytes, segments: Sequence[Fields]) -> int:
    """The descriptor of the note QEMU looks for; it goes by the type alone."""
    for segment in segments:
        if segment["p_type"] != SegmentType.PT_NOTE:
            continue
        # QEMU divides by p_align, and takes it for the padding of name and descriptor.
        _expect("PT_NOTE p_align", segment["p_align"], NOTE_ALIGN)
        offset, end = segment["p_offset"], segment["p_offset"] + segment["p_filesz"]
        while offset < end:
            head = NHDR.parse(data, offset)
            descriptor = offset + NHDR.size + _padded(head["n_namesz"])
            if head["n_type"] == NoteType.XEN_ELFNOTE_PHYS32_ENTRY:
                if head["n_descsz"] not in (4, 8):
                    raise ElfError(f"PVH note n_descsz: expected 0x4 or 0x8, got {head['n_descsz']:#x}")
                return int.from_bytes(data[descriptor : descriptor + head["n_descsz"]], "little")
            offset = descriptor + _padded(head["n_descsz"])
    raise ElfError("PT_NOTE: expected a XEN_ELFNOTE_PHYS32_ENTRY note (type 0x12), got none")


def _padded(size: int) -> int:
    return -(-size // NOTE_ALIGN) * NOTE_ALIGN


def _expect(field: str, got: int, expected: int) -> None:
    if got != expected:
        raise ElfError(f"{field}: expected {int(expected):#x}, got {got:#x}")


def _expect_not(field: str, got: int, unwanted: int, reason: str) -> None:
    if got == unwanted:
        raise ElfError(f"{field}: expected anything but {int(unwanted):#x}, {reason}, got it")
