"""Results and flags of the instructions that are emulated. Sizes are in bytes; values are unsigned.

Flags that the manual leaves undefined stay as they are. Ref: SDM vol. 2, each instruction's "Flags Affected".
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntFlag
from typing import TypeAlias


class Flag(IntFlag):
    """Ref: SDM vol. 1, 3.4.3.1."""

    CF = 1 << 0
    PF = 1 << 2
    AF = 1 << 4
    ZF = 1 << 6
    SF = 1 << 7
    DF = 1 << 10
    OF = 1 << 11


STATUS = Flag.CF | Flag.PF | Flag.AF | Flag.ZF | Flag.SF | Flag.OF
Outcome: TypeAlias = tuple[int, int]
"""The result, cut to its size, and the flags."""

Condition: TypeAlias = Callable[[int], bool]
"""Do these flags meet it?"""


def mask(size: int) -> int:
    return (1 << 8 * size) - 1


def signed(value: int, size: int) -> int:
    """The value as two's complement has it."""
    return value - (1 << 8 * size) if value >> 8 * size - 1 & 1 else value


def _with(flags: int, changed: int, **bits: object) -> int:
    return flags & ~changed | sum(int(Flag[name]) for name, value in bits.items() if value)


def _result_flags(result: int, size: int) -> dict[str, object]:
    return {"ZF": result == 0, "SF": result >> 8 * size - 1 & 1, "PF": not (result & 0xFF).bit_count() & 1}


def add(a: int, b: int, size: int, flags: int, carry: int = 0) -> Outcome:
    total = a + b + carry
    result = total & mask(size)
    overflow = (a ^ result) & (b ^ result) & 1 << 8 * size - 1
    half = (a ^ b ^ result) & 0x10
    return result, _with(flags, STATUS, CF=total > mask(size), OF=overflow, AF=half, **_result_flags(result, size))


def sub(a: int, b: int, size: int, flags: int, borrow: int = 0) -> Outcome:
    result = a - b - borrow & mask(size)
    overflow = (a ^ b) & (a ^ result) & 1 << 8 * size - 1
    half = (a ^ b ^ result) & 0x10
    return result, _with(flags, STATUS, CF=a < b + borrow, OF=overflow, AF=half, **_result_flags(result, size))


def logic(result: int, size: int, flags: int) -> Outcome:
    """Of AND, OR, XOR and TEST; AF is undefined, and cleared as processors do."""
    return result, _with(flags, STATUS, **_result_flags(result, size))


def increment(a: int, size: int, flags: int, step: int) -> Outcome:
    """Of INC (1) and DEC (-1): CF stays."""
    result, changed = add(a, 1, size, flags) if step > 0 else sub(a, 1, size, flags)
    return result, changed & ~Flag.CF | flags & Flag.CF


def shift(kind: str, a: int, count: int, size: int, flags: int) -> Outcome:
    """Of SHL, SHR, SAR, ROL and ROR; the count is masked here. OF is defined for a count of 1 only."""
    bits = 8 * size
    count &= 0x3F if size == 8 else 0x1F
    if not count:
        return a, flags
    if kind in ("rol", "ror"):
        return _rotate(kind, a, count, bits, flags)
    top = a >> bits - 1 & 1
    if kind == "shl":
        carry, result = a << count >> bits & 1, a << count & mask(size)
        overflow = carry ^ result >> bits - 1
    else:
        wide = signed(a, size) if kind == "sar" else a
        carry, result = wide >> count - 1 & 1, wide >> count & mask(size)
        overflow = top if kind == "shr" else 0
    changed = STATUS & ~Flag.AF & ~(0 if count == 1 else Flag.OF)
    return result, _with(flags, changed, CF=carry, OF=count == 1 and overflow, **_result_flags(result, size))


def _rotate(kind: str, a: int, count: int, bits: int, flags: int) -> Outcome:
    by = count % bits if kind == "rol" else -count % bits
    result = (a << by | a >> bits - by) & (1 << bits) - 1
    top, low = result >> bits - 1 & 1, result & 1
    carry = low if kind == "rol" else top
    overflow = carry ^ (top if kind == "rol" else result >> bits - 2 & 1)
    changed = Flag.CF | (Flag.OF if count == 1 else 0)
    return result, _with(flags, changed, CF=carry, OF=count == 1 and overflow)


def bit(kind: str, a: int, place: int, flags: int) -> Outcome:
    """Of BT, BTS, BTR and BTC: CF is the bit as it was, the rest stays."""
    one = 1 << place
    result = {"bt": a, "bts": a | one, "btr": a & ~one, "btc": a ^ one}[kind]
    return result, _with(flags, Flag.CF, CF=a & one)


TWO_OPERANDS: dict[str, Callable[[int, int, int, int], Outcome]] = {
    "add": add,
    "adc": lambda a, b, size, flags: add(a, b, size, flags, flags & Flag.CF),
    "sub": sub,
    "sbb": lambda a, b, size, flags: sub(a, b, size, flags, flags & Flag.CF),
    "cmp": sub,
    "and": lambda a, b, size, flags: logic(a & b, size, flags),
    "test": lambda a, b, size, flags: logic(a & b, size, flags),
    "or": lambda a, b, size, flags: logic(a | b, size, flags),
    "xor": lambda a, b, size, flags: logic(a ^ b, size, flags),
}

ONE_OPERAND: dict[str, Callable[[int, int, int], Outcome]] = {
    "inc": lambda a, size, flags: increment(a, size, flags, 1),
    "dec": lambda a, size, flags: increment(a, size, flags, -1),
    "neg": lambda a, size, flags: sub(0, a, size, flags),
    "not": lambda a, size, flags: (a ^ mask(size), flags),
}

SHIFTS = ("shl", "shr", "sar", "rol", "ror")
BITS = ("bt", "bts", "btr", "btc")

_CONDITIONS: dict[str, Callable[[int], object]] = {
    "o": lambda f: f & Flag.OF,
    "b": lambda f: f & Flag.CF,
    "e": lambda f: f & Flag.ZF,
    "be": lambda f: f & (Flag.CF | Flag.ZF),
    "s": lambda f: f & Flag.SF,
    "p": lambda f: f & Flag.PF,
    "l": lambda f: bool(f & Flag.SF) != bool(f & Flag.OF),
    "le": lambda f: f & Flag.ZF or bool(f & Flag.SF) != bool(f & Flag.OF),
}
_OPPOSITES = {"no": "o", "ae": "b", "ne": "e", "a": "be", "ns": "s", "np": "p", "ge": "l", "g": "le"}


def condition(suffix: str) -> Condition | None:
    """Of CMOVcc and SETcc; None for what is no condition. Ref: SDM vol. 1, appendix B."""
    if suffix in _CONDITIONS:
        return lambda flags: bool(_CONDITIONS[suffix](flags))
    if suffix in _OPPOSITES:
        return lambda flags: not _CONDITIONS[_OPPOSITES[suffix]](flags)
    return None
