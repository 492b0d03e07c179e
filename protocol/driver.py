"""The driver's role: whose turn it is on every CPU, by the rules of the status table, over any backing.

Any number of threads may use one PageDriver. CPUs are named by their Linux number.

    with PageDriver(backing) as driver:
        driver.run(3)                       # the command in CPU 3's command page; `commands` fills it
        driver.start(5); driver.stop(5); driver.wait(5)
        driver.remove(7); driver.give_back(7)
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sidecar.layout.control import CpuStatus
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import CpuAway, CpuBusy, ProtocolError, status_name
from sidecar.protocol.fault import Fault
from sidecar.protocol.mapping import initial_state
from sidecar.protocol.recovery import halt_by_init, publish
from sidecar.protocol.runner import COMMAND_SECONDS
from sidecar.protocol.runs import Runs
from sidecar.protocol.slot import IN_FLIGHT, CpuPages, DriverState
from sidecar.protocol.waiting import poll

IN_USE = (DriverState.SYNC, DriverState.STARTING, *IN_FLIGHT)


class PageDriver(Runs):
    """The driver of every sidecar node of one machine; `with` attaches and detaches it."""

    # --- attach and detach -----------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Tells every node whom to notify."""
        for node in self.nodes:
            node.response.store(self.backing.response.pair)

    def detach(self) -> None:
        """Nobody is notified any more."""
        for node in self.nodes:
            node.response.store(0)

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    # --- what there is ---------------------------------------------------------------------------------------------

    @property
    def cpus(self) -> tuple[CpuNumbers, ...]:
        """Every CPU of a sidecar node, the base CPUs, which are Linux's, included."""
        return tuple(slot.numbers for slot in self._slots.values())

    def numbers(self, cpu: int) -> CpuNumbers:
        return self._slot(cpu).numbers

    def pages(self, cpu: int) -> CpuPages:
        return self._slot(cpu).pages

    def command_memory(self, cpu: int) -> memoryview:
        """The command page itself; only for who has claimed the CPU or fills the page in `prepare`."""
        return self._slot(cpu).command_memory

    def open_page(self, cpu: int, owner: object) -> memoryview:
        """The command page: the pages of all CPUs are mapped, and run() and start() see to it that nobody disturbs."""
        slot = self._slot(cpu)
        slot.require_owner(owner)
        return slot.command_memory

    def close_page(self, cpu: int, owner: object) -> None:
        """Nothing is to be given back."""

    def diagnostic_page(self, cpu: int) -> bytes:
        """A copy of the diagnostic page."""
        return bytes(self._slot(cpu).diagnostic_memory)

    def log_page(self, cpu: int) -> bytes:
        """A copy of the log ring."""
        return self._slot(cpu).pages.log.snapshot().data

    def fault(self, cpu: int) -> Fault | None:
        """The CPU's last fault, None if it never had one; complete once the status is FAULTED."""
        return self._slot(cpu).fault()

    def state(self, cpu: int) -> DriverState:
        return self._slot(cpu).state

    def status(self, cpu: int) -> int:
        """The status byte as it is now."""
        return self._slot(cpu).status.load()

    # --- ownership -------------------------------------------------------------------------------------------------

    def claim(self, cpu: int, owner: object) -> None:
        """From now on only calls with this owner are served. Claims do not nest: CpuBusy also for the same owner."""
        slot = self._slot(cpu)
        with slot.lock:
            if slot.owner is not None:
                raise CpuBusy(f"{slot.numbers} is already claimed")
            if slot.state in IN_USE:
                raise CpuBusy(f"{slot.numbers} cannot be claimed: it is {slot.state.value}")
            slot.owner = owner

    def release(self, cpu: int, owner: object) -> None:
        """Ends a claim. Raises CpuBusy while a command runs, or if the claim is another owner's."""
        slot = self._slot(cpu)
        with slot.lock:
            if slot.owner is not owner:
                raise CpuBusy(f"{slot.numbers} is not claimed by who releases it")
            if slot.state in IN_USE:
                raise CpuBusy(f"{slot.numbers} cannot be released: it is {slot.state.value}")
            slot.owner = None

    # --- who has the CPU -------------------------------------------------------------------------------------------

    def remove(self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None) -> None:
        """Takes the CPU out of the sidecar; afterwards it waits for an INIT. Raises as run() does."""
        slot = self._slot(cpu)
        with slot.lock:
            slot.require_available(owner)
            found = slot.move(CpuStatus.IDLE, CpuStatus.REMOVE)
            if found not in (CpuStatus.IDLE, CpuStatus.FAULTED):
                raise ProtocolError(f"{slot.numbers} cannot be removed: its status is {status_name(found)}")
            slot.note_command()
            slot.state = DriverState.SYNC
            slot.generation += 1
            if found == CpuStatus.IDLE:
                self._request(slot)
        asked = found == CpuStatus.IDLE
        if asked and not poll(lambda: slot.status.load() != CpuStatus.REMOVE, seconds, self.backing.check):
            self._time_out(slot, seconds, "REMOVE")
        if slot.status.load() == CpuStatus.FAULTED:
            halt_by_init(self.backing, slot.numbers)
            slot.move(CpuStatus.FAULTED, CpuStatus.REMOVED)
        with slot.lock:
            gone = slot.status.load() == CpuStatus.REMOVED
            slot.state = DriverState.REMOVED if gone else DriverState.LOST
        if not gone:
            raise ProtocolError(f"{slot.numbers} left REMOVE for {status_name(slot.status.load())}")

    def give_back(self, cpu: int, *, owner: object | None = None) -> None:
        """Returns a removed CPU to the sidecar, through the trampoline. Raises CpuBusy, CpuAway, CpuLost."""
        slot = self._slot(cpu)
        with slot.lock:
            slot.require_owner(owner)
            if slot.numbers.index == 0:
                raise CpuAway(f"{slot.numbers} is the first of its node: Linux keeps it")
            if slot.state is not DriverState.REMOVED:
                raise CpuBusy(f"{slot.numbers} is not removed, it is {slot.state.value}")
            slot.state = DriverState.STARTING
            slot.generation += 1
        self._bring_up(slot)

    def note_away(self, cpu: int) -> None:
        """Linux runs the CPU: it took it without asking, by INIT. give_back() is the way back."""
        slot = self._slot(cpu)
        with slot.lock:
            if slot.state in IN_USE:
                raise CpuBusy(f"{slot.numbers} is {slot.state.value}")
            publish(slot, CpuStatus.REMOVED)
            slot.state = DriverState.REMOVED

    def look_again(self) -> None:
        """Another driver's role was played meanwhile: what is not in use is judged by its status byte, as at first."""
        for slot in self._slots.values():
            with slot.lock:
                if slot.state not in IN_USE:
                    slot.state = initial_state(slot.status.load())

    def restart(self, cpu: int, *, owner: object | None = None) -> None:
        """INIT and a new arrival; a started run is abandoned without an answer. Raises CpuBusy, CpuAway, CpuLost."""
        slot = self._slot(cpu)
        with slot.lock:
            slot.require_owner(owner)
            if slot.state not in (DriverState.LOST, *IN_FLIGHT):
                slot.require_available(owner)
            slot.state = DriverState.STARTING
            slot.generation += 1
        self._bring_up(slot)
