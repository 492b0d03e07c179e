"""Does one instruction in the place of a CPU that stopped at a device's memory.

    answer = emulate(vp, exit, devices, memory)       # None: done, and RIP advanced

Operands are resolved before anything is changed, so an instruction that faults has done nothing. The exit names the
guest-physical address of one access; the linear addresses are computed from the registers, and translated.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.client.vmm.answers import Device, Stop
from sidecar.client.vmm.errors import Undecodable
from sidecar.client.vmm.exits import Intercept, MemoryExit
from sidecar.client.vmm.memory import GuestMemory
from sidecar.client.vmm.mmio import explicit, implicit, strings
from sidecar.client.vmm.mmio.arithmetic import BITS, STATUS, mask
from sidecar.client.vmm.mmio.decoder import (
    MOST_BYTES,
    RIP,
    Immediate,
    Instruction,
    Memory,
    Mode,
    Operand,
    Register,
    Vector,
    decode,
)
from sidecar.client.vmm.mmio.space import Guest, Leave, Place, Space
from sidecar.client.vmm.ranges import Ranges
from sidecar.client.vmm.registers import Segment
from sidecar.layout.hv import HvX64SegmentAttribute
from sidecar.layout.hv_messages import HvExecutionState
from sidecar.layout.schema import PAGE_SIZE

FLAT = frozenset(("es", "cs", "ss", "ds"))
"""Their bases are 0 in 64-bit code."""


class Stopped(Guest, Protocol):
    """A Guest whose RIP can be moved, and that takes exceptions."""

    def advance_rip(self, length: int) -> None: ...
    def fault(self, vector: int, *, error_code: int | None = None, address: int | None = None) -> None: ...


def emulate(guest: Stopped, exit: MemoryExit, devices: Ranges[Device], memory: GuestMemory) -> Stop | None:
    """None if the guest can go on, with the instruction done or an exception. Raises Undecodable."""
    mode = mode_of(exit)
    space = Space(guest, devices, memory, wrap=mask(8 if mode is Mode.BITS_64 else 4))
    work = Emulator(guest, exit, mode, space)
    try:
        finished = work.run()
    except Leave as leave:
        if isinstance(leave.answer, Stop):
            return leave.answer
        guest.fault(leave.answer.vector, error_code=leave.answer.error_code, address=leave.answer.address)
        return None
    if finished:
        guest.advance_rip(work.instruction.length)
    return space.stop


def mode_of(exit: Intercept) -> Mode:
    """What kind of code the guest runs. Ref: SDM vol. 3A, 3.4.5."""
    if exit.state & HvExecutionState.EFER_LMA and exit.cs.has(HvX64SegmentAttribute.LONG):
        return Mode.BITS_64
    return Mode.BITS_32 if exit.cs.has(HvX64SegmentAttribute.DEFAULT) else Mode.BITS_16


class Emulator:
    """One instruction of one stopped guest."""

    def __init__(self, guest: Guest, exit: MemoryExit, mode: Mode, space: Space) -> None:
        self.guest, self.exit, self.mode, self.space = guest, exit, mode, space
        self._bases: dict[str, int] = {}
        self.instruction = self._decoded()
        self._tell_page()

    def run(self) -> bool:
        """False if the instruction is not finished, and to be begun again as it stands now. Raises Leave."""
        instruction, name = self.instruction, self.instruction.name
        if instruction.string:
            return strings.run(self)
        handler = explicit.HANDLERS.get(name) or implicit.HANDLERS.get(name) or explicit.conditional(name)
        if handler is None:
            raise Undecodable(f"'{instruction.text}' at {self.exit.rip:#x} is not emulated")
        handler(self, *instruction.operands)
        return True

    # --- operands --------------------------------------------------------------------------------------------------

    def load(self, operand: Operand, place: Place = ()) -> int:
        """An operand's value, unsigned; `place` is where it is resolved to."""
        if isinstance(operand, Immediate):
            return operand.value & mask(operand.size)
        if isinstance(operand, Register):
            return self.guest.general(operand.index) >> operand.shift & mask(operand.size)
        if isinstance(operand, Vector):
            return int(self.guest.get(f"xmm{operand.index}")[0])
        return self.space.read(place or self.resolve(operand, write=False))

    def store(self, operand: Operand, value: int, place: Place = ()) -> None:
        """Puts a value of the operand's size there; 32 bits of a register clear the rest."""
        if isinstance(operand, Register):
            self.set_register(operand, value)
        elif isinstance(operand, Vector):
            self.guest.set({f"xmm{operand.index}": value})
        elif isinstance(operand, Memory):
            self.space.write(place or self.resolve(operand, write=True), value)

    def set_register(self, register: Register, value: int) -> None:
        if register.size < 4:
            hole = mask(register.size) << register.shift
            old = self.guest.general(register.index)
            value = old & ~hole | (value & mask(register.size)) << register.shift
        self.guest.set_general(register.index, value & mask(8 if register.size != 4 else 4))

    def resolve(self, operand: Operand, *, write: bool) -> Place:
        """Where a memory operand is; nowhere for another."""
        if not isinstance(operand, Memory):
            return ()
        return self.space.resolve(self.linear(operand), operand.size, write=write)

    def linear(self, memory: Memory) -> int:
        """The operand's linear address. Ref: SDM vol. 1, 3.7.5."""
        return self.at(memory.segment, self._offset(memory))

    def at(self, segment: str, offset: int) -> int:
        """segment:offset as a linear address."""
        base = 0 if self.mode is Mode.BITS_64 and segment in FLAT else self._base(segment)
        return base + offset & mask(8 if self.mode is Mode.BITS_64 else 4)

    def set_flags(self, flags: int) -> None:
        if (flags ^ self.guest.rflags) & STATUS:
            self.guest.set(rflags=self.guest.rflags & ~STATUS | flags & STATUS)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _offset(self, memory: Memory) -> int:
        offset = memory.disp
        if memory.base == RIP:
            offset += self.exit.rip + self.instruction.length
        elif memory.base is not None:
            offset += self.guest.general(memory.base)
        if memory.index is not None:
            offset += self.guest.general(memory.index) * memory.scale
        return offset & mask(self.instruction.address_size)

    def _base(self, segment: str) -> int:
        if segment == "cs":
            return self.exit.cs.base
        if segment not in self._bases:
            value = self.guest.get(segment)[0]
            assert isinstance(value, Segment)
            self._bases[segment] = value.base
        return self._bases[segment]

    def _decoded(self) -> Instruction:
        """From the bytes that the exit brought; what is missing, or cut short, is fetched."""
        if self.exit.code:
            try:
                return decode(self.exit.code, self.mode)
            except Undecodable:
                if len(self.exit.code) >= MOST_BYTES:
                    raise
        base = 0 if self.mode is Mode.BITS_64 else self.exit.cs.base
        return decode(self.space.fetch(base + self.exit.rip, MOST_BYTES), self.mode)

    def _tell_page(self) -> None:
        """The exit's own page need not be asked for, if it is plain which access it was."""
        operands = [operand for operand in self.instruction.operands if isinstance(operand, Memory)]
        name = self.instruction.name
        if len(operands) != 1 or self.instruction.string or name in BITS or name in implicit.STACK:
            return
        linear = self.linear(operands[0])
        within = linear % PAGE_SIZE + operands[0].size <= PAGE_SIZE
        if within and linear % PAGE_SIZE == self.exit.gpa % PAGE_SIZE:
            self.space.know(linear, self.exit.gpa, write=False)
            self.space.know(linear, self.exit.gpa, write=True)
