"""What a PageDriver did to its CPUs and saw of them, written down while it works.

    with Recorder(session.driver) as recorder:
        session.cpus[1].none()
        recorder.told(1)
    acceptor.accept(recorder.trace())

One lock makes an access and its note one step, so the order of the notes is the order of the driver's accesses. The
CPUs' own steps lie between them; the acceptor finds out which.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

from sidecar.layout.control import ControlPage
from sidecar.layout.diagnostics import DiagnosticPage
from sidecar.layout.x86 import Icr
from sidecar.protocol.atomics import AtomicU8, AtomicU64
from sidecar.protocol.backing import Backing, NodePages, ResponseTarget
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.slot import Slot

DELIVERY = 0xFF00
"""Of an ICR value: what makes an INIT, a STARTUP or a fixed interrupt of it. Ref: SDM vol. 3A, figure 11-28."""


@dataclass(frozen=True, slots=True)
class Look:
    """The status was read; then `arrivals` and `commands`, the CPU's own counts, which may be further by then."""

    cpu: int
    status: int
    arrivals: int
    commands: int


@dataclass(frozen=True, slots=True)
class Move:
    """A compare-exchange of the status by the driver, which found `found`."""

    cpu: int
    old: int
    new: int
    found: int


@dataclass(frozen=True, slots=True)
class Sent:
    """An interrupt to the CPU."""

    cpu: int
    kind: Icr


@dataclass(frozen=True, slots=True)
class Told:
    """Somebody was told that the CPU's command has ended."""

    cpu: int


Event: TypeAlias = Look | Move | Sent | Told


@dataclass(slots=True)
class _Notes:
    """The trace that grows; a look that shows what the one before has shown is left out."""

    events: list[Event] = field(default_factory=list)
    seen: dict[int, Look] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, event: Event) -> None:
        if isinstance(event, Look):
            if self.seen.get(event.cpu) == event:
                return
            self.seen[event.cpu] = event
        else:
            self.seen.pop(event.cpu, None)
        self.events.append(event)


class _Status(AtomicU8):
    """A status byte whose every access is noted."""

    __slots__ = ("_commands", "_notes", "_slot")

    def __init__(self, slot: Slot, notes: _Notes) -> None:
        super().__init__(slot.node.memory, int(ControlPage.cpu_status) + slot.numbers.index)
        self._slot, self._notes = slot, notes
        self._commands = AtomicU64(slot.diagnostic_memory, int(DiagnosticPage.counters.commands))

    def load(self) -> int:
        with self._notes.lock:
            status = super().load()
            self._notes.add(Look(self._slot.numbers.linux, status, self._slot.arrivals.load(), self._commands.load()))
        return status

    def compare_exchange(self, expected: int, new: int) -> int:
        with self._notes.lock:
            found = super().compare_exchange(expected, new)
            self._notes.add(Move(self._slot.numbers.linux, expected, new, found))
        return found


class _Sender:
    """A backing whose every interrupt is noted before it is sent."""

    def __init__(self, backing: Backing, notes: _Notes) -> None:
        self._backing, self._notes = backing, notes
        self._numbers = {apic_id: number for number, apic_id in enumerate(backing.apic_ids)}

    @property
    def nodes(self) -> Sequence[NodePages]:
        return self._backing.nodes

    @property
    def apic_ids(self) -> Sequence[int]:
        return self._backing.apic_ids

    @property
    def trampoline_pa(self) -> int:
        return self._backing.trampoline_pa

    @property
    def response(self) -> ResponseTarget:
        return self._backing.response

    def view(self, pa: int, size: int) -> memoryview:
        return self._backing.view(pa, size)

    def send(self, icr: int) -> None:
        with self._notes.lock:
            self._notes.add(Sent(self._numbers[icr >> 32], Icr(icr & DELIVERY)))
            self._backing.send(icr)

    def drain(self, seconds: float) -> None:
        self._backing.drain(seconds)

    def check(self) -> None:
        self._backing.check()


class Recorder:
    """Notes everything that `driver` does, within the block; nothing may run when it begins."""

    def __init__(self, driver: PageDriver) -> None:
        self._driver, self._notes = driver, _Notes()
        self._slots = [slot for node in driver.nodes for slot in node.slots if slot.numbers.index]
        self._backing, self._statuses = driver.backing, [slot.status for slot in self._slots]

    def __enter__(self) -> Self:
        self._driver.backing = _Sender(self._backing, self._notes)
        for slot in self._slots:
            slot.status = _Status(slot, self._notes)
            slot.status.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot, status in zip(self._slots, self._statuses, strict=True):
            slot.status.load()
            slot.status = status
        self._driver.backing = self._backing

    def told(self, cpu: int) -> None:
        """The end of the CPU's command was told to the caller."""
        with self._notes.lock:
            self._notes.add(Told(cpu))

    def trace(self) -> list[Event]:
        """What was noted until now."""
        with self._notes.lock:
            return list(self._notes.events)
