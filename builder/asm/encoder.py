"""The one place where machine code is made: keystone encodes one instruction, capstone decodes it, both must agree.

keystone 0.9.2 silently encodes something else than was written for many spellings, so its answer is only believed if
capstone reads back exactly one instruction of that length with the same mnemonic and the same operands, and if there is
no operand-size prefix that the text does not ask for: where no operand shows the size (`push 5` in 16-bit code) the
comparison alone would not see it.
"""

from dataclasses import replace
from functools import cache
from typing import Any, Final

import capstone
import keystone
from capstone import x86 as decoded

from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.instruction import Instruction
from sidecar.builder.asm.operands import Immediate, Memory, Operand, Register
from sidecar.builder.asm.registers import RegisterKind
from sidecar.builder.asm.tables import (
    ALIASES,
    BYTES,
    COMMUTATIVE,
    DESCRIPTOR_TABLE,
    FAR_THROUGH_MEMORY,
    FIXED_SIZE,
    MANDATORY_66,
    PREFIXES,
    STRING_INSTRUCTIONS,
    UNCHECKED,
)

_OPERAND_SIZE: Final = 0x66
_EVEX: Final = 0x62
_KEYSTONE_REASONS: Final = {
    "Invalid operand": "invalid operands",
    "Missing CPU feature": "it does not exist in {bits}-bit code",
}
# Legacy prefix -> its place among the others; the order of GNU as, so that the bytes are equal.
_PREFIX_ORDER: Final = {
    **dict.fromkeys((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65), 0),
    0x67: 1,
    _OPERAND_SIZE: 2,
    **dict.fromkeys((0xF0, 0xF2, 0xF3), 3),
}


def _engines() -> dict[int, tuple[Any, Any]]:
    """A keystone and a capstone for each mode. `syntax` is never assigned: doing so switches keystone's radix to 16."""
    engines: dict[int, tuple[Any, Any]] = {}
    for bits in (16, 32, 64):
        assembler = keystone.Ks(keystone.KS_ARCH_X86, getattr(keystone, f"KS_MODE_{bits}"))
        disassembler = capstone.Cs(capstone.CS_ARCH_X86, getattr(capstone, f"CS_MODE_{bits}"))
        disassembler.detail = True
        engines[bits] = (assembler, disassembler)
    return engines


_ENGINES: Final = _engines()


@cache
def encode(bits: int, instruction: Instruction) -> bytes:
    """The bytes of an instruction whose operands are finished numbers; RefusalError if they cannot be trusted."""
    code = _own_bytes(bits, instruction)
    if code is None:
        code = _adjust(bits, instruction, _ask_keystone(bits, instruction))
    prefixes, rest = _cut_prefixes(code)
    if instruction.prefix:
        prefixes += bytes([PREFIXES[instruction.prefix]])
    ordered: list[int] = sorted(prefixes, key=_place)
    code = bytes(ordered) + rest
    if instruction.mnemonic not in UNCHECKED:
        _check(bits, instruction, code)
    return code


def _own_bytes(bits: int, instruction: Instruction) -> bytes | None:
    if instruction.operands or instruction.mnemonic not in BYTES:
        return None
    code = BYTES[instruction.mnemonic].get(bits)
    if code is None:
        raise RefusalError(f"'{instruction.mnemonic}' does not exist in {bits}-bit code")
    return code


def _ask_keystone(bits: int, instruction: Instruction) -> bytes:
    try:
        code, _ = _ENGINES[bits][0].asm(_keystone_text(bits, instruction), 0, as_bytes=True)
    except keystone.KsError as error:
        reason = error.message.partition(" (KS_")[0]
        reason = _KEYSTONE_REASONS.get(reason, reason[:1].lower() + reason[1:])
        raise RefusalError(reason.format(bits=bits)) from None
    if not code:
        raise RefusalError("the encoder makes nothing of it")
    return bytes(code)


def _keystone_text(bits: int, instruction: Instruction) -> str:
    """The spelling keystone takes: far branches without size, no lgdtd, and no address without a register.

    In 64-bit mode an address without registers gets the pseudo index riz: keystone makes any other spelling of it
    relative to rip.
    """
    mnemonic, operands = instruction.mnemonic, instruction.operands
    if mnemonic in FAR_THROUGH_MEMORY:
        operands = tuple(replace(operand, size=0) if isinstance(operand, Memory) else operand for operand in operands)
    if mnemonic in DESCRIPTOR_TABLE:
        mnemonic = mnemonic[:4]
    return Instruction("", mnemonic, operands).text("riz*1 + " if bits == 64 else "")


def _adjust(bits: int, instruction: Instruction, code: bytes) -> bytes:
    """keystone's bytes with the operand-size prefix set right where no spelling makes keystone do it."""
    match instruction:
        case Instruction(mnemonic=mnemonic) if mnemonic in DESCRIPTOR_TABLE:
            wide = mnemonic.endswith("d")  # lgdtd, lidtd: the form with 32 bits of base, in 16-bit code
        case Instruction(mnemonic=mnemonic, operands=(Memory(size=size),)) if mnemonic in FAR_THROUGH_MEMORY:
            wide = (size == 6) == (bits == 16)  # m16:32 is the natural size of 32 and 64-bit code
        case Instruction(mnemonic="push" | "pop", operands=(Register(kind=RegisterKind.SEGMENT),)):
            wide = False
        case Instruction(mnemonic="mov", operands=(Memory(), Register(kind=RegisterKind.SEGMENT))):
            wide = False  # always 16 bits in memory
        case _:
            return code
    prefixes, rest = _cut_prefixes(code)
    kept = bytes(prefix for prefix in prefixes if prefix != _OPERAND_SIZE)
    return kept + (bytes([_OPERAND_SIZE]) if wide else b"") + rest


def _place(prefix: int) -> int:
    return _PREFIX_ORDER[prefix]


def _cut_prefixes(code: bytes) -> tuple[bytes, bytes]:
    count = 0
    while count < len(code) - 1 and code[count] in _PREFIX_ORDER:
        count += 1
    return code[:count], code[count:]


def _check(bits: int, instruction: Instruction, code: bytes) -> None:
    """Decode the bytes and compare everything with what was asked for."""
    found = next(_ENGINES[bits][1].disasm(code, 0), None)
    if _cut_prefixes(code)[1][0] == _EVEX:
        raise RefusalError("it would need an EVEX prefix, which is AVX-512")
    if found is None or found.size != len(code):
        raise RefusalError(f"it encodes as {code.hex(' ')}, which is not one instruction")
    if not _same_mnemonic(instruction, found) or not _same_operands(instruction, found, bits):
        shown = f"{found.mnemonic} {found.op_str}".strip()
        raise RefusalError(f"it would encode as '{shown}' ({code.hex(' ')}): write that if it is meant")
    if _OPERAND_SIZE in _cut_prefixes(code)[0] and not _wants_operand_size(bits, instruction):
        raise RefusalError(f"it would encode with an operand-size prefix that it does not ask for ({code.hex(' ')})")
    if extension := FAR_THROUGH_MEMORY.get(instruction.mnemonic):
        opcode, modrm = code[_opcode_position(code) :][:2]
        if (opcode, modrm >> 3 & 7) != (0xFF, extension):
            raise RefusalError(f"it encodes as {code.hex(' ')}, which is not a far branch")


def _opcode_position(code: bytes) -> int:
    position = len(_cut_prefixes(code)[0])
    return position + (0x40 <= code[position] <= 0x4F and code[position + 1] == 0xFF)


def _same_mnemonic(instruction: Instruction, found: Any) -> bool:
    *prefixes, mnemonic = found.mnemonic.split()
    if mnemonic not in ALIASES.get(instruction.mnemonic, (instruction.mnemonic,)):
        return False
    wanted = [PREFIXES[instruction.prefix]] if instruction.prefix else []
    return [PREFIXES.get(prefix) for prefix in prefixes] == wanted


def _same_operands(instruction: Instruction, found: Any, bits: int) -> bool:
    if instruction.mnemonic in STRING_INSTRUCTIONS and not instruction.operands:
        return True  # capstone shows the implied operands, the text has none
    wanted = instruction.operands
    if len(wanted) != len(found.operands):
        return False

    def same(order: tuple[Operand, ...]) -> bool:
        pairs = zip(order, found.operands, strict=True)
        return all(_same_operand(operand, other, found, instruction, bits) for operand, other in pairs)

    return same(wanted) or (instruction.mnemonic in COMMUTATIVE and same(wanted[::-1]))


def _same_operand(wanted: Operand, operand: Any, found: Any, instruction: Instruction, bits: int) -> bool:
    match wanted:
        case Register(name=name):
            return bool(operand.type == decoded.X86_OP_REG and found.reg_name(operand.reg) == name)
        case Immediate(value=value):
            mask = (1 << _immediate_bits(instruction, bits)) - 1
            return bool(operand.type == decoded.X86_OP_IMM and operand.imm & mask == value.constant & mask)
        case Memory():
            return bool(operand.type == decoded.X86_OP_MEM and _same_memory(wanted, operand, found, instruction, bits))


def _immediate_bits(instruction: Instruction, bits: int) -> int:
    """The width in which the number counts: that of the first operand, which the immediate is extended to."""
    match instruction.operands[0]:
        case Register(kind=RegisterKind.GENERAL, bits=width):
            return width
        case Memory(size=size) if size:
            return size * 8
    return bits


def _same_memory(wanted: Memory, operand: Any, found: Any, instruction: Instruction, bits: int) -> bool:
    def name(register: int) -> str:
        return str(found.reg_name(register) or "")

    memory = operand.mem
    mask = (1 << address_bits(wanted, bits)) - 1
    sized = wanted.size and instruction.mnemonic not in FIXED_SIZE and instruction.mnemonic not in FAR_THROUGH_MEMORY
    return bool(
        (name(memory.segment), name(memory.base), name(memory.index)) == (wanted.segment, wanted.base, wanted.index)
        and (not wanted.index or memory.scale == wanted.scale)
        and memory.disp & mask == wanted.displacement.constant & mask
        and (not sized or operand.size == wanted.size)
    )


def address_bits(memory: Memory, bits: int) -> int:
    """The width of the address a memory operand computes: that of its registers, without any that of the mode."""
    name = memory.base or memory.index
    return Register(name).bits if name else bits


def _wants_operand_size(bits: int, instruction: Instruction) -> bool:
    """True if the text asks for the operand size that is not the mode's own, or if 0x66 belongs to the opcode."""
    if instruction.mnemonic in MANDATORY_66 | STRING_INSTRUCTIONS.keys() | DESCRIPTOR_TABLE:
        return True
    if instruction.mnemonic in FAR_THROUGH_MEMORY or not instruction.operands:
        return instruction.mnemonic in FAR_THROUGH_MEMORY or instruction.mnemonic in BYTES
    other = 32 if bits == 16 else 16
    operands = instruction.operands
    if instruction.mnemonic in ("in", "out"):
        operands = tuple(operand for operand in operands if operand != Register("dx"))
    return any(_shows_size(operand, other) for operand in operands)


def _shows_size(operand: Operand, bits: int) -> bool:
    match operand:
        case Register(kind=RegisterKind.GENERAL, bits=width):
            return width == bits
        case Register(kind=RegisterKind.VECTOR):
            return True
        case Memory(size=size):
            return size * 8 == bits
        case _:
            return False
