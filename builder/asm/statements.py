"""From an instruction's text to a fragment: operands parsed, sizes settled, ranges checked, labels given placeholders.

    mov [rip + control_page + 8], eax
        canonical    mov dword ptr [rip + {control_page + 8}], eax
        encoded      mov dword ptr [rip + 0x11223344], eax       and the field is where 44 33 22 11 stands

Ref: Intel SDM volume 2A, section 2.2.1 (immediates and displacements in 64-bit mode).
"""

import re
from dataclasses import replace
from typing import Final

from sidecar.builder.asm.branches import FAR_BRANCHES, branch, far_branch, is_branch
from sidecar.builder.asm.encoder import encode
from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.expressions import Linear, Scope
from sidecar.builder.asm.fields import displacement_target, immediate_target
from sidecar.builder.asm.fragments import Branch, Code, Field, FieldKind, Target
from sidecar.builder.asm.instruction import Instruction
from sidecar.builder.asm.operands import Immediate, Memory, Operand, Register, parse_operand
from sidecar.builder.asm.ranges import check_address, check_immediate
from sidecar.builder.asm.registers import LEGACY_WORDS, REGISTERS, RegisterFacts, RegisterKind
from sidecar.builder.asm.source import cut_word, split_operands
from sidecar.builder.asm.spelling import check_spelling
from sidecar.builder.asm.tables import BANNED, FIXED_SIZE, PREFIXES, SIZE_NEEDED

_MNEMONIC = re.compile(r"[a-z][a-z0-9]*")
# Stand for a label's value until it is known. No byte occurs twice, so that each is found again in the code.
_DISPLACEMENT_MARK: Final = 0x11223344
_IMMEDIATE_MARK: Final = 0x15263748


def instruction_fragment(statement: str, bits: int, scope: Scope) -> Code | Branch:
    """The fragment of one instruction; raises RefusalError if it is not exactly one that can be encoded."""
    prefix, mnemonic, rest = _split_mnemonic(statement)
    if reason := BANNED.get((mnemonic, bits)):
        raise RefusalError(reason)
    if mnemonic in FAR_BRANCHES and ":" in rest and "[" not in rest:
        return far_branch(mnemonic, rest, bits, scope)
    operands = tuple(parse_operand(part, scope) for part in split_operands(rest))
    if is_branch(mnemonic) and len(operands) == 1 and isinstance(operands[0], Immediate):
        if prefix:
            raise RefusalError(f"'{prefix}' means nothing before '{mnemonic}'")
        return branch(mnemonic, operands[0].value, bits)
    instruction = _settle(Instruction(prefix, mnemonic, operands), bits)
    check_spelling(instruction, bits)
    return _encode_with_fields(instruction, bits)


def _split_mnemonic(statement: str) -> tuple[str, str, str]:
    word, rest = cut_word(statement)
    prefix = ""
    if word in PREFIXES:
        if not rest:
            raise RefusalError(f"'{word}' has no instruction after it")
        prefix = word
        word, rest = cut_word(rest)
    if not _MNEMONIC.fullmatch(word):
        raise RefusalError(f"'{word}' is not a mnemonic")
    return prefix, word, rest


def _settle(instruction: Instruction, bits: int) -> Instruction:
    """The instruction with every memory size filled in and every number in range."""
    operands = tuple(_with_size(operand, instruction) for operand in instruction.operands)
    instruction = replace(instruction, operands=_natural_segment_load(instruction.mnemonic, operands, bits))
    settled: list[Operand] = []
    for operand in instruction.operands:
        if isinstance(operand, Memory):
            check_address(operand, bits)
        elif isinstance(operand, Immediate) and operand.value.is_constant:
            operand = Immediate(Linear(check_immediate(operand.value, instruction, bits)))
        settled.append(operand)
    return replace(instruction, operands=tuple(settled))


def _with_size(operand: Operand, instruction: Instruction) -> Operand:
    """A memory operand with the size that the register beside it gives; refuses what nothing gives a size."""
    if not isinstance(operand, Memory):
        return operand
    mnemonic = instruction.mnemonic
    if mnemonic in FIXED_SIZE:
        if operand.size:
            raise RefusalError(f"{mnemonic} takes no size keyword")
        return operand
    registers = [other for other in instruction.operands if isinstance(other, Register)]
    widths = [other.bits // 8 for other in registers if other.kind in (RegisterKind.GENERAL, RegisterKind.SEGMENT)]
    if widths and mnemonic not in SIZE_NEEDED:
        if operand.size not in (0, widths[0]):
            raise RefusalError(f"the memory operand has {operand.size} bytes, the register {widths[0]}")
        return replace(operand, size=widths[0])
    vector = any(other.kind is RegisterKind.VECTOR for other in registers)
    if not operand.size and (mnemonic in SIZE_NEEDED or not vector):
        raise RefusalError("the size of the memory operand is open: write byte, word, dword or qword ptr")
    return operand


def _natural_segment_load(mnemonic: str, operands: tuple[Operand, ...], bits: int) -> tuple[Operand, ...]:
    """`mov ds, ax` as `mov ds, eax` (in 16-bit code the reverse): the same load without a prefix that says nothing."""
    match mnemonic, operands:
        case "mov", (Register(kind=RegisterKind.SEGMENT) as segment, Register(kind=RegisterKind.GENERAL, name=name)):
            return segment, Register(_in_width(name, 16 if bits == 16 else 32))
    return operands


def _in_width(name: str, bits: int) -> str:
    """A 16 or 32-bit register as the one of the given width; any other as it is."""
    for word in (name, name.removeprefix("e"), name[:-1] + "w"):
        if REGISTERS.get(word) == RegisterFacts(RegisterKind.GENERAL, 16):
            dword = f"e{word}" if word in LEGACY_WORDS else f"{word[:-1]}d"
            return word if bits == 16 else dword
    return name


def _encode_with_fields(instruction: Instruction, bits: int) -> Code:
    numbered: list[Operand] = []
    wanted: list[tuple[int, int, FieldKind, Target, bool]] = []
    for operand in instruction.operands:
        match operand:
            case Memory(displacement=value) if not value.is_constant:
                kind, target, width, signed = displacement_target(operand, bits)
                mark = _DISPLACEMENT_MARK & (1 << 8 * width) - 1
                operand = replace(operand, displacement=Linear(mark))
                wanted.append((mark, width, kind, target, signed))
            case Immediate(value=value) if not value.is_constant:
                kind, target, width, signed = immediate_target(instruction, value, bits)
                mark = _IMMEDIATE_MARK & (1 << 8 * width) - 1
                operand = Immediate(Linear(mark))
                wanted.append((mark, width, kind, target, signed))
        numbered.append(operand)
    code = bytearray(encode(bits, replace(instruction, operands=tuple(numbered))))
    fields = tuple(_take_field(code, *want) for want in wanted)
    return Code(bytes(code), fields, str(instruction))


def _take_field(code: bytearray, mark: int, width: int, kind: FieldKind, target: Target, signed: bool) -> Field:
    """Find a placeholder in the code, empty it, and describe it."""
    pattern = mark.to_bytes(width, "little")
    if code.count(pattern) != 1:
        raise RefusalError(f"no field of {width} bytes for '{target.text}' in {code.hex(' ')}")
    offset = code.index(pattern)
    code[offset : offset + width] = bytes(width)
    return Field(offset, width, kind, target, signed)
