"""What the encoder would take but a reader takes differently: prefixes without effect, widths the mode does not have.

Each is refused with what to write instead. Refusals of whole mnemonics stand in `tables.BANNED`.

Ref: Intel SDM volume 1, section 3.4.1.1 (general-purpose registers in 64-bit mode); volume 2A, section 2.2.1.2.
"""

from typing import Final

from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import Linear
from sidecar.builder.asm.instruction import Instruction
from sidecar.builder.asm.operands import Immediate, Memory, Operand, Register
from sidecar.builder.asm.registers import REGISTERS, RegisterFacts, RegisterKind
from sidecar.builder.asm.tables import FAR_THROUGH_MEMORY, LOCKABLE, REPEATABLE, STRING_INSTRUCTIONS

_HIGH_BYTES: Final = frozenset({"ah", "ch", "dh", "bh"})
_NEW_LOW_BYTES: Final = frozenset({"spl", "bpl", "sil", "dil"})
_MODE_WIDE: Final = frozenset({"push", "pop", "call", "jmp"})
_SEGMENT_STORES: Final = frozenset({"str", "sldt", "smsw", "lar", "lsl"})


def check_spelling(instruction: Instruction, bits: int) -> None:
    """Refuse an instruction that does not mean what it seems to."""
    _check_prefix(instruction)
    _check_registers(instruction, bits)
    _check_memory_operands(instruction)
    match instruction:
        case Instruction(mnemonic="nop", operands=(_, *_)):
            raise RefusalError("nop takes no operand: padding is made by .align")
        case Instruction(mnemonic="int", operands=(Immediate(value=Linear(constant=3)),)):
            raise RefusalError("write int3, which is the instruction debuggers know")
        case Instruction(mnemonic="mov", operands=(Register(name="cs"), *_)):
            raise RefusalError("cs is loaded by a far jump or return, not by mov")


def _check_prefix(instruction: Instruction) -> None:
    prefix, mnemonic, operands = instruction.prefix, instruction.mnemonic, instruction.operands
    if not prefix:
        return
    fitting = LOCKABLE if prefix == "lock" else REPEATABLE[prefix]
    if mnemonic not in fitting or (operands and prefix != "lock"):
        raise RefusalError(f"'{prefix}' means nothing before '{mnemonic}'")
    if prefix == "lock" and not any(isinstance(operand, Memory) for operand in operands):
        raise RefusalError("'lock' needs a memory operand to change")


def _check_memory_operands(instruction: Instruction) -> None:
    """keystone crashes on some of these."""
    operands = instruction.operands
    vector = any(isinstance(operand, Register) and operand.kind is RegisterKind.VECTOR for operand in operands)
    if instruction.mnemonic in STRING_INSTRUCTIONS and operands and not vector:
        raise RefusalError(f"{instruction.mnemonic} takes no operands: it works on rsi, rdi and rax by itself")
    if sum(isinstance(operand, Memory) for operand in operands) > 1:
        raise RefusalError("only one operand can be in memory")


def _check_registers(instruction: Instruction, bits: int) -> None:
    mnemonic, operands = instruction.mnemonic, instruction.operands
    names = {name for operand in operands for name in _names(operand)}
    missing = sorted(name for name in names if _is_wide(name) or _needs_rex(name))
    if missing and bits != 64:
        raise RefusalError(f"{missing[0]} does not exist in {bits}-bit code")
    rex = any(_needs_rex(name) for name in names)
    high = sorted(_HIGH_BYTES & names)
    if high and (rex or any(_width(operand) == 64 for operand in operands)):
        raise RefusalError(f"{high[0]} cannot stand beside an operand that needs a REX prefix")
    widths = {_width(operand) for operand in operands}
    if mnemonic in _MODE_WIDE and bits == 64 and widths & {8, 16, 32}:
        raise RefusalError(f"'{mnemonic}' takes 64-bit operands in 64-bit code")
    memory = any(isinstance(operand, Memory) for operand in operands)
    if mnemonic in ("call", "jmp") and bits == 16 and memory and 32 in widths:
        raise RefusalError(f"'{mnemonic} dword ptr' is a far branch to some assemblers: write l{mnemonic}, or word ptr")
    if mnemonic in FAR_THROUGH_MEMORY and not widths <= {32, 48}:
        raise RefusalError("a far pointer is fword ptr (32-bit offset) or dword ptr (16-bit offset)")
    if 64 in widths and _stores_segment(instruction):
        raise RefusalError("write the 32-bit register, which clears the upper half as well")


def _stores_segment(instruction: Instruction) -> bool:
    segment = any(_is_segment(operand) for operand in instruction.operands)
    return instruction.mnemonic in _SEGMENT_STORES or (instruction.mnemonic == "mov" and segment)


def _is_segment(operand: Operand) -> bool:
    return isinstance(operand, Register) and operand.kind is RegisterKind.SEGMENT


def _names(operand: Operand) -> list[str]:
    match operand:
        case Register(name=name):
            return [name]
        case Memory(base=base, index=index):
            return [name for name in (base, index) if name]
        case _:
            return []


def _is_wide(name: str) -> bool:
    return REGISTERS[name] == RegisterFacts(RegisterKind.GENERAL, 64)


def _needs_rex(name: str) -> bool:
    """True for the registers that came with 64-bit mode: r8 to r15 in every width, spl to dil, cr8, xmm8 and up."""
    digits = name.lstrip("abcdefghijklmnopqrstuvwxyz").rstrip("bwd")
    return (digits.isdigit() and int(digits) >= 8) or name in _NEW_LOW_BYTES


def _width(operand: Operand) -> int:
    """Bits of a general register or of a memory operand with a size, else 0."""
    match operand:
        case Register(kind=RegisterKind.GENERAL, bits=width):
            return width
        case Memory(size=size):
            return size * 8
        case _:
            return 0
