"""A virtual machine: memory, virtual processors, and who answers for what they cannot do alone.

    with Machine(backing, memory=64 << 20) as machine:
        machine.ports.add(uart.PORTS, Uart(console.write))
        vp = machine.add_vp(3)
        load_raw(machine, vp, code, Mode.REAL)
        stop = machine.run()

`handle` is the whole of what happens between two runs of a virtual processor; `run` (loop) calls it for any number of
them from one thread, `run_async` (loop_async) from an event loop, and a program of its own may do so with a thread for
each: handlers run one at a time, whoever calls.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sidecar.client.vmm import ports
from sidecar.client.vmm.answers import Answer, CpuidHandler, Device, Fault, Stop
from sidecar.client.vmm.backing import VmBacking
from sidecar.client.vmm.errors import Undecodable, VmError
from sidecar.client.vmm.exits import (
    CancelledExit,
    CpuidExit,
    ExceptionExit,
    Exit,
    HaltExit,
    InvalidStateExit,
    MemoryExit,
    MsrExit,
    NotifiedExit,
    PortExit,
    TimeLimitExit,
    TripleFaultExit,
    UnsupportedExit,
    WindowExit,
)
from sidecar.client.vmm.ledger import Ledger
from sidecar.client.vmm.memory import ALL, GuestMemory, Region
from sidecar.client.vmm.mmio.emulator import emulate
from sidecar.client.vmm.ranges import Ranges
from sidecar.client.vmm.vp import Vp
from sidecar.layout.ioctl import GuestRights
from sidecar.layout.x86 import Vector
from sidecar.protocol.typed import TypedCpu

if TYPE_CHECKING:
    from sidecar.client.vmm.loop import Ended

BROKEN = 126
"""Status of a Stop for what the guest can do no more: a triple fault, an instruction that nobody knows."""

RAX, RCX, RDX, RBX = 0, 1, 2, 3
LOW, ALL_ONES = (1 << 32) - 1, (1 << 64) - 1
E = TypeVar("E", bound=Exit)


class Machine:
    """`memory`: bytes from guest-physical address 0 on; 0 for none. The backing is closed with the machine."""

    def __init__(self, backing: VmBacking, *, memory: int = 0, ledger: Ledger | None = None) -> None:
        self.backing, self.ledger = backing, ledger
        self.memory = GuestMemory()
        self.vps: list[Vp] = []
        self.ports: Ranges[Device] = Ranges("port")
        self.devices: Ranges[Device] = Ranges("address")
        self.msrs: Ranges[Device] = Ranges("MSR")
        self.cpuid: Ranges[CpuidHandler] = Ranges("CPUID leaf")
        self._handlers: dict[type[Exit], Callable[[Vp, Any], Stop | None]] = {
            PortExit: self._port, MemoryExit: self._memory, MsrExit: self._msr, CpuidExit: self._cpuid,
            ExceptionExit: self._exception, TripleFaultExit: self._end, InvalidStateExit: self._end,
            UnsupportedExit: self._end, CancelledExit: self._cancelled, HaltExit: self._nothing,
            NotifiedExit: self._nothing, TimeLimitExit: self._nothing, WindowExit: self._nothing,
        }  # fmt: skip
        self.unhandled: list[tuple[Vp, Exit]] = []
        """Exits that came when the machine had just been stopped; the next run() begins with them."""
        self._turn = threading.RLock()
        if memory:
            self.map(0, memory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Takes the virtual processors from their CPUs and gives the memory back."""
        try:
            while self.vps:
                self.remove_vp(self.vps[-1])
        finally:
            self.memory = GuestMemory()
            self.backing.close()

    # --- what it has -----------------------------------------------------------------------------------------------

    def map(self, gpa: int, size: int, rights: GuestRights = ALL) -> memoryview:
        """New memory for the guest, zeroed, in whole pages. Raises ValueError, VmError."""
        region = Region(gpa, self.backing.allocate(size), rights)
        self.memory.add(region)
        try:
            self.backing.map(gpa, region.data, rights)
        except BaseException:
            self.memory.remove(gpa)
            raise
        return region.data

    def unmap(self, gpa: int) -> None:
        """Takes away the memory that begins there: no CPU uses it afterwards. Raises NotMapped, VmError."""
        region = self.memory.remove(gpa)
        self.backing.unmap(gpa, len(region.data))

    def add_vp(self, cpu: int) -> Vp:
        """A virtual processor in the reset state on the CPU with that Linux number, which it claims. Raises VmError."""
        owner = self._given(cpu)
        try:
            vp = Vp(self.backing, owner, len(self.vps))
        except BaseException:
            self._take_back(owner)
            raise
        self.vps.append(vp)
        return vp

    def move_vp(self, vp: Vp, cpu: int) -> None:
        """The stopped virtual processor goes on on the CPU with that Linux number; its old one is free, also for Linux.

        Handlers may do so too. Raises VmError, and as Vp.save() and Vp.restore() do; it is where it was then.
        """
        if vp.running:
            raise VmError(f"{vp} runs: it can be moved when it stands still")
        before, owner = vp.cpu, self._given(cpu)
        try:
            vp.move(owner)
        except BaseException:
            self._take_back(owner)
            raise
        self._take_back(before)

    def remove_vp(self, vp: Vp) -> None:
        """Frees its CPU; what runs on it is stopped first."""
        if vp.running:
            vp.stop()
            vp.finish()
        self._take_back(vp.cpu)
        self.vps.remove(vp)

    def _given(self, cpu: int) -> TypedCpu:
        """A claimed CPU with a virtual processor in the reset state."""
        owner = self.backing.cpu(cpu)
        owner.claim()
        try:
            self.backing.create_vp(owner)
        except BaseException:
            owner.release()
            raise
        return owner

    def _take_back(self, owner: TypedCpu) -> None:
        self.backing.destroy_vp(owner)
        owner.release()

    def on(self, kind: type[E], handler: Callable[[Vp, E], Answer]) -> None:
        """Exits of that class go to the handler, instead of what is written at `handle`."""
        self._handlers[kind] = lambda vp, exit: self._obey(vp, handler(vp, exit))

    @property
    def unclaimed(self) -> dict[str, Counter[int]]:
        """How often what nobody claims was accessed: by port, address, MSR."""
        return {claims.noun: claims.unclaimed for claims in (self.ports, self.devices, self.msrs)}

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self, *, seconds: float | None = None) -> Ended:
        """Runs all virtual processors until one stops the machine, all have halted for good, or the time is over."""
        from sidecar.client.vmm.loop import run

        return run(self, seconds=seconds)

    async def run_async(self, *, seconds: float | None = None) -> Ended:
        """The same in an event loop; if its task is cancelled, the virtual processors stand still afterwards."""
        from sidecar.client.vmm.loop_async import run

        return await run(self, seconds=seconds)

    def handle(self, vp: Vp, exit: Exit) -> Stop | None:
        """Does what an exit asks for; None if the virtual processor can run again, a Stop if the machine ends.

        Ports, memory, MSRs and CPUID go to who has claimed them; nobody's MSR is #GP. HLT is not advanced over: who
        runs the virtual processor waits for an interrupt. Exceptions are delivered. The end are a triple fault, state
        that no guest can have, an exit or instruction that is not known, and a cancelled run. A notification, a time
        limit and an interrupt window mean nothing here.
        """
        with self._turn:
            return self._handlers[type(exit)](vp, exit)

    def _obey(self, vp: Vp, answer: Answer) -> Stop | None:
        """What somebody has answered, if it is no value."""
        if isinstance(answer, Fault):
            vp.fault(answer.vector, error_code=answer.error_code, address=answer.address)
        return answer if isinstance(answer, Stop) else None

    # --- exits -----------------------------------------------------------------------------------------------------

    def _port(self, vp: Vp, exit: PortExit) -> Stop | None:
        try:
            return ports.perform(vp, exit, self.ports, self.memory)
        except Undecodable as error:
            return Stop(BROKEN, f"{vp}: {error}")

    def _memory(self, vp: Vp, exit: MemoryExit) -> Stop | None:
        try:
            return emulate(vp, exit, self.devices, self.memory)
        except Undecodable as error:
            return Stop(BROKEN, f"{vp}: an access to {exit.gpa:#x}: {error}")

    def _msr(self, vp: Vp, exit: MsrExit) -> Stop | None:
        claim = self.msrs.find(exit.msr)
        if claim is None:
            self.msrs.count(exit.msr)
            vp.fault(Vector.GENERAL_PROTECTION, error_code=0)
            return None
        if exit.write:
            answer = claim.owner.write(exit.msr - claim.start, 8, exit.value)
        else:
            answer = claim.owner.read(exit.msr - claim.start, 8)
        if isinstance(answer, (Fault, Stop)):
            return self._obey(vp, answer)
        if not exit.write:
            value = ALL_ONES if answer is None else answer
            vp.set_general(RAX, value & LOW)
            vp.set_general(RDX, value >> 32 & LOW)
        vp.advance_rip(exit.length)
        return None

    def _cpuid(self, vp: Vp, exit: CpuidExit) -> Stop | None:
        claim = self.cpuid.find(exit.leaf)
        answer = claim.owner(exit) if claim is not None else None
        if isinstance(answer, (Fault, Stop)):
            return self._obey(vp, answer)
        for index, value in zip((RAX, RBX, RCX, RDX), answer or exit.default, strict=True):
            vp.set_general(index, value & LOW)
        vp.advance_rip(exit.length)
        return None

    def _exception(self, vp: Vp, exit: ExceptionExit) -> Stop | None:
        vp.fault(exit.vector, error_code=exit.error_code, address=exit.parameter)
        return None

    def _end(self, vp: Vp, exit: Exit) -> Stop | None:
        words = f"{exit.reason} {exit.detail}".strip()
        return Stop(BROKEN, f"{vp} ended in {words} at rip {exit.rip:#x}")

    def _cancelled(self, vp: Vp, exit: CancelledExit) -> Stop | None:
        return Stop(BROKEN, f"{vp} was stopped")

    def _nothing(self, vp: Vp, exit: Exit) -> Stop | None:
        return None

