"""The registers a routine may name, with their kind and width.

Ref: Intel SDM volume 1, section 3.4 (basic program execution registers); volume 3A, section 2.5 (control registers).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class RegisterKind(Enum):
    """What a register is for; the rules for operands differ by it."""

    GENERAL = "general"
    SEGMENT = "segment"
    CONTROL = "control"
    DEBUG = "debug"
    VECTOR = "vector"
    INSTRUCTION_POINTER = "instruction pointer"


@dataclass(frozen=True, slots=True)
class RegisterFacts:
    """Kind of a register, and its width in bits (control and debug registers: that of 64-bit mode)."""

    kind: RegisterKind
    bits: int


LEGACY_WORDS: Final = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


def _general() -> dict[str, RegisterFacts]:
    legacy = LEGACY_WORDS
    numbered = [f"r{number}" for number in range(8, 16)]
    widths: dict[int, list[str]] = {
        64: [f"r{name}" for name in legacy] + numbered,
        32: [f"e{name}" for name in legacy] + [f"{name}d" for name in numbered],
        16: [*legacy, *(f"{name}w" for name in numbered)],
        8: ["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh", "spl", "bpl", "sil", "dil", *(f"{n}b" for n in numbered)],
    }
    return {name: RegisterFacts(RegisterKind.GENERAL, bits) for bits, names in widths.items() for name in names}


def _of_kind(kind: RegisterKind, bits: int, *names: str) -> dict[str, RegisterFacts]:
    return {name: RegisterFacts(kind, bits) for name in names}


REGISTERS: Final[dict[str, RegisterFacts]] = {
    **_general(),
    **_of_kind(RegisterKind.SEGMENT, 16, "cs", "ds", "es", "fs", "gs", "ss"),
    **_of_kind(RegisterKind.CONTROL, 64, "cr0", "cr2", "cr3", "cr4", "cr8"),
    **_of_kind(RegisterKind.DEBUG, 64, "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"),
    **_of_kind(RegisterKind.VECTOR, 128, *(f"xmm{number}" for number in range(16))),
    **_of_kind(RegisterKind.VECTOR, 256, *(f"ymm{number}" for number in range(16))),
    **_of_kind(RegisterKind.INSTRUCTION_POINTER, 64, "rip"),
}

STACK_POINTERS: Final = frozenset({"rsp", "esp"})

# Words that neither a label nor a constant may take: they would read as syntax.
RESERVED: Final = frozenset(REGISTERS) | {
    "eip", "ip", "riz", "eiz", "ptr", "offset", "short", "near", "far",
    "byte", "word", "dword", "fword", "qword", "tbyte", "xmmword", "ymmword",
}  # fmt: skip
