"""What an independent reader, pyelftools, sees in one of the project's ELF files.

Runs on the developer's machine, behind `sidecar dump image`. The tables' extents are checked first, because
pyelftools meets a truncated or inconsistent file with whatever exception its parser happens to end in.
"""

import io
from collections.abc import Iterator
from pathlib import Path

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection
from elftools.elf.segments import NoteSegment

from sidecar.builder.elf.constants import (
    ELF_MAGIC,
    ElfClass,
    ElfData,
    NoteType,
    RelocationType,
    SectionFlag,
    SectionType,
    SegmentFlag,
)
from sidecar.builder.elf.description import (
    Description,
    DynamicInfo,
    HeaderInfo,
    NoteInfo,
    RelocationInfo,
    SectionInfo,
    SegmentInfo,
    SymbolInfo,
)
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.structures import EHDR, PHDR, SHDR

SEGMENT_LETTERS = {SegmentFlag.PF_R: "R", SegmentFlag.PF_W: "W", SegmentFlag.PF_X: "X"}
SECTION_LETTERS = {SectionFlag.SHF_WRITE: "W", SectionFlag.SHF_ALLOC: "A", SectionFlag.SHF_EXECINSTR: "X"}

XEN_NOTES: dict[str | int, str] = {int(NoteType.XEN_ELFNOTE_PHYS32_ENTRY): NoteType.XEN_ELFNOTE_PHYS32_ENTRY.name}
"""pyelftools knows the types of the owner "GNU" only."""


def describe(source: Path | bytes) -> Description:
    """The description of a file or of bytes in memory.

    Raises ElfError, one sentence, when it is not an ELF64 file or is truncated or inconsistent; OSError when a
    path cannot be read.
    """
    name, data = (str(source), source.read_bytes()) if isinstance(source, Path) else ("image", source)
    try:
        _check_extents(data)
        return _describe(name, data)
    except ElfError as error:
        raise ElfError(f"{name}: {error}") from None
    except Exception as error:
        # The tables lie inside the file, but what they say cannot be followed; pyelftools has no common base
        # for that: KeyError, struct.error, UnicodeDecodeError, AssertionError and others have been seen.
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise ElfError(
            f"{name}: expected an ELF64 file that can be read to its end, got contents that contradict each other "
            f"({reason})"
        ) from error


def _check_extents(data: bytes) -> None:
    """Every header table, segment and section lies inside the file."""
    header = EHDR.parse(data)
    for field, expected in (
        ("ei_mag", ELF_MAGIC),
        ("ei_class", ElfClass.ELFCLASS64),
        ("ei_data", ElfData.ELFDATA2LSB),
        ("e_phentsize", PHDR.size),
    ):
        if header[field] != expected:
            raise ElfError(f"{field}: expected {int(expected):#x}, got {header[field]:#x}")
    for index in range(header["e_phnum"]):
        segment = PHDR.parse(data, header["e_phoff"] + index * PHDR.size)
        _check_extent(f"program header {index:#x}", segment["p_offset"], segment["p_filesz"], len(data))
    if header["e_shoff"] and header["e_shentsize"] != SHDR.size:
        raise ElfError(f"e_shentsize: expected {SHDR.size:#x}, got {header['e_shentsize']:#x}")
    if header["e_shoff"] and header["e_shstrndx"] >= header["e_shnum"]:
        raise ElfError(f"e_shstrndx: expected less than e_shnum {header['e_shnum']:#x}, got {header['e_shstrndx']:#x}")
    for index in range(header["e_shnum"]):
        section = SHDR.parse(data, header["e_shoff"] + index * SHDR.size)
        if section["sh_type"] not in (SectionType.SHT_NULL, SectionType.SHT_NOBITS):
            _check_extent(f"section header {index:#x}", section["sh_offset"], section["sh_size"], len(data))


def _check_extent(where: str, offset: int, size: int, file_bytes: int) -> None:
    if offset + size > file_bytes:
        raise ElfError(f"{where}: expected an end within the file's {file_bytes:#x} bytes, got {offset + size:#x}")


def _describe(name: str, data: bytes) -> Description:
    elf = ELFFile(io.BytesIO(data))
    sections = list(elf.iter_sections())
    notes = list(_notes(elf))
    pvh_entry = _descriptor(notes, NoteType.XEN_ELFNOTE_PHYS32_ENTRY)
    return Description(
        file=name,
        file_bytes=len(data),
        header=_header(elf),
        build_id=_descriptor(notes, NoteType.NT_GNU_BUILD_ID),
        pvh_entry=None if pvh_entry is None else int.from_bytes(bytes.fromhex(pvh_entry), "little"),
        segments=list(_segments(elf)),
        sections=[_section(section) for section in sections[1:]],
        relocations=list(_relocations(sections)),
        symbols=list(_symbols(sections)),
        notes=notes,
        dynamic=list(_dynamic(elf)),
    )


def _header(elf: ELFFile) -> HeaderInfo:
    return HeaderInfo(
        type=_name(elf["e_type"]),
        machine=_name(elf["e_machine"]),
        entry=elf["e_entry"],
        flags=elf["e_flags"],
        program_header_offset=elf["e_phoff"],
        program_header_count=elf["e_phnum"],
        section_header_offset=elf["e_shoff"],
        section_header_count=elf["e_shnum"],
    )


def _segments(elf: ELFFile) -> Iterator[SegmentInfo]:
    for segment in elf.iter_segments():
        flags = segment["p_flags"]
        yield SegmentInfo(
            type=_name(segment["p_type"]),
            flags="".join(letter for flag, letter in SEGMENT_LETTERS.items() if flags & flag),
            offset=segment["p_offset"],
            vaddr=segment["p_vaddr"],
            paddr=segment["p_paddr"],
            file_bytes=segment["p_filesz"],
            memory_bytes=segment["p_memsz"],
            align=segment["p_align"],
        )


def _section(section: Section) -> SectionInfo:
    flags = section["sh_flags"]
    return SectionInfo(
        name=section.name,
        type=_name(section["sh_type"]),
        flags="".join(letter for flag, letter in SECTION_LETTERS.items() if flags & flag),
        vaddr=section["sh_addr"],
        offset=section["sh_offset"],
        size=section["sh_size"],
        align=section["sh_addralign"],
    )


def _relocations(sections: list[Section]) -> Iterator[RelocationInfo]:
    names = {int(known): known.name for known in RelocationType}
    for section in sections:
        if isinstance(section, RelocationSection):
            for relocation in section.iter_relocations():
                number = relocation["r_info_type"]
                yield RelocationInfo(
                    section=section.name,
                    offset=relocation["r_offset"],
                    type=names.get(number, f"{number:#x}"),
                    addend=relocation["r_addend"] if relocation.is_RELA() else 0,
                )


def _symbols(sections: list[Section]) -> Iterator[SymbolInfo]:
    for table in sections:
        if isinstance(table, SymbolTableSection) and table["sh_type"] == "SHT_SYMTAB":
            for symbol in table.iter_symbols():
                if symbol.name:
                    index = symbol["st_shndx"]
                    yield SymbolInfo(
                        name=symbol.name,
                        section=sections[index].name if isinstance(index, int) else str(index),
                        value=symbol["st_value"],
                        size=symbol["st_size"],
                        type=_name(symbol["st_info"]["type"]),
                        binding=_name(symbol["st_info"]["bind"]),
                    )


def _notes(elf: ELFFile) -> Iterator[NoteInfo]:
    """By segment, as boot loaders find them."""
    for segment in elf.iter_segments():
        if isinstance(segment, NoteSegment):
            for note in segment.iter_notes():
                owner = note["n_name"] or ""
                names = XEN_NOTES if owner == "Xen" else {}
                yield NoteInfo(
                    owner=owner,
                    type=names.get(note["n_type"]) or _name(note["n_type"]),
                    descriptor=note["n_descdata"].hex(),
                )


def _descriptor(notes: list[NoteInfo], note_type: NoteType) -> str | None:
    return next((note["descriptor"] for note in notes if note["type"] == note_type.name), None)


def _dynamic(elf: ELFFile) -> Iterator[DynamicInfo]:
    for segment in elf.iter_segments():
        if isinstance(segment, DynamicSegment):
            for tag in segment.iter_tags():
                yield DynamicInfo(tag=_name(tag.entry.d_tag), value=tag.entry.d_val)


def _name(value: str | int) -> str:
    """pyelftools gives a known value's name, and an unknown one as a number."""
    return value if isinstance(value, str) else f"{value:#x}"
