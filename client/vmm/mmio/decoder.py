"""An instruction as data, decoded by capstone; this is the only module that knows capstone, and it loads it when used.

    >>> decode(bytes.fromhex("8b4708"), Mode.BITS_64)
    Instruction(name='mov', operands=(Register(index=0, ...), Memory(base=7, ..., disp=8, ...)), length=3, ...)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from typing import Any, TypeAlias

from sidecar.client.vmm.errors import Undecodable

MOST_BYTES = 15
STRING_OPCODES = frozenset((0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF))
REP, REPNE = 0xF3, 0xF2
RIP = 16
"""Base of a rip-relative operand."""

_RSP, _RBP = 4, 5
_LEGACY = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")


class Mode(IntEnum):
    """The code segment's kind, in bytes of its default address."""

    BITS_16 = 2
    BITS_32 = 4
    BITS_64 = 8


@dataclass(frozen=True, slots=True)
class Register:
    """A general register, or 8 or more bits of it from `shift` on; size in bytes."""

    index: int
    shift: int
    size: int


@dataclass(frozen=True, slots=True)
class Vector:
    """XMM register."""

    index: int
    size: int


@dataclass(frozen=True, slots=True)
class Immediate:
    value: int
    size: int


@dataclass(frozen=True, slots=True)
class Memory:
    """base and index are numbers of general registers or None; segment is `es` to `gs`."""

    base: int | None
    index: int | None
    scale: int
    disp: int
    segment: str
    size: int


Operand: TypeAlias = Register | Vector | Immediate | Memory


@dataclass(frozen=True, slots=True)
class Instruction:
    """name as capstone has it; repeat is REP, REPNE or 0; address_size in bytes; text for people."""

    name: str
    operands: tuple[Operand, ...]
    length: int
    address_size: int
    repeat: int
    string: bool
    text: str


@lru_cache(maxsize=1024)
def decode(code: bytes, mode: Mode) -> Instruction:
    """The first instruction of `code`. Raises Undecodable for what is none, or has operands of another kind."""
    found = next(_engine(mode).disasm(code[:MOST_BYTES], 0, 1), None)
    if found is None:
        raise Undecodable(f"{code.hex(' ') or 'no bytes'} is no instruction in {mode * 8}-bit code")
    text = f"{found.mnemonic} {found.op_str}".strip()
    return Instruction(
        name=found.insn_name(),
        operands=tuple(_operand(found, operand, text) for operand in found.operands),
        length=int(found.size),
        address_size=int(found.addr_size),
        repeat=found.prefix[0] if found.prefix[0] in (REP, REPNE) else 0,
        string=found.opcode[0] in STRING_OPCODES,
        text=text,
    )


@cache
def _engine(mode: Mode) -> Any:
    import capstone  # 40 ms, and only who has devices in memory needs it

    kinds = {Mode.BITS_16: capstone.CS_MODE_16, Mode.BITS_32: capstone.CS_MODE_32, Mode.BITS_64: capstone.CS_MODE_64}
    engine = capstone.Cs(capstone.CS_ARCH_X86, kinds[mode])
    engine.detail = True
    return engine


def _operand(found: Any, operand: Any, text: str) -> Operand:
    from capstone import x86_const as x86

    if operand.type == x86.X86_OP_IMM:
        return Immediate(int(operand.imm), int(operand.size))
    if operand.type == x86.X86_OP_MEM:
        return _memory(found, operand)
    name = found.reg_name(operand.reg)
    if name in _registers():
        return _registers()[name]
    if name.startswith("xmm"):
        return Vector(int(name[3:]), int(operand.size))
    raise Undecodable(f"'{text}' has the operand {name}, which is not emulated")


def _memory(found: Any, operand: Any) -> Memory:
    base, index = (_number(found, number) for number in (operand.mem.base, operand.mem.index))
    segment = found.reg_name(operand.mem.segment) if operand.mem.segment else None
    if segment is None:
        segment = "ss" if base in (_RSP, _RBP) else "ds"
    return Memory(base, index, int(operand.mem.scale), int(operand.mem.disp), segment, int(operand.size))


def _number(found: Any, number: int) -> int | None:
    if not number:
        return None
    name = found.reg_name(number)
    if name in ("rip", "eip"):
        return RIP
    return None if name in ("riz", "eiz") else _registers()[name].index


@cache
def _registers() -> dict[str, Register]:
    table = {f"{name[0]}l": Register(index, 0, 1) for index, name in enumerate(_LEGACY[:4])}
    table |= {f"{name[0]}h": Register(index, 8, 1) for index, name in enumerate(_LEGACY[:4])}
    table |= {f"{name}l": Register(index, 0, 1) for index, name in enumerate(_LEGACY) if index >= 4}
    for index, name in enumerate(_LEGACY):
        table |= {prefix + name: Register(index, 0, size) for prefix, size in (("", 2), ("e", 4), ("r", 8))}
    for index in range(8, 16):
        sizes = (("b", 1), ("w", 2), ("d", 4), ("", 8))
        table |= {f"r{index}{suffix}": Register(index, 0, size) for suffix, size in sizes}
    return table
