"""What assembling leaves behind: sections, symbols, lines and the fixups that wait for addresses."""

from dataclasses import dataclass

from sidecar.builder.asm.errors import AssemblyError
from sidecar.builder.asm.fragments import FieldKind


@dataclass(frozen=True, slots=True)
class Section:
    """Bytes whose fixups are still zero. A section named .bss... has a size and no bytes."""

    name: str
    data: bytes
    size: int
    align: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A global label. A routine extends to the end of what it put into its section, other labels to the next one."""

    name: str
    section: str
    offset: int
    size: int
    is_routine: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a routine and where its bytes are; a label on its own line has size 0."""

    routine: str
    number: int
    section: str
    offset: int
    size: int
    bits: int  # mode of the code: 16, 32 or 64
    source: str  # as written, without comment
    canonical: str  # the instruction as encoded, open values in braces; data begins with a dot; "" for a mere label
    comment: str

    @property
    def is_instruction(self) -> bool:
        """True if the line is an instruction, not data and not a mere label."""
        return bool(self.canonical) and not self.canonical.startswith(".")

    def error(self, reason: str) -> AssemblyError:
        """The reason, said of this line."""
        return AssemblyError(self.routine, self.number, self.source, reason)


@dataclass(frozen=True, slots=True)
class Fixup:
    """A field of a section that linking fills: symbol - minus + addend, or its distance from `end`."""

    section: str
    offset: int
    width: int  # bytes
    kind: FieldKind
    symbol: str
    minus: str  # "" except in a difference
    addend: int
    end: int  # offset behind the instruction, from which relative fields count
    signed: bool
    text: str  # the target as the canonical text writes it
    line: Line
