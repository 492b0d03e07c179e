"""The shape of what `describe` returns: plain dictionaries, lists, integers and strings, ready for JSON.

Enumerated fields carry the gABI's names; a value without a name is its number in hex.
"""

from typing import TypedDict


class HeaderInfo(TypedDict):
    """The ELF header: names for `type` and `machine`, addresses and counts as integers."""

    type: str
    machine: str
    entry: int
    flags: int
    program_header_offset: int
    program_header_count: int
    section_header_offset: int
    section_header_count: int


class SegmentInfo(TypedDict):
    """One program header; `flags` reads "R", "RX", "RW"."""

    type: str
    flags: str
    offset: int
    vaddr: int
    paddr: int
    file_bytes: int
    memory_bytes: int
    align: int


class SectionInfo(TypedDict):
    """One section header but the null one; `flags` reads "A", "AX", "WA"."""

    name: str
    type: str
    flags: str
    vaddr: int
    offset: int
    size: int
    align: int


class RelocationInfo(TypedDict):
    """One entry of a relocation section."""

    section: str
    offset: int
    type: str
    addend: int


class SymbolInfo(TypedDict):
    """One named symbol of .symtab."""

    name: str
    section: str
    value: int
    size: int
    type: str
    binding: str


class NoteInfo(TypedDict):
    """One note; `descriptor` in hex as it lies in the file."""

    owner: str
    type: str
    descriptor: str


class DynamicInfo(TypedDict):
    """One entry of the dynamic section."""

    tag: str
    value: int


class Description(TypedDict):
    """A whole file. `build_id` is in hex, `pvh_entry` a physical address; None when there is no such note."""

    file: str
    file_bytes: int
    header: HeaderInfo
    build_id: str | None
    pvh_entry: int | None
    segments: list[SegmentInfo]
    sections: list[SectionInfo]
    relocations: list[RelocationInfo]
    symbols: list[SymbolInfo]
    notes: list[NoteInfo]
    dynamic: list[DynamicInfo]
