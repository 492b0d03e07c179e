"""Operands: a register, an immediate or a memory reference, read from text and written back in one canonical form.

    [rcx + gs_base*8 - 8 + rsp]   ->  Memory(base rsp, index rcx, ...), because rsp cannot be an index
    dword ptr gs:[0x10]           ->  Memory(size 4, segment gs, no base), a true absolute address

Ref: Intel SDM volume 2A, section 2.1.5 (addressing-mode encoding).
"""

import re
from dataclasses import dataclass
from typing import Final

from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import Linear, Scope, number_text, parse_expression, signed_text
from sidecar.builder.asm.registers import REGISTERS, STACK_POINTERS, RegisterKind

SIZES: Final = {"byte": 1, "word": 2, "dword": 4, "fword": 6, "qword": 8, "tbyte": 10, "xmmword": 16, "ymmword": 32}
_KEYWORDS: Final = {size: keyword for keyword, size in SIZES.items()}
_MEMORY = re.compile(r"(?:(?P<size>[a-z]+)\s+ptr\s*)?(?:(?P<segment>[a-z]{2})\s*:\s*)?\[(?P<address>[^\[\]]*)\]")
_SIZE_WORD = re.compile(rf"({'|'.join(SIZES)})\b")
_DISTANCE_WORD = re.compile(r"(short|near|far|offset)\b")


@dataclass(frozen=True, slots=True)
class Register:
    """A register as an operand."""

    name: str

    @property
    def kind(self) -> RegisterKind:
        """What the register is for."""
        return REGISTERS[self.name].kind

    @property
    def bits(self) -> int:
        """Its width."""
        return REGISTERS[self.name].bits

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Immediate:
    """A number, perhaps with labels in it."""

    value: Linear

    def __str__(self) -> str:
        return str(self.value) if self.value.is_constant else f"{{{self.value}}}"


@dataclass(frozen=True, slots=True)
class Memory:
    """size ptr segment:[base + index*scale + displacement]; size 0 is an operand whose size the text leaves out."""

    size: int
    segment: str
    base: str
    index: str
    scale: int
    displacement: Linear

    def __str__(self) -> str:
        return self.text("")

    def text(self, no_base: str) -> str:
        """The canonical text; `no_base` is written in front of a displacement that has no register beside it."""
        terms = [self.base] if self.base else []
        if self.index:
            terms.append(self.index if self.scale == 1 and self.base else f"{self.index}*{self.scale}")
        address = " + ".join(terms)
        if not self.displacement.is_constant:
            address = " + ".join([*terms, f"{{{self.displacement}}}"])
        elif terms:
            address += signed_text(self.displacement.constant)
        else:
            address = no_base + number_text(self.displacement.constant)
        size = f"{_KEYWORDS[self.size]} ptr " if self.size else ""
        segment = f"{self.segment}:" if self.segment else ""
        return f"{size}{segment}[{address}]"


Operand = Register | Immediate | Memory


def parse_operand(text: str, scope: Scope) -> Operand:
    """The operand that a text describes; raises RefusalError if it describes none, or an ambiguous one."""
    if not text:
        raise RefusalError("an operand is missing")
    if match := _DISTANCE_WORD.match(text):
        raise RefusalError(f"'{match[1]}' is not written: branches choose their size, and a label alone is its address")
    match = _MEMORY.fullmatch(text)
    if match:
        return _memory(match["size"] or "", match["segment"] or "", match["address"], scope)
    if _SIZE_WORD.match(text):
        raise RefusalError(f"'{text}' is not a memory operand: write '{text.split()[0]} ptr [...]'")
    if "[" in text or "]" in text:
        raise RefusalError(f"the brackets of '{text}' do not make one memory operand")
    value = parse_expression(text, scope)
    if not value.registers:
        return Immediate(value)
    if text not in REGISTERS:
        raise RefusalError(f"'{text}' adds to a register outside of brackets")
    if text == "rip":
        raise RefusalError("rip can only stand in an address, as [rip + label]")
    return Register(text)


def _memory(size: str, segment: str, address: str, scope: Scope) -> Memory:
    if size and size not in SIZES:
        raise RefusalError(f"'{size} ptr' is not a size: write one of {', '.join(SIZES)}")
    if segment and (segment not in REGISTERS or REGISTERS[segment].kind is not RegisterKind.SEGMENT):
        raise RefusalError(f"'{segment}' is not a segment register")
    value = parse_expression(address, scope)
    base, index, scale = _base_and_index(value)
    displacement = Linear(value.constant, value.labels)
    return Memory(SIZES.get(size, 0), segment, base, index, scale, displacement)


def _base_and_index(value: Linear) -> tuple[str, str, int]:
    """Which register is the base, which the index: the first unscaled one is the base."""
    terms = list(value.registers)
    for name, _ in terms:
        if REGISTERS[name].kind not in (RegisterKind.GENERAL, RegisterKind.INSTRUCTION_POINTER):
            raise RefusalError(f"'{name}' cannot be part of an address")
    if len(terms) > 2:
        raise RefusalError("an address has at most two registers")
    if terms and terms[-1][0] in STACK_POINTERS and terms[-1][1] == 1:
        terms.reverse()  # the stack pointer has no index encoding: it must be the base
    base = next((name for name, factor in terms if factor == 1), "")
    if base:
        terms.remove((base, 1))
    if not terms:
        return base, "", 1
    (index, scale), *others = terms
    if others:
        raise RefusalError("only one register of an address can be scaled")
    if scale not in (1, 2, 4, 8):
        raise RefusalError(f"'{index}*{scale}' is not a scale of 1, 2, 4 or 8")
    if index in STACK_POINTERS:
        raise RefusalError(f"{index} cannot be an index")
    return base, index, scale
