"""A stopped guest for the emulator: registers in a list, identity paging, and a page that the test can make fault."""

from __future__ import annotations

from dataclasses import dataclass, field

from sidecar.client.vmm.answers import Answer
from sidecar.client.vmm.registers import Kind, Segment, Value, register
from sidecar.layout.hv import HvCacheType, HvTranslateResult, HvX64SegmentAttribute
from sidecar.protocol.translation import RaisedException, Translation

MASK_64 = (1 << 64) - 1


@dataclass
class FakeGuest:
    """`faults`: linear pages that the guest may not access, and the error code that it gets."""

    general_registers: list[int] = field(default_factory=lambda: [0] * 16)
    rflags: int = 2
    bases: dict[str, int] = field(default_factory=dict)
    attributes: int = int(HvX64SegmentAttribute.DEFAULT)
    vectors: list[int] = field(default_factory=lambda: [0] * 16)
    faults: dict[int, int] = field(default_factory=dict)
    advanced: int = 0
    raised: tuple[int, int | None, int | None] | None = None

    def general(self, index: int) -> int:
        return self.general_registers[index]

    def set_general(self, index: int, value: int) -> None:
        self.general_registers[index] = value & MASK_64

    def get(self, *names: str | int) -> tuple[Value, ...]:
        found: list[Value] = []
        for name in names:
            entry = register(name)
            if entry.kind is Kind.SEGMENT:
                found.append(Segment(self.bases.get(str(name), 0), 0xFFFFFFFF, 0, self.attributes))
            else:
                found.append(self.vectors[entry.number & 0xF])
        return tuple(found)

    def set(self, values: dict[str | int, Value] | None = None, /, **more: Value) -> None:
        for name, value in (*(values or {}).items(), *more.items()):
            if name == "rflags":
                self.rflags = int(value)
            else:
                self.vectors[register(name).number & 0xF] = int(value)

    def translate(self, gva: int, *, write: bool = False, execute: bool = False) -> Translation:
        code = self.faults.get(gva & ~0xFFF)
        if code is not None:
            raised = RaisedException(14, code, gva)
            return Translation(HvTranslateResult.PAGE_NOT_PRESENT, 0, 1, HvCacheType.WRITE_BACK, raised)
        return Translation(HvTranslateResult.SUCCESS, gva, 0, HvCacheType.WRITE_BACK, None)

    def advance_rip(self, length: int) -> None:
        self.advanced += length

    def fault(self, vector: int, *, error_code: int | None = None, address: int | None = None) -> None:
        self.raised = vector, error_code, address


class MemoryDevice:
    """A device that is a piece of memory, and remembers what was done to it: (write, offset, size, value)."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.seen: list[tuple[bool, int, int, int]] = []

    def read(self, offset: int, size: int) -> Answer:
        value = int.from_bytes(self.data[offset : offset + size], "little")
        self.seen.append((False, offset, size, value))
        return value

    def write(self, offset: int, size: int, value: int) -> Answer:
        self.data[offset : offset + size] = value.to_bytes(size, "little")
        self.seen.append((True, offset, size, value))
        return None
