"""Which numbers fit where: immediates by instruction and width, displacements and registers of addresses by mode.

keystone truncates what does not fit without a word (`mov al, 256`, `ret 70000`), so everything is checked before it.

Ref: Intel SDM volume 2A, sections 2.1.5 and 2.2.1.
"""

from typing import Final

from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import Linear, number_text
from sidecar.builder.asm.instruction import Instruction
from sidecar.builder.asm.operands import Memory, Register
from sidecar.builder.asm.registers import RegisterKind
from sidecar.builder.asm.tables import BIT_TESTS, SHIFTS

_ADDRESSES_16: Final = frozenset(
    {("", ""), ("bx", ""), ("bp", ""), ("si", ""), ("di", ""), ("bx", "si"), ("bx", "di"), ("bp", "si"), ("bp", "di")}
)


def operand_bits(instruction: Instruction, bits: int) -> int:
    """The width an immediate counts in: that of the first operand, or of the stack for push."""
    match instruction.operands[0]:
        case Register(kind=RegisterKind.GENERAL, bits=width):
            return width
        case Memory(size=size) if size:
            return size * 8
    return bits


def check_immediate(value: Linear, instruction: Instruction, bits: int) -> int:
    """The number in the form that is encoded, or RefusalError if it has no room."""
    number = value.constant
    low, high, kind = _immediate_range(instruction, bits)
    width = operand_bits(instruction, bits)
    if value.complement and low <= -(1 << width - 1) and -(1 << width) <= number < low and width < 64:
        return number + (1 << width)  # ~x for an x that uses the top bit
    if not low <= number <= high:
        raise RefusalError(f"{number_text(number)} does not fit in {kind} ({number_text(low)} to {number_text(high)})")
    return number


def _immediate_range(instruction: Instruction, bits: int) -> tuple[int, int, str]:
    mnemonic, operands = instruction.mnemonic, instruction.operands
    width = operand_bits(instruction, bits)
    if mnemonic in SHIFTS | BIT_TESTS:
        return 0, width - 1, f"a bit number of {width} bits"
    if mnemonic in ("ret", "retf", "retfq"):
        return 0, 0xFFFF, "16 unsigned bits"
    vector = any(isinstance(operand, Register) and operand.kind is RegisterKind.VECTOR for operand in operands)
    if mnemonic in ("int", "in", "out") or vector:
        return 0, 0xFF, "8 unsigned bits"
    if width == 64 and not (mnemonic == "mov" and isinstance(operands[0], Register)):
        return -(1 << 31), (1 << 31) - 1, "32 bits that are sign-extended"
    return -(1 << width - 1), (1 << width) - 1, f"{width} bits"


def check_address(memory: Memory, bits: int) -> None:
    """Refuse an address that the mode does not have, or that does not mean what it says."""
    _check_segment(memory, bits)
    registers = [name for name in (memory.base, memory.index) if name]
    if "rip" in registers:
        if bits != 64 or memory.index:
            raise RefusalError("rip can only stand in 64-bit code, as [rip + label]")
        if memory.displacement.is_constant:
            raise RefusalError("an address relative to rip needs a label: [rip + label]")
        return
    widths = {Register(name).bits for name in registers}
    allowed = {16: {16, 32}, 32: {32}, 64: {64}}[bits]
    if len(widths) > 1 or not widths <= allowed:
        wanted = " or ".join(str(width) for width in sorted(allowed))
        raise RefusalError(f"an address in {bits}-bit code is made of {wanted}-bit registers")
    width = widths.pop() if widths else bits
    if width == 16 and ((memory.base, memory.index) not in _ADDRESSES_16 or memory.scale != 1):
        raise RefusalError("a 16-bit address is bx or bp, plus si or di")
    low, high = -(1 << min(width, 32) - 1), (1 << (31 if width == 64 else width)) - 1
    if memory.displacement.is_constant and not low <= memory.displacement.constant <= high:
        raise RefusalError(f"the displacement {number_text(memory.displacement.constant)} does not fit in its field")


def _check_segment(memory: Memory, bits: int) -> None:
    """Refuse a segment that changes nothing: a reader would believe that it did."""
    if bits == 64 and memory.segment not in ("", "fs", "gs"):
        raise RefusalError(f"{memory.segment}: means nothing in 64-bit code, only fs: and gs: do")
    default = "ss" if memory.base in ("esp", "ebp", "bp") else "ds"
    if memory.segment == default:
        raise RefusalError(f"{memory.segment}: is the segment of this address anyway")
