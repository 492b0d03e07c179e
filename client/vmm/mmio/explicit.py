"""Instructions whose text has all of their operands: moves, arithmetic, shifts, bits, exchanges, CMOVcc and SETcc.

Each gets its operands, destination first; places are resolved before anything is changed. Ref: SDM vol. 2, each
instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from sidecar.client.vmm.errors import Undecodable
from sidecar.client.vmm.mmio.arithmetic import (
    BITS,
    ONE_OPERAND,
    SHIFTS,
    TWO_OPERANDS,
    Condition,
    bit,
    condition,
    mask,
    signed,
    sub,
)
from sidecar.client.vmm.mmio.arithmetic import add as plus
from sidecar.client.vmm.mmio.arithmetic import shift as shifted
from sidecar.client.vmm.mmio.decoder import Immediate, Memory, Operand, Register, Vector

if TYPE_CHECKING:
    from sidecar.client.vmm.mmio.emulator import Emulator

Handler: TypeAlias = Callable[..., None]

MOVES = frozenset(("mov", "movabs", "movnti"))
VECTOR_MOVES = frozenset((
    "movups", "movupd", "movaps", "movapd", "movdqu", "movdqa", "movntdq", "movntps", "movntpd", "movntdqa", "lddqu",
    "movd", "movq", "movss", "movsd",
))  # fmt: skip
RAX = 0
ONCE = Immediate(1, 1)


def _move(work: Emulator, target: Operand, source: Operand) -> None:
    place = work.resolve(target, write=True)
    work.store(target, work.load(source), place)


def _vector_move(work: Emulator, target: Operand, source: Operand) -> None:
    """A load of less than 16 bytes clears the rest of the register."""
    if isinstance(target, Memory):
        work.store(target, work.load(source) & mask(target.size))
    elif isinstance(target, (Vector, Register)):
        work.store(target, work.load(source))


def _zero_extended(work: Emulator, target: Operand, source: Operand) -> None:
    work.store(target, work.load(source))


def _sign_extended(work: Emulator, target: Operand, source: Operand) -> None:
    work.store(target, signed(work.load(source), source.size) & mask(target.size))


def _byte_swapped(work: Emulator, target: Operand, source: Operand) -> None:
    value = work.load(source).to_bytes(source.size, "little")
    work.store(target, int.from_bytes(value, "big"))


def _two(work: Emulator, target: Operand, source: Operand) -> None:
    name = work.instruction.name
    kept = name in ("cmp", "test")
    place = work.resolve(target, write=not kept)
    value = work.load(target, place)
    result, flags = TWO_OPERANDS[name](value, work.load(source) & mask(target.size), target.size, work.guest.rflags)
    if not kept:
        work.store(target, result, place)
    work.set_flags(flags)


def _one(work: Emulator, target: Operand) -> None:
    place = work.resolve(target, write=True)
    result, flags = ONE_OPERAND[work.instruction.name](work.load(target, place), target.size, work.guest.rflags)
    work.store(target, result, place)
    work.set_flags(flags)


def _shift(work: Emulator, target: Operand, count: Operand = ONCE) -> None:
    place = work.resolve(target, write=True)
    value = work.load(target, place)
    result, flags = shifted(work.instruction.name, value, work.load(count), target.size, work.guest.rflags)
    work.store(target, result, place)
    work.set_flags(flags)


def _bit(work: Emulator, target: Operand, source: Operand) -> None:
    """A register's number may reach far beyond the operand, an immediate's not. Ref: SDM vol. 2A, BT."""
    if not isinstance(target, Memory):
        raise Undecodable(f"'{work.instruction.text}' reaches no memory")
    number, bits = work.load(source), 8 * target.size
    beyond = 0 if isinstance(source, Immediate) else (signed(number, source.size) // bits) * target.size
    name = work.instruction.name
    linear = work.linear(target) + beyond
    place = work.space.resolve(linear, target.size, write=name != "bt")
    result, flags = bit(name, work.space.read(place), number % bits, work.guest.rflags)
    if name != "bt":
        work.space.write(place, result)
    work.set_flags(flags)


def _exchange(work: Emulator, target: Operand, source: Operand) -> None:
    memory, register = (target, source) if isinstance(target, Memory) else (source, target)
    place = work.resolve(memory, write=True)
    value = work.load(memory, place)
    work.store(memory, work.load(register), place)
    work.store(register, value)


def _exchange_add(work: Emulator, target: Operand, source: Operand) -> None:
    place = work.resolve(target, write=True)
    value = work.load(target, place)
    result, flags = plus(value, work.load(source), target.size, work.guest.rflags)
    work.store(target, result, place)
    work.store(source, value)
    work.set_flags(flags)


def _compare_exchange(work: Emulator, target: Operand, source: Operand) -> None:
    """The destination is written in either case, as the CPU does."""
    place = work.resolve(target, write=True)
    value = work.load(target, place)
    accumulator = Register(RAX, 0, target.size)
    expected = work.load(accumulator)
    _, flags = sub(expected, value, target.size, work.guest.rflags)
    work.store(target, work.load(source) if value == expected else value, place)
    if value != expected:
        work.store(accumulator, value)
    work.set_flags(flags)


def conditional(name: str) -> Handler | None:
    """CMOVcc or SETcc; None for what is neither."""
    if name.startswith("cmov") and (holds := condition(name[4:])):
        return partial(_conditional_move, holds)
    if name.startswith("set") and (holds := condition(name[3:])):
        return partial(_conditional_set, holds)
    return None


def _conditional_move(holds: Condition, work: Emulator, target: Operand, source: Operand) -> None:
    """The source is read whatever the flags are, and 32 bits of the target clear the rest."""
    value = work.load(source)
    work.store(target, value if holds(work.guest.rflags) else work.load(target))


def _conditional_set(holds: Condition, work: Emulator, target: Operand) -> None:
    work.store(target, int(holds(work.guest.rflags)))


HANDLERS: dict[str, Handler] = (
    dict.fromkeys(MOVES, _move) | dict.fromkeys(VECTOR_MOVES, _vector_move) | dict.fromkeys(TWO_OPERANDS, _two)
    | dict.fromkeys(ONE_OPERAND, _one) | dict.fromkeys(SHIFTS, _shift) | dict.fromkeys(BITS, _bit)
    | {
        "movzx": _zero_extended, "movsx": _sign_extended, "movsxd": _sign_extended, "movbe": _byte_swapped,
        "xchg": _exchange, "xadd": _exchange_add, "cmpxchg": _compare_exchange,
    }
)  # fmt: skip
"""But CMOVcc and SETcc."""
