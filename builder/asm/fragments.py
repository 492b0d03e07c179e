"""What a line becomes before addresses are known: finished bytes with fields to fill, branches, alignments, space.

The assembler makes fragments, `placement` gives them offsets, `link` fills their fields.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from sidecar.builder.asm.source import SourceLine

# Ref: Intel SDM volume 2B, NOP, table "Recommended Multi-Byte Sequence of NOP Instruction".
_NOPS: Final = tuple(
    bytes.fromhex(code)
    for code in (
        "90", "6690", "0f1f00", "0f1f4000", "0f1f440000", "660f1f440000", "0f1f8000000000", "0f1f840000000000",
        "660f1f840000000000",
    )
)  # fmt: skip


class FieldKind(Enum):
    """How the value of a field follows from its symbols."""

    ABSOLUTE = "absolute"  # symbol + addend
    RELATIVE = "relative"  # symbol + addend - end of the instruction
    DIFFERENCE = "difference"  # symbol - minus + addend


@dataclass(frozen=True, slots=True)
class Target:
    """symbol - minus + addend, as an operand or a data item names it."""

    symbol: str
    minus: str  # "" except in a difference of two labels
    addend: int
    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a fragment whose value is known only when everything has its address."""

    offset: int
    width: int  # bytes
    kind: FieldKind
    target: Target
    signed: bool  # the processor extends the field's sign, so the upper half of the unsigned range does not fit


@dataclass(frozen=True, slots=True)
class Code:
    """Finished bytes with fields: an instruction, or data."""

    data: bytes
    fields: tuple[Field, ...]
    canonical: str

    @property
    def size(self) -> int:
        """Bytes it takes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch to a label: `short` opcode with 8 bits of distance, `near` with `width` bytes; either may not exist."""

    mnemonic: str
    target: Target
    short: bytes
    near: bytes
    width: int

    def form(self, *, short: bool) -> Code:
        """The branch in one of its sizes, its distance still open."""
        opcode, width = (self.short, 1) if short else (self.near, self.width)
        field = Field(len(opcode), width, FieldKind.RELATIVE, self.target, signed=True)
        return Code(opcode + bytes(width), (field,), f"{self.mnemonic} {{{self.target.text}}}")


@dataclass(frozen=True, slots=True)
class Alignment:
    """Padding up to a multiple of `boundary`: in code with instructions that do nothing, elsewhere with zeros."""

    boundary: int
    with_nops: bool
    bits: int

    def padding(self, offset: int) -> bytes:
        """The bytes between an offset and the next boundary."""
        missing = -offset % self.boundary
        if not self.with_nops:
            return bytes(missing)
        if self.bits == 16:
            return _NOPS[0] * missing  # the longer ones are read differently in 16-bit code
        whole, rest = divmod(missing, len(_NOPS))
        return _NOPS[-1] * whole + (_NOPS[rest - 1] if rest else b"")


@dataclass(frozen=True, slots=True)
class Space:
    """Zeros; in .bss they take no room in the file."""

    size: int

    @property
    def data(self) -> bytes:
        """The zeros."""
        return bytes(self.size)


Body = Code | Branch | Alignment | Space


@dataclass(frozen=True, slots=True)
class Fragment:
    """One line's share of a section."""

    line: SourceLine
    bits: int
    body: Body
