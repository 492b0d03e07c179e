"""Labels in operands: which forms exist in which mode, and what kind of field each becomes.

[rip + label + 8]               64-bit code             relative, 4 bytes
[label], [ebx + label]          16 and 32-bit code      absolute, as wide as the address
mov edi, label                  all modes               absolute, 4 bytes (64-bit code: extended with zeros)
label_a - label_b               anywhere                difference, known when both have their addresses
"""

from sidecar.builder.asm.encoder import address_bits
from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import Linear
from sidecar.builder.asm.fragments import FieldKind, Target
from sidecar.builder.asm.instruction import Instruction
from sidecar.builder.asm.operands import Memory, Register
from sidecar.builder.asm.ranges import operand_bits
from sidecar.builder.asm.registers import RegisterKind

FieldForm = tuple[FieldKind, Target, int, bool]  # kind, target, width in bytes, signed


def make_target(value: Linear, text: str = "") -> Target:
    """What a value with labels refers to: one label, or the difference of two, plus a constant."""
    text = text or str(value)
    match sorted(value.labels, key=lambda term: -term[1]):
        case [(symbol, 1)]:
            return Target(symbol, "", value.constant, text)
        case [(symbol, 1), (minus, -1)]:
            return Target(symbol, minus, value.constant, text)
    raise RefusalError(f"'{text}' is neither a label nor the difference of two labels")


def displacement_target(memory: Memory, bits: int) -> FieldForm:
    """The field for the labels of a memory operand."""
    target = make_target(memory.displacement)
    if memory.base == "rip":
        if target.minus:
            raise RefusalError("an address relative to rip takes one label, not a difference")
        return FieldKind.RELATIVE, target, 4, True
    width = address_bits(memory, bits)
    if target.minus:
        return FieldKind.DIFFERENCE, target, min(width, 32) // 8, width == 64
    if width == 64:
        raise RefusalError(
            f"'{target.symbol}' is no constant, and as a label it has no absolute address here: write [rip + label]"
        )
    return FieldKind.ABSOLUTE, target, width // 8, False


def immediate_target(instruction: Instruction, value: Linear, bits: int) -> FieldForm:
    """The field for the labels of an immediate."""
    target = make_target(value)
    width = operand_bits(instruction, bits)
    if width == 8:
        raise RefusalError(f"'{target.text}' is no constant, and a label does not fit in 8 bits")
    if target.minus:
        return FieldKind.DIFFERENCE, target, min(width, 32) // 8, width == 64
    if bits == 64 and not _is_move_to_32(instruction):
        raise RefusalError(
            f"'{target.symbol}' is no constant, and the address of a label is taken with lea reg, [rip + label]"
        )
    return FieldKind.ABSOLUTE, target, width // 8, False


def _is_move_to_32(instruction: Instruction) -> bool:
    match instruction:
        case Instruction(mnemonic="mov", operands=(Register(kind=RegisterKind.GENERAL, bits=32), _)):
            return True
    return False
