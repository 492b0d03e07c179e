"""Instructions with operands that their text does not have: products and quotients, CMPXCHG8B, PUSH and POP.

As everywhere, places are resolved before anything is changed. Ref: SDM vol. 2, each instruction; vol. 1, 6.2.3 (stack).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.client.vmm.answers import Fault
from sidecar.client.vmm.errors import Undecodable
from sidecar.client.vmm.mmio.arithmetic import Flag, mask, signed
from sidecar.client.vmm.mmio.decoder import Immediate, Memory, Mode, Operand, Register
from sidecar.client.vmm.mmio.space import Leave
from sidecar.client.vmm.registers import Segment
from sidecar.layout.hv import HvX64SegmentAttribute
from sidecar.layout.x86 import Vector

if TYPE_CHECKING:
    from sidecar.client.vmm.mmio.emulator import Emulator

RAX, RCX, RDX, RBX, RSP = range(5)
STACK = frozenset(("push", "pop"))


def multiply(work: Emulator, target: Operand, *sources: Operand) -> None:
    """MUL and IMUL of an accumulator; IMUL of a register with one or two sources. SF, ZF, AF, PF are undefined."""
    size, is_signed = target.size, work.instruction.name == "imul"
    if not sources:
        factors = work.load(Register(RAX, 0, size)), work.load(target)
    elif len(sources) == 1:
        factors = work.load(target), work.load(sources[0])
    else:
        factors = work.load(sources[0]), signed(work.load(sources[1]), sources[1].size) & mask(size)
    first, second = (signed(one, size) if is_signed else one for one in factors)
    product = first * second
    low = product & mask(size)
    if sources:
        work.store(target, low)
    else:
        _store_wide(work, size, product)
    wide = product != (signed(low, size) if is_signed else low)
    both = int(Flag.CF | Flag.OF)
    work.set_flags(work.guest.rflags & ~both | (both if wide else 0))


def divide(work: Emulator, target: Operand) -> None:
    """DIV and IDIV: #DE for a quotient that does not fit. All flags are undefined."""
    size, is_signed = target.size, work.instruction.name == "idiv"
    dividend, divisor = _load_wide(work, size), work.load(target)
    if is_signed:
        dividend, divisor = signed(dividend, 2 * size), signed(divisor, size)
    least, most = (-(1 << 8 * size - 1), mask(size) >> 1) if is_signed else (0, mask(size))
    quotient = abs(dividend) // abs(divisor) if divisor else 0
    if (dividend < 0) != (divisor < 0):
        quotient = -quotient
    if not divisor or not least <= quotient <= most:
        raise Leave(Fault(Vector.DIVIDE_ERROR))
    remainder = dividend - quotient * divisor
    if size == 1:
        work.set_register(Register(RAX, 0, 2), quotient & 0xFF | (remainder & 0xFF) << 8)
    else:
        work.set_register(Register(RAX, 0, size), quotient & mask(size))
        work.set_register(Register(RDX, 0, size), remainder & mask(size))


def compare_exchange_wide(work: Emulator, target: Operand) -> None:
    """CMPXCHG8B and CMPXCHG16B: the destination is written in either case; only ZF changes."""
    half = target.size // 2
    if isinstance(target, Memory) and half == 8 and work.linear(target) % 16:
        raise Leave(Fault(Vector.GENERAL_PROTECTION, 0))
    place = work.resolve(target, write=True)
    value = work.load(target, place)
    equal = value == _load_wide(work, half)
    new = work.load(Register(RBX, 0, half)) | work.load(Register(RCX, 0, half)) << 8 * half
    work.store(target, new if equal else value, place)
    if not equal:
        _store_wide(work, half, value)
    work.set_flags(work.guest.rflags & ~Flag.ZF | (Flag.ZF if equal else 0))


def push(work: Emulator, source: Operand) -> None:
    """The source's address is that before RSP changes."""
    _require_size(work, source)
    place = work.resolve(source, write=False)
    pointer = _stack_pointer(work)
    top = work.load(pointer) - source.size & mask(pointer.size)
    stack = work.space.resolve(work.at("ss", top), source.size, write=True)
    work.space.write(stack, work.load(source, place))
    work.set_register(pointer, top)


def pop(work: Emulator, target: Operand) -> None:
    """The target's address is that after RSP has changed."""
    _require_size(work, target)
    pointer = _stack_pointer(work)
    top = work.load(pointer)
    stack = work.space.resolve(work.at("ss", top), target.size, write=False)
    work.set_register(pointer, top + target.size & mask(pointer.size))
    try:
        place = work.resolve(target, write=True)
        work.store(target, work.space.read(stack), place)
    except Leave:
        work.set_register(pointer, top)
        raise


def _load_wide(work: Emulator, size: int) -> int:
    """The accumulator of twice that size: AX, DX:AX, EDX:EAX, RDX:RAX."""
    if size == 1:
        return work.load(Register(RAX, 0, 2))
    return work.load(Register(RAX, 0, size)) | work.load(Register(RDX, 0, size)) << 8 * size


def _store_wide(work: Emulator, size: int, value: int) -> None:
    if size == 1:
        work.set_register(Register(RAX, 0, 2), value & 0xFFFF)
        return
    work.set_register(Register(RAX, 0, size), value & mask(size))
    work.set_register(Register(RDX, 0, size), value >> 8 * size & mask(size))


def _require_size(work: Emulator, operand: Operand) -> None:
    """An immediate's size is not the one that is pushed."""
    if isinstance(operand, Immediate):
        raise Undecodable(f"'{work.instruction.text}' at {work.exit.rip:#x} is not emulated")


def _stack_pointer(work: Emulator) -> Register:
    """RSP, ESP or SP, by the mode and SS."""
    if work.mode is Mode.BITS_64:
        return Register(RSP, 0, 8)
    (stack,) = work.guest.get("ss")
    assert isinstance(stack, Segment)
    return Register(RSP, 0, 4 if stack.has(HvX64SegmentAttribute.DEFAULT) else 2)


HANDLERS = {
    "mul": multiply, "imul": multiply, "div": divide, "idiv": divide, "cmpxchg8b": compare_exchange_wide,
    "cmpxchg16b": compare_exchange_wide, "push": push, "pop": pop,
}  # fmt: skip
