"""Where everything in an ELF file lies: decided from names, sizes and kinds, before a byte is known.

Addresses must be known before the machine code is linked, hence two steps: a plan, then `write_elf`.
Both plans put the headers first and give each set of access rights whole pages of its own:

    R      headers, notes, (.hash .dynsym .dynstr .rela.dyn), read-only data
    RX     text
    RW     relocated constants, made read-only after relocation (PT_GNU_RELRO), whole pages
    RW     (.dynamic), data, .bss at the end

The distance from the file's start equals the distance from the base address for every loaded byte, so that a
loader copies `loaded_file_bytes` bytes in one go and clears the rest up to `memory_bytes`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, auto

from sidecar.builder.elf.constants import PAGE_BYTES, ElfType, SectionFlag, SectionType, SegmentFlag
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.multiboot2 import MULTIBOOT2_ALIGN, MULTIBOOT2_SEARCH_BYTES, MULTIBOOT2_SECTION
from sidecar.builder.elf.notes import BUILD_ID_NOTE_BYTES, BUILD_ID_SECTION, NOTE_ALIGN
from sidecar.builder.elf.structures import DYN, EHDR, HASH, PHDR, RELA, SYM

DYNSTR = b"\0"
DYNAMIC_ENTRIES = 6
"""DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_NULL."""
DYNAMIC_ENTRIES_WITH_RELOCATIONS = DYNAMIC_ENTRIES + 4
"""And DT_RELA, DT_RELASZ, DT_RELAENT, DT_RELACOUNT."""


class SectionKind(IntEnum):
    """What a section holds; decides its segment, and in this order its place in the file."""

    NOTE = auto()
    RODATA = auto()
    TEXT = auto()
    RELRO = auto()
    DATA = auto()
    BSS = auto()


class SegmentKind(IntEnum):
    """The loaded segments in file order."""

    READ = auto()
    EXECUTE = auto()
    RELRO = auto()
    WRITE = auto()


SEGMENT_OF = {
    SectionKind.NOTE: SegmentKind.READ,
    SectionKind.RODATA: SegmentKind.READ,
    SectionKind.TEXT: SegmentKind.EXECUTE,
    SectionKind.RELRO: SegmentKind.RELRO,
    SectionKind.DATA: SegmentKind.WRITE,
    SectionKind.BSS: SegmentKind.WRITE,
}

SEGMENT_FLAGS = {
    SegmentKind.READ: SegmentFlag.PF_R,
    SegmentKind.EXECUTE: SegmentFlag.PF_R | SegmentFlag.PF_X,
    SegmentKind.RELRO: SegmentFlag.PF_R | SegmentFlag.PF_W,
    SegmentKind.WRITE: SegmentFlag.PF_R | SegmentFlag.PF_W,
}

SECTION_FLAGS = {
    SegmentKind.READ: SectionFlag.SHF_ALLOC,
    SegmentKind.EXECUTE: SectionFlag.SHF_ALLOC | SectionFlag.SHF_EXECINSTR,
    SegmentKind.RELRO: SectionFlag.SHF_ALLOC | SectionFlag.SHF_WRITE,
    SegmentKind.WRITE: SectionFlag.SHF_ALLOC | SectionFlag.SHF_WRITE,
}


@dataclass(frozen=True, slots=True)
class SectionSpec:
    """A section as it is asked for: `size` and `align` in bytes."""

    name: str
    size: int
    align: int
    kind: SectionKind


@dataclass(frozen=True, slots=True)
class GeneratedSection(SectionSpec):
    """A section whose content the writer makes; `link` names the section its sh_link refers to."""

    section_type: SectionType
    entry_bytes: int = 0
    link: str = ""
    info: int = 0


@dataclass(frozen=True, slots=True)
class PlacedSection:
    """A section and its virtual address."""

    spec: SectionSpec
    vaddr: int

    @property
    def end(self) -> int:
        """Virtual address of the first byte behind it."""
        return self.vaddr + self.spec.size


@dataclass(frozen=True, slots=True)
class Segment:
    """A loaded segment; `vaddr` is page-aligned, `memory_bytes` exceeds `file_bytes` by the .bss."""

    kind: SegmentKind
    vaddr: int
    file_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The finished layout of one file, all addresses final."""

    elf_type: ElfType
    base: int
    sections: tuple[PlacedSection, ...]
    segments: tuple[Segment, ...]
    relocation_count: int

    @property
    def addresses(self) -> dict[str, int]:
        """Virtual address of every loaded section, by name, generated ones (".rela.dyn", ".dynamic") included."""
        return {section.spec.name: section.vaddr for section in self.sections}

    @property
    def memory_bytes(self) -> int:
        """From the base to the end of .bss."""
        return self.segments[-1].vaddr + self.segments[-1].memory_bytes - self.base

    @property
    def loaded_file_bytes(self) -> int:
        """How much of the file's beginning is loaded; only section headers and symbols follow."""
        return self.segments[-1].vaddr + self.segments[-1].file_bytes - self.base

    def section(self, name: str) -> PlacedSection:
        """Raises ElfError for a name that is not in the plan."""
        for section in self.sections:
            if section.spec.name == name:
                return section
        known = ", ".join(self.addresses)
        raise ElfError(f"section {name}: expected one of {known}; the plan has no such section")


def plan_dyn(*, sections: Sequence[SectionSpec], relocation_count: int) -> Plan:
    """Lay out a relocatable image (ET_DYN) at base 0.

    `relocation_count` R_X86_64_RELATIVE entries get room in .rela.dyn; with 0 there is no such section.
    Raises ElfError, one sentence, for a section that cannot be placed.
    """
    if relocation_count < 0:
        raise ElfError(f"relocation count: expected 0 or more, got {relocation_count:#x}")
    return _plan(ElfType.ET_DYN, 0, [*_dynamic_sections(relocation_count), *sections], relocation_count)


def plan_exec(*, sections: Sequence[SectionSpec], base: int = 0x20_0000) -> Plan:
    """Lay out an image for a fixed physical address (ET_EXEC), without relocations.

    A section .multiboot2 is moved to the front, because boot loaders search only the first 32 KiB.
    Raises ElfError, one sentence, for a base or a section that cannot be used.
    """
    if base % PAGE_BYTES or not 0x10_0000 <= base < 1 << 32:
        raise ElfError(f"base: expected a page-aligned address from 0x100000 up to 4 GiB, got {base:#x}")
    for spec in sections:
        if spec.kind is SectionKind.RELRO:
            raise ElfError(f"section {spec.name}: kind RELRO needs relocations, and an ET_EXEC file here has none")
    plan = _plan(ElfType.ET_EXEC, base, sorted(sections, key=lambda spec: spec.name != MULTIBOOT2_SECTION), 0)
    if MULTIBOOT2_SECTION in plan.addresses:
        _check_multiboot2(plan.section(MULTIBOOT2_SECTION), base)
    return plan


def _check_multiboot2(section: PlacedSection, base: int) -> None:
    if section.spec.align < MULTIBOOT2_ALIGN or section.end - base > MULTIBOOT2_SEARCH_BYTES:
        raise ElfError(
            f"section {MULTIBOOT2_SECTION}: expected alignment 0x8 and an end within file offset "
            f"{MULTIBOOT2_SEARCH_BYTES:#x}, got alignment {section.spec.align:#x} and end {section.end - base:#x}"
        )


def _dynamic_sections(relocation_count: int) -> Iterator[GeneratedSection]:
    """What a dynamic loader, and eu-elflint, expect of an ET_DYN file."""
    rodata, entries = SectionKind.RODATA, DYNAMIC_ENTRIES
    yield GeneratedSection(".hash", HASH.size, 8, rodata, SectionType.SHT_HASH, 4, ".dynsym")
    yield GeneratedSection(".dynsym", SYM.size, 8, rodata, SectionType.SHT_DYNSYM, SYM.size, ".dynstr", info=1)
    yield GeneratedSection(".dynstr", len(DYNSTR), 1, rodata, SectionType.SHT_STRTAB)
    if relocation_count:
        entries = DYNAMIC_ENTRIES_WITH_RELOCATIONS
        size = relocation_count * RELA.size
        yield GeneratedSection(".rela.dyn", size, 8, rodata, SectionType.SHT_RELA, RELA.size, ".dynsym")
    size = entries * DYN.size
    yield GeneratedSection(".dynamic", size, 8, SectionKind.DATA, SectionType.SHT_DYNAMIC, DYN.size, ".dynstr")


def _plan(elf_type: ElfType, base: int, sections: Sequence[SectionSpec], relocation_count: int) -> Plan:
    build_id = GeneratedSection(
        BUILD_ID_SECTION, BUILD_ID_NOTE_BYTES, NOTE_ALIGN, SectionKind.NOTE, SectionType.SHT_NOTE
    )
    specs = sorted([build_id, *sections], key=lambda spec: spec.kind)
    _check_specs(specs)
    kinds = sorted({SEGMENT_OF[spec.kind] for spec in specs})
    cursor = base + EHDR.size + PHDR.size * program_header_count(elf_type, kinds)
    placed: list[PlacedSection] = []
    segments: list[Segment] = []
    for kind in kinds:
        start = base if kind is SegmentKind.READ else _align_up(cursor, PAGE_BYTES)
        members = list(_place(max(start, cursor), [spec for spec in specs if SEGMENT_OF[spec.kind] is kind]))
        placed += members
        segments.append(_segment(kind, start, members))
        cursor = members[-1].end
    return Plan(elf_type, base, tuple(placed), tuple(segments), relocation_count)


def program_header_count(elf_type: ElfType, kinds: Sequence[SegmentKind]) -> int:
    """PT_PHDR, PT_NOTE and PT_GNU_STACK, one PT_LOAD per segment, PT_DYNAMIC and PT_GNU_RELRO where they apply."""
    return 3 + len(kinds) + (elf_type is ElfType.ET_DYN) + (SegmentKind.RELRO in kinds)


def _place(cursor: int, specs: Sequence[SectionSpec]) -> Iterator[PlacedSection]:
    for spec in specs:
        cursor = _align_up(cursor, spec.align)
        yield PlacedSection(spec, cursor)
        cursor += spec.size


def _segment(kind: SegmentKind, start: int, members: Sequence[PlacedSection]) -> Segment:
    """The file part ends with the last section that has bytes; what follows, an alignment gap and .bss, is cleared."""
    end = members[-1].end
    if kind is SegmentKind.RELRO:
        end = _align_up(end, PAGE_BYTES)
    filled = [member.end for member in members if member.spec.kind is not SectionKind.BSS]
    file_end = end if len(filled) == len(members) else max(filled, default=start)
    return Segment(kind, start, file_end - start, end - start)


def _check_specs(specs: Sequence[SectionSpec]) -> None:
    seen: set[str] = set()
    for spec in specs:
        if not spec.name.startswith(".") or not spec.name.isascii() or not spec.name.isprintable():
            raise ElfError(f"section {spec.name!r}: expected a printable ASCII name that begins with a dot")
        if spec.name in seen or spec.name in (".symtab", ".strtab", ".shstrtab"):
            raise ElfError(f"section {spec.name}: expected a name not yet taken, got a second section of that name")
        seen.add(spec.name)
        if spec.size <= 0:
            raise ElfError(f"section {spec.name}: expected a size of at least 0x1, got {spec.size:#x}")
        if not 0 < spec.align <= PAGE_BYTES or spec.align & (spec.align - 1):
            raise ElfError(
                f"section {spec.name}: expected a power of two up to {PAGE_BYTES:#x} as alignment, got {spec.align:#x}"
            )
        if spec.kind is SectionKind.NOTE and (spec.align != NOTE_ALIGN or spec.size % NOTE_ALIGN):
            raise ElfError(
                f"section {spec.name}: expected a note with size and alignment in units of 0x4, "
                f"got size {spec.size:#x} and alignment {spec.align:#x}"
            )
    if all(spec.kind is not SectionKind.TEXT for spec in specs):
        raise ElfError("plan: expected at least one section of kind TEXT, got none to hold the entry")


def _align_up(value: int, align: int) -> int:
    return -(-value // align) * align
