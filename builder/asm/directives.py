"""Directives that put data into a section: .byte .word .long .quad .ascii .asciz .zero .align.

`.section` and `.code16/32/64` change where and how the following lines are assembled; the assembler keeps that state.
"""

import re
from typing import Final

from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import ESCAPES, Scope, number_text, parse_constant, parse_expression
from sidecar.builder.asm.fields import make_target
from sidecar.builder.asm.fragments import Alignment, Code, Field, FieldKind, Space
from sidecar.builder.asm.source import split_operands

_WIDTHS: Final = {".byte": 1, ".word": 2, ".long": 4, ".quad": 8}
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_LARGEST_ALIGNMENT: Final = 1 << 21  # a large page
_LARGEST_SPACE: Final = 1 << 30  # anything above is a slip of the pen

IN_BSS: Final = frozenset({".zero", ".align"})


def data_fragment(directive: str, rest: str, scope: Scope, *, code: bool, bits: int) -> Code | Alignment | Space:
    """The fragment of a data directive; `code` says that the section holds instructions."""
    if directive in _WIDTHS:
        return _numbers(directive, rest, scope)
    match directive:
        case ".ascii" | ".asciz":
            return _strings(directive, rest)
        case ".zero":
            return Space(_constant_between(rest, scope, ".zero", 0, _LARGEST_SPACE))
        case ".align":
            boundary = _constant_between(rest, scope, ".align", 1, _LARGEST_ALIGNMENT)
            if boundary & boundary - 1:
                raise RefusalError(f".align {boundary}: an alignment is a power of two")
            return Alignment(boundary, code, bits)
    raise RefusalError(f"unknown directive '{directive}'")


def _numbers(directive: str, rest: str, scope: Scope) -> Code:
    width = _WIDTHS[directive]
    data = bytearray()
    fields: list[Field] = []
    items: list[str] = []
    for part in _items(directive, rest):
        value = parse_expression(part, scope)
        if value.registers:
            raise RefusalError(f"'{part}' names a register, data cannot")
        if value.is_constant:
            data += _number(value.constant, directive, width, complement=value.complement)
            items.append(number_text(value.constant))
            continue
        target = make_target(value)
        if width == 1 and not target.minus:
            raise RefusalError(f"'{part}' is no constant, and the address of a label does not fit in .byte")
        kind = FieldKind.DIFFERENCE if target.minus else FieldKind.ABSOLUTE
        fields.append(Field(len(data), width, kind, target, signed=False))
        data += bytes(width)
        items.append(f"{{{target.text}}}")
    return Code(bytes(data), tuple(fields), f"{directive} {', '.join(items)}")


def _items(directive: str, rest: str) -> list[str]:
    parts = split_operands(rest)
    if not parts or not all(parts):
        raise RefusalError(f"{directive} needs values, with one comma between two")
    return parts


def _number(value: int, directive: str, width: int, *, complement: bool) -> bytes:
    limit = 1 << 8 * width
    if not -(limit if complement else limit // 2) <= value < limit:
        raise RefusalError(f"{number_text(value)} does not fit in {directive}")
    return (value % limit).to_bytes(width, "little")


def _strings(directive: str, rest: str) -> Code:
    data = bytearray()
    for part in _items(directive, rest):
        match = _STRING.fullmatch(part)
        if match is None or not part.isascii():
            raise RefusalError(f"{part} is not an ASCII string in double quotes")
        data += _ESCAPE.sub(_unescape, match[1]).encode("latin-1")
        if directive == ".asciz":
            data.append(0)
    return Code(bytes(data), (), f"{directive} {rest}")


def _unescape(match: re.Match[str]) -> str:
    name = match[1]
    if len(name) > 1:
        return chr(int(name[1:], 16))
    if name not in ESCAPES:
        raise RefusalError(f"unknown escape '\\{name}' in a string")
    return ESCAPES[name]


def _constant_between(text: str, scope: Scope, directive: str, low: int, high: int) -> int:
    if not text:
        raise RefusalError(f"{directive} needs a number")
    value = parse_constant(text, scope)
    if not low <= value <= high:
        raise RefusalError(f"{directive} {number_text(value)}: the number is not between {low} and {number_text(high)}")
    return value
