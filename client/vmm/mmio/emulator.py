"""Does one instruction in the place of a CPU that stopped at a device's memory.

    answer = emulate(vp, exit, devices, memory)       # None: done, and RIP advanced

Operands are resolved before anything is changed, so an instruction that faults has done nothing. The exit names the
guest-physical address of one access; the linear addresses are computed from the registers, and translated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

from sidecar.client.vmm.answers import Device, Stop
from sidecar.client.vmm.errors import Undecodable
from sidecar.client.vmm.exits import Intercept, MemoryExit
from sidecar.client.vmm.memory import GuestMemory
from sidecar.client.vmm.mmio import implicit, strings
from sidecar.client.vmm.mmio.arithmetic import (
    BITS,
    ONE_OPERAND,
    SHIFTS,
    STATUS,
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

Handler: TypeAlias = Callable[..., None]

MOVES = frozenset(("mov", "movabs", "movnti"))
VECTOR_MOVES = frozenset((
    "movups", "movupd", "movaps", "movapd", "movdqu", "movdqa", "movntdq", "movntps", "movntpd", "movntdqa", "lddqu",
    "movd", "movq", "movss", "movsd",
))  # fmt: skip
RAX = 0
ONCE = Immediate(1, 1)
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
        handler = _HANDLERS.get(name)
        if handler is None and (handler := _conditional(name)) is None:
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


# --- the instructions: each gets its operands, destination first -------------------------------------------------


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


def _conditional(name: str) -> Handler | None:
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


_HANDLERS: dict[str, Handler] = (
    dict.fromkeys(MOVES, _move) | dict.fromkeys(VECTOR_MOVES, _vector_move) | dict.fromkeys(TWO_OPERANDS, _two)
    | dict.fromkeys(ONE_OPERAND, _one) | dict.fromkeys(SHIFTS, _shift) | dict.fromkeys(BITS, _bit) | implicit.HANDLERS
    | {
        "movzx": _zero_extended, "movsx": _sign_extended, "movsxd": _sign_extended, "movbe": _byte_swapped,
        "xchg": _exchange, "xadd": _exchange_add, "cmpxchg": _compare_exchange,
    }
)  # fmt: skip
