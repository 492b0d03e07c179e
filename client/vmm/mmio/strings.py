"""MOVS, STOS, LODS, SCAS and CMPS, with and without a repeat prefix.

Registers are stored after each element, so a fault in the middle leaves the guest where the CPU would. After
MOST_AT_ONCE elements the instruction is left unfinished and the guest runs it again, so that it can be interrupted.
Ref: SDM vol. 2B, REP/REPE/REPZ/REPNE/REPNZ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.client.vmm.errors import Undecodable
from sidecar.client.vmm.mmio.arithmetic import Flag, mask, sub
from sidecar.client.vmm.mmio.decoder import REP, Memory, Register
from sidecar.client.vmm.mmio.space import Place

if TYPE_CHECKING:
    from sidecar.client.vmm.mmio.emulator import Emulator

MOST_AT_ONCE = 1024
RAX, RCX, RSI, RDI = 0, 1, 6, 7


def run(work: Emulator) -> bool:
    """False if elements are left."""
    repeat = work.instruction.repeat
    counter = Register(RCX, 0, work.instruction.address_size)
    one = _Element(work)
    try:
        for _ in range(MOST_AT_ONCE if repeat else 1):
            left = work.load(counter)
            if repeat and not left:
                return True
            one.do()
            if repeat:
                work.set_register(counter, left - 1)
                if left == 1 or one.ends(repeat):
                    return True
            if work.space.stop is not None:
                break
    finally:
        work.set_flags(one.flags)
    return not repeat


class _Element:
    """One element of a string instruction, again and again."""

    def __init__(self, work: Emulator) -> None:
        self._work = work
        memory = [operand for operand in work.instruction.operands if isinstance(operand, Memory)]
        self.kind = work.instruction.name[:4]
        self.size = memory[0].size
        self.flags = work.guest.rflags
        self._step = -self.size if self.flags & Flag.DF else self.size
        self._segment = next((one.segment for one in memory if one.base == RSI), "ds")
        try:
            self._do = _KINDS[self.kind]
        except KeyError:
            raise Undecodable(f"'{work.instruction.text}' at {work.exit.rip:#x} is not emulated") from None

    def do(self) -> None:
        self._do(self)

    def ends(self, repeat: int) -> bool:
        """Does the comparison end the repetition?"""
        if self.kind not in ("scas", "cmps"):
            return False
        return bool(self.flags & Flag.ZF) != (repeat == REP)

    # --- kinds -----------------------------------------------------------------------------------------------------

    def move(self) -> None:
        source, target = self._source(write=False), self._target(write=True)
        self._work.space.write(target, self._work.space.read(source))
        self._advance(RSI, RDI)

    def store(self) -> None:
        self._work.space.write(self._target(write=True), self._accumulator())
        self._advance(RDI)

    def load(self) -> None:
        value = self._work.space.read(self._source(write=False))
        self._work.set_register(Register(RAX, 0, self.size), value)
        self._advance(RSI)

    def scan(self) -> None:
        value = self._work.space.read(self._target(write=False))
        _, self.flags = sub(self._accumulator(), value, self.size, self.flags)
        self._advance(RDI)

    def compare(self) -> None:
        source, target = self._source(write=False), self._target(write=False)
        first, second = self._work.space.read(source), self._work.space.read(target)
        _, self.flags = sub(first, second, self.size, self.flags)
        self._advance(RSI, RDI)

    # --- parts -----------------------------------------------------------------------------------------------------

    def _accumulator(self) -> int:
        return self._work.guest.general(RAX) & mask(self.size)

    def _source(self, *, write: bool) -> Place:
        return self._place(self._segment, RSI, write)

    def _target(self, *, write: bool) -> Place:
        return self._place("es", RDI, write)

    def _place(self, segment: str, register: int, write: bool) -> Place:
        work = self._work
        offset = work.guest.general(register) & mask(work.instruction.address_size)
        return work.space.resolve(work.at(segment, offset), self.size, write=write)

    def _advance(self, *registers: int) -> None:
        work = self._work
        for index in registers:
            register = Register(index, 0, work.instruction.address_size)
            work.set_register(register, work.load(register) + self._step & mask(register.size))


_KINDS = {
    "movs": _Element.move, "stos": _Element.store, "lods": _Element.load, "scas": _Element.scan,
    "cmps": _Element.compare,
}  # fmt: skip
