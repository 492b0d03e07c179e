"""Registers of a virtual processor by name: TLFS's names, or what is left of them without HvX64Register.

    >>> register("rip"), register("HvX64RegisterRip").number == register("Rip").number
    (Register(name='HvX64RegisterRip', number=131088, kind=<Kind.NUMBER: 1>), True)

General registers, CR2 and the legacy floating-point state are in the command page, where each run takes and leaves
them; the others are in the CPU and reached by GET and SET. Ref: docs/virtual_processors.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TypeAlias

from sidecar.layout.hv import HvX64SegmentAttribute
from sidecar.layout.hv_registers import HvRegisterName

PREFIXES = ("hvx64register", "hvregister")
SEGMENT, TABLE = struct.Struct("<QIHH"), struct.Struct("<6xHQ")
CR2_SLOT = RSP_SLOT = 4
"""In CpuContextX64.gps, CR2 has the place that RSP has in the encoding."""


class Kind(Enum):
    """What a value looks like, and where it is."""

    NUMBER = 1
    SEGMENT = 2
    TABLE = 3
    GENERAL = 4
    """In CommandPage.cpu_context.gps."""
    VECTOR = 5
    """16 bytes of CommandPage.cpu_context.fx_state."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register's TLFS name and number."""

    name: str
    number: int
    kind: Kind

    @property
    def slot(self) -> int:
        """GENERAL: index in gps. VECTOR: offset in the FXSAVE image. Ref: SDM vol. 1, 10.5.1."""
        index = self.number & 0xFFFF
        if self.kind is Kind.GENERAL:
            return CR2_SLOT if self.number == HvRegisterName.HvX64RegisterCr2 else index
        if self.number >= HvRegisterName.HvX64RegisterFpControlStatus:
            return 16 * (self.number - HvRegisterName.HvX64RegisterFpControlStatus)
        if self.number >= HvRegisterName.HvX64RegisterFpMmx0:
            return 32 + 16 * (self.number - HvRegisterName.HvX64RegisterFpMmx0)
        return 160 + 16 * index


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register; attributes are bits 40 to 55 of a descriptor (HvX64SegmentAttribute), limit is in bytes."""

    base: int
    limit: int
    selector: int
    attributes: int

    @classmethod
    def of(cls, value: int) -> Segment:
        return cls(*SEGMENT.unpack(value.to_bytes(16, "little")))

    def __int__(self) -> int:
        return int.from_bytes(SEGMENT.pack(self.base, self.limit, self.selector, self.attributes), "little")

    def has(self, attribute: HvX64SegmentAttribute) -> bool:
        return bool(self.attributes & attribute)


@dataclass(frozen=True, slots=True)
class Table:
    """GDTR or IDTR."""

    base: int
    limit: int

    @classmethod
    def of(cls, value: int) -> Table:
        limit, base = TABLE.unpack(value.to_bytes(16, "little"))
        return cls(base, limit)

    def __int__(self) -> int:
        return int.from_bytes(TABLE.pack(self.limit, self.base), "little")


Value: TypeAlias = int | Segment | Table


def _kind(number: int) -> Kind:
    group = number >> 16
    if number == HvRegisterName.HvX64RegisterCr2:
        return Kind.GENERAL
    if group == 2 and number not in (
        HvRegisterName.HvX64RegisterRsp, HvRegisterName.HvX64RegisterRip, HvRegisterName.HvX64RegisterRflags
    ):
        return Kind.GENERAL
    return {3: Kind.VECTOR, 6: Kind.SEGMENT, 7: Kind.TABLE}.get(group, Kind.NUMBER)


REGISTERS = {name: Register(name.name, int(name), _kind(name)) for name in HvRegisterName}
_BY_NAME = {name.name.lower(): entry for name, entry in REGISTERS.items()} | {
    name.name.lower().removeprefix(prefix): entry
    for prefix in PREFIXES for name, entry in REGISTERS.items() if name.name.lower().startswith(prefix)
}  # fmt: skip

GENERAL = tuple(register for register in REGISTERS.values() if register.kind is Kind.GENERAL)


@cache
def register(name: str | int) -> Register:
    """The register of that name, in any case, or of that TLFS number. Raises ValueError."""
    if isinstance(name, int):
        known = {entry.number: entry for entry in REGISTERS.values()}
        return known.get(name) or Register(f"register {name:#x}", name, _kind(name))
    try:
        return _BY_NAME[name.lower()]
    except KeyError:
        raise ValueError(f"no register {name!r}; its TLFS name, such as HvX64RegisterRip, or rip, is wanted") from None


def decoded(entry: Register, value: int) -> Value:
    """A value as GET has it, as the object that it is."""
    if entry.kind is Kind.SEGMENT:
        return Segment.of(value)
    return Table.of(value) if entry.kind is Kind.TABLE else value
