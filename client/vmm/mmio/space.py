"""A guest's memory by linear address, devices included, for one instruction.

Every access is resolved first, page by page, as the guest's own paging has it: an access that the guest may not make is
a Leave with that exception, before anything has been read or written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sidecar.client.vmm import bus
from sidecar.client.vmm.answers import Device, Fault, Stop
from sidecar.client.vmm.errors import Undecodable
from sidecar.client.vmm.memory import GuestMemory
from sidecar.client.vmm.ranges import Ranges
from sidecar.client.vmm.registers import Value
from sidecar.layout.hv import HvTranslateResult
from sidecar.layout.ioctl import GuestRights as Rights
from sidecar.layout.schema import PAGE_SIZE
from sidecar.protocol.translation import Translation


class Leave(Exception):
    """The instruction is not finished: the guest gets an exception, or the machine ends."""

    def __init__(self, answer: Fault | Stop) -> None:
        super().__init__(repr(answer))
        self.answer = answer


class Guest(Protocol):
    """What an instruction needs of a stopped virtual processor."""

    rflags: int

    def general(self, index: int) -> int: ...
    def set_general(self, index: int, value: int) -> None: ...
    def get(self, *names: str | int) -> tuple[Value, ...]: ...
    def set(self, values: dict[str | int, Value] | None = None, /, **more: Value) -> None: ...
    def translate(self, gva: int, *, write: bool = False, execute: bool = False) -> Translation: ...


NOT_THERE = (
    HvTranslateResult.GPA_UNMAPPED, HvTranslateResult.GPA_NO_READ_ACCESS, HvTranslateResult.GPA_NO_WRITE_ACCESS,
)  # fmt: skip


def reached(found: Translation) -> bool:
    """Did the guest's page tables allow the access, whatever stands at the address?"""
    return found.result == HvTranslateResult.SUCCESS or (found.level == 0 and found.result in NOT_THERE)


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of an access within one page."""

    gpa: int
    size: int


Place = tuple[Piece, ...]


class Space:
    """For one instruction: what a page translates to is asked once. `known` is a page that the exit told of."""

    def __init__(self, guest: Guest, devices: Ranges[Device], memory: GuestMemory, *, wrap: int) -> None:
        self._guest, self._devices, self._memory, self._wrap = guest, devices, memory, wrap
        self._pages: dict[tuple[int, bool], int] = {}
        self.stop: Stop | None = None
        """What a device answered to a write: the instruction is finished, then the machine ends."""

    def know(self, linear: int, gpa: int, *, write: bool) -> None:
        """The page of `linear` translates to that of `gpa`, as the CPU has found."""
        self._pages[linear & -PAGE_SIZE, write] = gpa & -PAGE_SIZE

    def resolve(self, linear: int, size: int, *, write: bool) -> Place:
        """Where the bytes are. Raises Leave with the guest's page fault."""
        pieces = []
        while size:
            linear &= self._wrap
            length = min(size, PAGE_SIZE - linear % PAGE_SIZE)
            pieces.append(Piece(self._page(linear, write) | linear % PAGE_SIZE, length))
            linear, size = linear + length, size - length
        return tuple(pieces)

    def read(self, place: Place) -> int:
        """Raises Leave if a device answers with something else."""
        value = shift = 0
        for piece in place:
            value |= self._read(piece.gpa, piece.size) << shift
            shift += 8 * piece.size
        return value

    def write(self, place: Place, value: int) -> None:
        """Raises Leave for a Fault; a Stop is kept until the instruction is finished."""
        for piece in place:
            self._write(piece.gpa, piece.size, value & bus.all_ones(piece.size))
            value >>= 8 * piece.size

    def fetch(self, linear: int, size: int) -> bytes:
        """Code, up to the first page that cannot be executed; at least one byte. Raises Leave."""
        code = b""
        while size:
            length = min(size, PAGE_SIZE - linear % PAGE_SIZE)
            found = self._guest.translate(linear, execute=True)
            region = self._memory.find(found.gpa) if reached(found) else None
            if region is None and code:
                break
            if region is None:
                raise self._refusal(linear, found)
            code += self._memory.read(found.gpa, min(length, region.end - found.gpa))
            linear, size = linear + length & self._wrap, size - length
        return code

    # --- inside ----------------------------------------------------------------------------------------------------

    def _page(self, linear: int, write: bool) -> int:
        key = linear & -PAGE_SIZE, write
        if key not in self._pages:
            found = self._guest.translate(linear, write=write)
            if not reached(found):
                raise self._refusal(linear, found)
            self._pages[key] = found.gpa & -PAGE_SIZE
        return self._pages[key]

    def _refusal(self, linear: int, found: Translation) -> Exception:
        if found.exception is None:
            return Undecodable(f"linear address {linear:#x} is not to be reached: {found.result.name}")
        raised = found.exception
        return Leave(Fault(raised.vector, raised.error_code, raised.address))

    def _read(self, gpa: int, size: int) -> int:
        region = self._memory.find(gpa)
        if region is not None and region.rights & Rights.READ:
            return int.from_bytes(self._memory.read(gpa, size), "little")
        if size > 8:
            return self._read(gpa, 8) | self._read(gpa + 8, size - 8) << 64
        answer = bus.read(self._devices, gpa, size)
        if not isinstance(answer, int):
            raise Leave(answer)
        return answer

    def _write(self, gpa: int, size: int, value: int) -> None:
        region = self._memory.find(gpa)
        if region is not None and region.rights & Rights.WRITE:
            self._memory.write(gpa, value.to_bytes(size, "little"))
            return
        if size > 8:
            self._write(gpa, 8, value & bus.all_ones(8))
            self._write(gpa + 8, size - 8, value >> 64)
            return
        answer = bus.write(self._devices, gpa, size, value)
        if isinstance(answer, Fault):
            raise Leave(answer)
        self.stop = self.stop or answer
