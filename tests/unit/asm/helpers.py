"""What the tests of the assembler share: one instruction in, its bytes or the reason of its refusal out."""

from collections.abc import Iterable, Mapping

import pytest

from sidecar.builder.asm import AssemblyError, Linked, Object, Routine, assemble

TEXT_VA = 0x1000
DATA_VA = 0x8000
ABSOLUTE = {"outside": 0x6000}

# Labels that the instructions under test refer to.
DATA = """
        .section .rodata
target: .zero   20
first:  .zero   5
second: .byte   1
"""


def assemble_text(text: str, names: Mapping[str, object] | None = None, *, routine: str = "main") -> Object:
    """The object of one routine, whose label is added in front: so the given text starts at line 2."""
    return assemble([Routine(routine, f"{routine}:\n{text}")], names=names or {})


def link_text(text: str, names: Mapping[str, object] | None = None) -> Linked:
    """One routine at TEXT_VA, with its data at DATA_VA."""
    assembled = assemble_text(text, names)
    addresses = {name: DATA_VA + 0x1000 * number for number, name in enumerate(assembled.sections)}
    return assembled.link(addresses | {".text": TEXT_VA}, absolute=ABSOLUTE, allow_absolute=True)


def link_instructions(bits: int, instructions: Iterable[str], names: Mapping[str, object] | None = None) -> Linked:
    """The instructions in one routine, with the labels of DATA to refer to."""
    return link_text("\n".join([f".code{bits}", *instructions]) + DATA, names)


def code_of(text: str, bits: int = 64, names: Mapping[str, object] | None = None) -> str:
    """The bytes of one instruction, in hexadecimal."""
    linked = link_instructions(bits, [text], names)
    return b"".join(line.data for line in linked.lines if line.section == ".text").hex(" ")


def reason_of(text: str, bits: int = 64, names: Mapping[str, object] | None = None) -> str:
    """Why an instruction is refused, as the part of the message behind the source text."""
    with pytest.raises(AssemblyError) as caught:
        link_instructions(bits, [text], names)
    assert caught.value.source == text
    return caught.value.reason
