"""What a guest did to a port: IN and OUT, and INS and OUTS with the guest's memory on the other side.

Ref: SDM vol. 2, IN, INS, OUT, OUTS.
"""

from __future__ import annotations

from sidecar.client.vmm import bus
from sidecar.client.vmm.answers import Device, Fault, Stop
from sidecar.client.vmm.exits import PortExit
from sidecar.client.vmm.memory import GuestMemory
from sidecar.client.vmm.mmio.arithmetic import Flag, mask
from sidecar.client.vmm.mmio.decoder import Memory, Mode, decode
from sidecar.client.vmm.mmio.emulator import Stopped, mode_of
from sidecar.client.vmm.mmio.space import Leave, Space
from sidecar.client.vmm.ranges import Ranges
from sidecar.client.vmm.registers import Segment

RAX, RCX, RSI, RDI = 0, 1, 6, 7
MOST_AT_ONCE = 4096
"""Elements of a repeated instruction for which the guest is not asked whether it takes an interrupt."""


def perform(guest: Stopped, exit: PortExit, devices: Ranges[Device], memory: GuestMemory) -> Stop | None:
    """None if the guest can go on: with the access done, or with an exception. Raises Undecodable."""
    if exit.string:
        return _String(guest, exit, devices, memory).perform()
    if exit.write:
        answer = bus.write(devices, exit.port, exit.size, exit.rax & bus.all_ones(exit.size))
    else:
        answer = _into_rax(guest, exit, bus.read(devices, exit.port, exit.size))
    if isinstance(answer, Fault):
        guest.fault(answer.vector, error_code=answer.error_code, address=answer.address)
        return None
    if exit.write or answer is None:
        guest.advance_rip(exit.length)
    return answer


def _into_rax(guest: Stopped, exit: PortExit, value: int | Stop | Fault) -> Stop | Fault | None:
    if not isinstance(value, int):
        return value
    kept = guest.general(RAX) & ~mask(exit.size) if exit.size < 4 else 0
    guest.set_general(RAX, kept | value)
    return None


class _String:
    """INS or OUTS. The decoder knows the size of its address and its segment, which no back end tells reliably."""

    def __init__(self, guest: Stopped, exit: PortExit, devices: Ranges[Device], memory: GuestMemory) -> None:
        self.guest, self.exit, self.devices, self.memory = guest, exit, devices, memory
        self.mode = mode_of(exit)
        self.space = Space(guest, devices, memory, wrap=mask(8 if self.mode is Mode.BITS_64 else 4))
        base = 0 if self.mode is Mode.BITS_64 else exit.cs.base
        instruction = decode(exit.code or self.space.fetch(base + exit.rip, 15), self.mode)
        self.length = instruction.length
        self.address_mask = mask(instruction.address_size)
        self.address_size = instruction.address_size
        self.pointer = RSI if exit.write else RDI
        self.base = self._base(next((one.segment for one in instruction.operands if isinstance(one, Memory)), "ds"))

    def perform(self) -> Stop | None:
        try:
            finished = self._elements()
        except Leave as leave:
            if isinstance(leave.answer, Stop):
                return leave.answer
            self.guest.fault(leave.answer.vector, error_code=leave.answer.error_code, address=leave.answer.address)
            return None
        if finished:
            self.guest.advance_rip(self.length)
        return self.space.stop

    def _elements(self) -> bool:
        """False if elements are left: the guest runs the instruction again."""
        for _ in range(MOST_AT_ONCE if self.exit.rep else 1):
            left = self.guest.general(RCX) & self.address_mask
            if self.exit.rep and not left:
                return True
            self._one()
            if self.exit.rep:
                self._put(RCX, left - 1)
                if left == 1:
                    return True
            if self.space.stop is not None:
                break
        return not self.exit.rep

    def _one(self) -> None:
        exit = self.exit
        offset = self.guest.general(self.pointer) & self.address_mask
        linear = self.base + offset & (mask(8) if self.mode is Mode.BITS_64 else mask(4))
        place = self.space.resolve(linear, exit.size, write=not exit.write)
        if exit.write:
            answer = bus.write(self.devices, exit.port, exit.size, self.space.read(place))
            if isinstance(answer, Fault):
                raise Leave(answer)
            self.space.stop = answer
        else:
            value = bus.read(self.devices, exit.port, exit.size)
            if not isinstance(value, int):
                raise Leave(value)
            self.space.write(place, value)
        step = -exit.size if exit.rflags & Flag.DF else exit.size
        self._put(self.pointer, offset + step)

    def _put(self, index: int, value: int) -> None:
        """A register of the address's size; 32 bits clear the rest."""
        kept = self.guest.general(index) & ~self.address_mask if self.address_size == 2 else 0
        self.guest.set_general(index, kept | value & self.address_mask)

    def _base(self, segment: str) -> int:
        if self.mode is Mode.BITS_64 and (not self.exit.write or segment not in ("fs", "gs")):
            return 0
        if not self.exit.write:
            return self.exit.es.base
        if segment == "ds":
            return self.exit.ds.base
        value = self.guest.get(segment)[0]
        assert isinstance(value, Segment)
        return value.base


