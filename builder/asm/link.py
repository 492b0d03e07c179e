"""An assembled object, and what it becomes when its sections have addresses.

A field that holds the absolute 8-byte address of a label is also a relocation: an image that is loaded elsewhere than
linked adds the difference there (R_X86_64_RELATIVE). Shorter absolute fields cannot be moved so, and are refused unless
the image is linked for the address it runs at.

Ref: System V ABI, AMD64 supplement, section 4.4 (relocation).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.builder.asm.errors import AssemblyError
from sidecar.builder.asm.expressions import number_text
from sidecar.builder.asm.fragments import FieldKind
from sidecar.builder.asm.records import Fixup, Line, Section, Symbol
from sidecar.builder.asm.source import SourceLine

_BRACES = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class LinkedLine:
    """A line with its address and its final bytes."""

    routine: str
    number: int
    section: str
    vaddr: int
    size: int
    data: bytes  # empty in .bss
    bits: int
    source: str
    canonical: str  # the instruction as encoded, with numbers only; a branch names the address it goes to
    template: str  # the same with its open values still in braces
    values: tuple[int, ...]  # of the braces, in their order; of a branch the address it goes to
    comment: str
    is_instruction: bool


@dataclass(frozen=True, slots=True)
class Linked:
    """Finished bytes."""

    sections: dict[str, bytes]  # .bss is empty: its size is in the object
    relocations: tuple[tuple[int, int], ...]  # (address of the 8-byte field, its value), by address
    symbols: dict[str, int]
    lines: tuple[LinkedLine, ...]  # by address


@dataclass(frozen=True, slots=True)
class Object:
    """Assembled routines before they have addresses."""

    sections: dict[str, Section]
    symbols: dict[str, Symbol]
    lines: tuple[Line, ...]
    fixups: tuple[Fixup, ...]
    labels: dict[str, tuple[str, int]]  # every label, also local ones as routine.name -> section, offset
    definitions: dict[str, SourceLine]  # the line that defines each label

    def link(
        self, addresses: Mapping[str, int], *, absolute: Mapping[str, int] | None = None, allow_absolute: bool
    ) -> Linked:
        """Give every section its address and fill all fixups.

        `addresses` has a virtual address for each section, `absolute` the addresses of symbols outside of them.
        `allow_absolute` permits 2 and 4-byte absolute addresses, for an image that is never moved.
        """
        values = self._values(addresses, absolute or {})
        self._check_placement(addresses)
        data = {name: bytearray(section.data) for name, section in self.sections.items()}
        relocations: list[tuple[int, int]] = []
        values_of: dict[Line, tuple[int, ...]] = {}
        for fixup in self.fixups:
            value = _value(fixup, values, addresses[fixup.section], allow_absolute=allow_absolute)
            field = _check_range(fixup, value) % (1 << 8 * fixup.width)
            data[fixup.section][fixup.offset : fixup.offset + fixup.width] = field.to_bytes(fixup.width, "little")
            if fixup.kind is FieldKind.ABSOLUTE and fixup.width == 8:
                relocations.append((addresses[fixup.section] + fixup.offset, value))
            shown = _shown_value(fixup, value, addresses[fixup.section])
            values_of[fixup.line] = (*values_of.get(fixup.line, ()), shown)
        lines = [
            _finish_line(line, addresses[line.section], data[line.section], values_of.get(line, ()))
            for line in self.lines
        ]
        symbols = {name: addresses[symbol.section] + symbol.offset for name, symbol in self.symbols.items()}
        return Linked(
            {name: bytes(content) for name, content in data.items()},
            tuple(sorted(relocations)),
            symbols,
            tuple(sorted(lines, key=lambda line: (line.vaddr, line.size > 0))),
        )

    def _values(self, addresses: Mapping[str, int], absolute: Mapping[str, int]) -> dict[str, int]:
        for name in sorted(absolute.keys() & self.labels.keys()):
            raise self.definitions[name].error(f"'{name}' is a label and an absolute symbol")
        for name in sorted(self.sections.keys() - addresses.keys()):
            raise self._section_error(name, f"the section {name} has no address")
        placed = {name: addresses[section] + offset for name, (section, offset) in self.labels.items()}
        return {**absolute, **placed}

    def _check_placement(self, addresses: Mapping[str, int]) -> None:
        previous, end = "", 0
        for name, section in sorted(self.sections.items(), key=lambda item: (addresses[item[0]], item[1].size)):
            address = addresses[name]
            if address < 0 or address % section.align:
                raise self._section_error(name, f"the section {name} at {address:#x} is not aligned to {section.align}")
            if section.size and previous and address < end:
                raise self._section_error(name, f"the section {name} at {address:#x} overlaps {previous}")
            if section.size:
                previous, end = name, address + section.size

    def _section_error(self, section: str, reason: str) -> AssemblyError:
        for line in self.lines:
            if line.section == section:
                return line.error(reason)
        return AssemblyError(section, 0, "", reason)


def _value(fixup: Fixup, values: Mapping[str, int], base: int, *, allow_absolute: bool) -> int:
    for name in (fixup.symbol, fixup.minus):
        if name and name not in values:
            raise fixup.line.error(f"'{name}' is neither a constant nor a label nor an absolute symbol")
    value = values[fixup.symbol] + fixup.addend
    match fixup.kind:
        case FieldKind.RELATIVE:
            return value - (base + fixup.end)
        case FieldKind.DIFFERENCE:
            return value - values[fixup.minus]
        case FieldKind.ABSOLUTE:
            if fixup.width < 8 and not allow_absolute:
                raise fixup.line.error(f"the {fixup.width}-byte address of '{fixup.text}' cannot move with the image")
            return value


def _check_range(fixup: Fixup, value: int) -> int:
    bits = 8 * fixup.width
    low = 0 if fixup.kind is FieldKind.ABSOLUTE else -(1 << bits - 1)
    high = (1 << bits - 1) - 1 if fixup.signed else (1 << bits) - 1
    if not low <= value <= high:
        raise fixup.line.error(f"the value {value:#x} of '{fixup.text}' does not fit in {bits} bits")
    return value


def _shown_value(fixup: Fixup, value: int, base: int) -> int:
    """A branch shows where it goes, everything else its field."""
    is_branch = fixup.kind is FieldKind.RELATIVE and "[" not in fixup.line.canonical
    return value + base + fixup.end if is_branch else value


def _finish_line(line: Line, base: int, content: bytearray, values: tuple[int, ...]) -> LinkedLine:
    canonical = line.canonical
    if values:
        remaining = iter(values)
        canonical = _BRACES.sub(lambda _: number_text(next(remaining)), canonical)
    return LinkedLine(
        routine=line.routine,
        number=line.number,
        section=line.section,
        vaddr=base + line.offset,
        size=line.size,
        data=bytes(content[line.offset : line.offset + line.size]),
        bits=line.bits,
        source=line.source,
        canonical=canonical.replace("+ -", "- "),
        template=line.canonical,
        values=values,
        comment=line.comment,
        is_instruction=line.is_instruction,
    )
