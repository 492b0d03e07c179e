"""What follows the loaded part of a file: symbol table, string tables and the section header table.

No loader reads any of it; debuggers, disassemblers and `sidecar dump image` do.

Ref: gABI chapter 4, "Sections", "String Table", "Symbol Table".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.builder.elf.constants import SectionType, SymbolBinding, SymbolType
from sidecar.builder.elf.error import ElfError
from sidecar.builder.elf.plan import SECTION_FLAGS, SEGMENT_OF, GeneratedSection, PlacedSection, Plan, SectionKind
from sidecar.builder.elf.structures import SHDR, SYM, st_info

TABLE_ALIGN = 8

SECTION_TYPES = {
    SectionKind.NOTE: SectionType.SHT_NOTE,
    SectionKind.BSS: SectionType.SHT_NOBITS,
}


@dataclass(frozen=True, slots=True)
class ElfSymbol:
    """A name for `size` bytes at the virtual address `value` in `section`."""

    name: str
    section: str
    value: int
    size: int
    type: SymbolType
    binding: SymbolBinding = SymbolBinding.STB_GLOBAL


@dataclass(frozen=True, slots=True)
class Tail:
    """The bytes behind the loaded part, and what the ELF header says of them."""

    data: bytes
    table_offset: int
    section_count: int


class StringTable:
    """NUL-terminated names; offset 0 is the empty name."""

    __slots__ = ("_offsets", "data")

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets = {"": 0}

    def add(self, name: str) -> int:
        """Offset of the name, which is stored once."""
        if name not in self._offsets:
            self._offsets[name] = len(self.data)
            self.data += name.encode() + b"\0"
        return self._offsets[name]


@dataclass(frozen=True, slots=True)
class _Table:
    """One section that is not loaded."""

    name: str
    type: SectionType
    content: bytes
    align: int = 1
    entry_bytes: int = 0
    link: int = 0
    info: int = 0


def build_tail(plan: Plan, symbols: Sequence[ElfSymbol], *, offset: int) -> Tail:
    """Everything behind the loaded part, which ends at `offset`; raises ElfError for a symbol that does not fit."""
    names = StringTable()
    headers = [bytes(SHDR.size), *(_loaded_header(plan, section, names) for section in plan.sections)]
    tail = bytearray()
    for table in _tables(plan, symbols, names):
        tail += bytes(-(offset + len(tail)) % table.align)
        headers.append(_table_header(table, names.add(table.name), offset + len(tail)))
        tail += table.content
    tail += bytes(-(offset + len(tail)) % TABLE_ALIGN)
    return Tail(bytes(tail) + b"".join(headers), offset + len(tail), len(headers))


def _tables(plan: Plan, symbols: Sequence[ElfSymbol], names: StringTable) -> tuple[_Table, ...]:
    """The last table holds the section names, its own included."""
    ordered = _checked_symbols(plan, symbols)
    locals_count = sum(symbol.binding is SymbolBinding.STB_LOCAL for symbol in ordered)
    strings = StringTable()
    entries = _symbol_entries(plan, ordered, strings)
    for name in (".symtab", ".strtab", ".shstrtab"):
        names.add(name)
    return (
        _Table(
            ".symtab",
            SectionType.SHT_SYMTAB,
            entries,
            align=TABLE_ALIGN,
            entry_bytes=SYM.size,
            link=1 + len(plan.sections) + 1,  # .strtab: behind the null section, the loaded ones and .symtab
            info=1 + locals_count,
        ),
        _Table(".strtab", SectionType.SHT_STRTAB, bytes(strings.data)),
        _Table(".shstrtab", SectionType.SHT_STRTAB, bytes(names.data)),
    )


def _table_header(table: _Table, name_offset: int, offset: int) -> bytes:
    return SHDR.build(
        sh_name=name_offset,
        sh_type=table.type,
        sh_flags=0,
        sh_addr=0,
        sh_offset=offset,
        sh_size=len(table.content),
        sh_link=table.link,
        sh_info=table.info,
        sh_addralign=table.align,
        sh_entsize=table.entry_bytes,
    )


def _loaded_header(plan: Plan, section: PlacedSection, names: StringTable) -> bytes:
    spec = section.spec
    generated = spec if isinstance(spec, GeneratedSection) else None
    return SHDR.build(
        sh_name=names.add(spec.name),
        sh_type=generated.section_type if generated else SECTION_TYPES.get(spec.kind, SectionType.SHT_PROGBITS),
        sh_flags=SECTION_FLAGS[SEGMENT_OF[spec.kind]],
        sh_addr=section.vaddr,
        sh_offset=section.vaddr - plan.base,
        sh_size=spec.size,
        sh_link=_section_indices(plan)[generated.link] if generated and generated.link else 0,
        sh_info=generated.info if generated else 0,
        sh_addralign=spec.align,
        sh_entsize=generated.entry_bytes if generated else 0,
    )


def _section_indices(plan: Plan) -> dict[str, int]:
    return {section.spec.name: index for index, section in enumerate(plan.sections, start=1)}


def _symbol_entries(plan: Plan, symbols: Sequence[ElfSymbol], strings: StringTable) -> bytes:
    indices = _section_indices(plan)
    entries = [
        SYM.build(
            st_name=strings.add(symbol.name),
            st_info=st_info(symbol.binding, symbol.type),
            st_other=0,
            st_shndx=indices[symbol.section],
            st_value=symbol.value,
            st_size=symbol.size,
        )
        for symbol in symbols
    ]
    return bytes(SYM.size) + b"".join(entries)


def _checked_symbols(plan: Plan, symbols: Sequence[ElfSymbol]) -> list[ElfSymbol]:
    """Local symbols first, as the gABI asks, then by address and name."""
    seen: set[str] = set()
    sections = {section.spec.name: section for section in plan.sections}
    for symbol in symbols:
        section = sections.get(symbol.section) or plan.section(symbol.section)
        if not symbol.name or "\0" in symbol.name:
            raise ElfError(f"symbol at {symbol.value:#x}: expected a name without NUL, got {symbol.name!r}")
        end = symbol.value + symbol.size
        if symbol.size < 0 or not section.vaddr <= symbol.value <= end <= section.end:
            raise ElfError(
                f"symbol {symbol.name}: expected a place inside {symbol.section} "
                f"{section.vaddr:#x}..{section.end:#x}, got {symbol.value:#x}..{end:#x}"
            )
        if symbol.binding is not SymbolBinding.STB_LOCAL and symbol.name in seen:
            raise ElfError(f"symbol {symbol.name}: expected one global symbol of that name, got a second")
        if symbol.binding is not SymbolBinding.STB_LOCAL:
            seen.add(symbol.name)
    return sorted(symbols, key=lambda one: (one.binding is not SymbolBinding.STB_LOCAL, one.value, one.name))
