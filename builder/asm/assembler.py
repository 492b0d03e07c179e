"""Routines in, an Object out: sections, symbols and lines, with fixups for everything that needs an address.

The routines are laid one after another in the order given, each section for itself. A label `name:` is known to all,
`.name:` to its own routine. Every routine must define the label of its own name.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sidecar.builder.asm.directives import IN_BSS, data_fragment
from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import Scope
from sidecar.builder.asm.fragments import Alignment, Body, Code, Field, Fragment
from sidecar.builder.asm.link import Object
from sidecar.builder.asm.placement import Mark, Placed, place
from sidecar.builder.asm.records import Fixup, Line, Section, Symbol
from sidecar.builder.asm.registers import REGISTERS, RESERVED
from sidecar.builder.asm.source import Routine, SourceLine, cut_word, read_routine, split_lines
from sidecar.builder.asm.statements import instruction_fragment

_SECTION_NAME = re.compile(r"\.[A-Za-z_][\w.-]*", re.ASCII)
_MODES: Final = {".code16": 16, ".code32": 32, ".code64": 64}


@dataclass(frozen=True, slots=True)
class _Label:
    """A label, the line that defines it, and the fragment it stands before."""

    mark: Mark
    line: SourceLine
    bits: int


@dataclass(slots=True)
class _Draft:
    """Everything read so far."""

    names: Mapping[str, object]
    fragments: dict[str, list[Fragment]] = field(default_factory=dict)
    labels: dict[str, _Label] = field(default_factory=dict)

    def here(self, section: str) -> Mark:
        """The end of a section, where the next fragment will be."""
        return Mark(section, len(self.fragments.setdefault(section, [])))


def assemble(
    routines: Iterable[Callable[[], str] | Routine],
    *,
    names: Mapping[str, object],
    absolute_names: Collection[str] | None = None,
) -> Object:
    """Assemble routines into one object.

    `names` gives the constants: integers, and namespaces whose attributes end in integers. `absolute_names` lists the
    symbols that linking will supply; if it is given, any other undefined name is an error here rather than at link.
    Raises AssemblyError, which names routine and line.
    """
    for name in names:
        if name in RESERVED:
            raise ValueError(f"the constant '{name}' has the name of a register or a word of the syntax")
    draft = _Draft(names)
    read = [read_routine(routine) for routine in routines]
    for routine in read:
        _read(draft, routine)
    assembled = _finish(draft, {routine.name for routine in read})
    _require_defined(assembled, absolute_names)
    return assembled


def _read(draft: _Draft, routine: Routine) -> None:
    """Append a routine's fragments and labels to the draft."""
    scope = Scope(draft.names, routine.name)
    section, bits = ".text", 64
    lines = split_lines(routine)
    for line in lines:
        try:
            if line.label:
                _define(draft, scope, line, section, bits)
            directive, rest = cut_word(line.statement) if line.statement else ("", "")
            if directive in _MODES:
                _require_nothing(directive, rest)
                bits = _MODES[directive]
            elif directive == ".section":
                section = _section_name(rest)
            elif line.statement:
                body = _body(line.statement, section, bits, scope)
                draft.fragments.setdefault(section, []).append(Fragment(line, bits, body))
        except RefusalError as refusal:
            raise line.error(str(refusal)) from refusal
    own = draft.labels.get(routine.name)
    if own is None or own.line.routine != routine.name:
        first = lines[0] if lines else SourceLine(routine.name, 1, "", "", "", "")
        raise first.error(f"the routine does not define its own label '{routine.name}:'")


def _body(statement: str, section: str, bits: int, scope: Scope) -> Body:
    if not statement.startswith("."):
        if _is_bss(section):
            raise RefusalError(f"{section} holds no instructions: only labels, .zero and .align")
        return instruction_fragment(statement, bits, scope)
    directive, rest = cut_word(statement)
    if _is_bss(section) and directive not in IN_BSS:
        raise RefusalError(f"{section} holds no data: only labels, .zero and .align")
    return data_fragment(directive, rest, scope, code=section.startswith(".text"), bits=bits)


def _define(draft: _Draft, scope: Scope, line: SourceLine, section: str, bits: int) -> None:
    if line.label in RESERVED:
        kind = "a register" if line.label in REGISTERS else "a word of the syntax"
        raise RefusalError(f"'{line.label}' is {kind}, not a label")
    if line.label in draft.names:
        raise RefusalError(f"'{line.label}' is a label and a constant")
    key = scope.qualify(line.label)
    if key in draft.labels:
        before = draft.labels[key].line
        raise RefusalError(f"the label '{line.label}' is already defined in {before.routine}, line {before.number}")
    draft.labels[key] = _Label(draft.here(section), line, bits)


def _require_nothing(directive: str, rest: str) -> None:
    if rest:
        raise RefusalError(f"{directive} takes no operand")


def _section_name(text: str) -> str:
    if not _SECTION_NAME.fullmatch(text):
        raise RefusalError(f"'{text}' is not a section name like .rodata")
    return text


def _is_bss(section: str) -> bool:
    return section == ".bss" or section.startswith(".bss.")


def _finish(draft: _Draft, routines: set[str]) -> Object:
    marks = {key: label.mark for key, label in draft.labels.items()}
    sections: dict[str, Section] = {}
    lines: list[Line] = []
    fixups: list[Fixup] = []
    offsets: dict[str, list[int]] = {}
    for name, fragments in draft.fragments.items():
        placed, offsets[name] = place(name, fragments, marks)
        sections[name] = _section(name, placed, offsets[name][-1])
        for item in placed:
            line = _line(name, item)
            lines.append(line)
            if isinstance(item.content, Code):
                fixups += [_fixup(line, entry) for entry in item.content.fields]
    places = {key: (mark.section, offsets[mark.section][mark.index]) for key, mark in marks.items()}
    lines += [_label_line(label, places[key]) for key, label in draft.labels.items() if not label.line.statement]
    order = {name: number for number, name in enumerate(draft.fragments)}
    lines.sort(key=lambda line: (order[line.section], line.offset, line.size > 0))
    symbols = _symbols(draft, places, offsets, routines)
    definitions = {key: label.line for key, label in draft.labels.items()}
    return Object(sections, symbols, tuple(lines), tuple(fixups), places, definitions)


def _section(name: str, placed: list[Placed], size: int) -> Section:
    boundaries = [item.fragment.body.boundary for item in placed if isinstance(item.fragment.body, Alignment)]
    data = b""
    if not _is_bss(name):
        data = b"".join(item.content.data for item in placed)
    return Section(name, data, size, max(boundaries, default=1))


def _line(section: str, item: Placed) -> Line:
    source = item.fragment.line
    canonical = item.content.canonical if isinstance(item.content, Code) else source.statement
    size, bits = item.content.size, item.fragment.bits
    return Line(
        source.routine, source.number, section, item.offset, size, bits, source.source, canonical, source.comment
    )


def _label_line(label: _Label, place: tuple[str, int]) -> Line:
    source = label.line
    return Line(source.routine, source.number, *place, 0, label.bits, source.source, "", source.comment)


def _fixup(line: Line, entry: Field) -> Fixup:
    target = entry.target
    return Fixup(
        section=line.section,
        offset=line.offset + entry.offset,
        width=entry.width,
        kind=entry.kind,
        symbol=target.symbol,
        minus=target.minus,
        addend=target.addend,
        end=line.offset + line.size,
        signed=entry.signed,
        text=target.text,
        line=line,
    )


def _symbols(
    draft: _Draft, places: Mapping[str, tuple[str, int]], offsets: Mapping[str, list[int]], routines: set[str]
) -> dict[str, Symbol]:
    """Global labels with their sizes."""
    symbols: dict[str, Symbol] = {}
    found = [(key, label) for key, label in draft.labels.items() if not label.line.label.startswith(".")]
    for key, label in found:
        section, offset = places[key]
        shares = draft.fragments[section]
        last = max((n for n, share in enumerate(shares) if share.line.routine == label.line.routine), default=-1)
        end = max(offsets[section][last + 1], offset)
        if key not in routines:
            others = (places[other] for other, _ in found)
            end = min((at for name, at in others if name == section and offset < at < end), default=end)
        symbols[key] = Symbol(key, section, offset, end - offset, key in routines)
    return symbols


def _require_defined(assembled: Object, absolute_names: Collection[str] | None) -> None:
    for fixup in assembled.fixups:
        for name in (fixup.symbol, fixup.minus):
            local = "." in name
            absolute = not local and (absolute_names is None or name in absolute_names)
            if name and name not in assembled.labels and not absolute:
                shown = name[name.index(".") :] if local else name
                raise fixup.line.error(f"'{shown}' is neither a constant nor a label")
