"""Runs all virtual processors of a machine from one thread.

    ended = run(machine, seconds=10)
    ended.how, ended.stop

One virtual processor is run and waited for in a single call of the driver. Several are started, and whichever ends its
run first is handled first. One that halts is left alone until an interrupt waits for it, or somebody notifies it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

from sidecar.client.vmm.answers import Stop
from sidecar.client.vmm.exits import CancelledExit, Exit, HaltExit, TimeLimitExit
from sidecar.client.vmm.vp import Vp
from sidecar.layout.x86 import Rflags

if TYPE_CHECKING:
    from sidecar.client.vmm.backing import Waiter
    from sidecar.client.vmm.machine import Machine


LOOK_SECONDS = 1.0
"""The longest wait without a look at the clock."""


class How(Enum):
    """Why a machine stands still."""

    STOPPED = "stopped"
    """A handler answered Stop, or the guest cannot go on."""
    HALTED = "halted"
    """Every virtual processor is in HLT with interrupts off."""
    TIME = "out of time"


@dataclass(frozen=True, slots=True)
class Ended:
    """stop: with STOPPED. The machine can be run again from where it stands."""

    how: How
    stop: Stop | None = None


class Progress:
    """What is known of each virtual processor between two runs; for the loops of threads and of asyncio alike."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._halted: dict[Vp, HaltExit] = {}

    def after(self, vp: Vp, exit: Exit) -> Stop | None:
        """Handles an exit, and notes it in the ledger."""
        began = time.perf_counter_ns()
        stop = self.machine.handle(vp, exit)
        if self.machine.ledger is not None:
            self.machine.ledger.note(vp, exit, vmm_ns=time.perf_counter_ns() - began)
        if isinstance(exit, HaltExit) and stop is None and not vp.advance:
            self._halted[vp] = exit
        return stop

    def is_ready(self, vp: Vp) -> bool:
        """Can it run? One that was halted goes on behind its HLT when an interrupt waits; a notified one looks."""
        exit = self._halted.get(vp)
        if exit is None:
            return True
        if vp.events.wake(on=bool(exit.rflags & Rflags.IF)):
            vp.advance_rip(exit.length)
        elif not vp.notified:
            return False
        vp.notified = False
        del self._halted[vp]
        return True

    def all_for_good(self) -> bool:
        """Are all halted with interrupts off?"""
        return all(
            vp in self._halted and not self._halted[vp].rflags & Rflags.IF for vp in self.machine.vps
        )  # fmt: skip


def run(machine: Machine, *, seconds: float | None = None) -> Ended:
    """Until the machine is stopped, has halted, or `seconds` are over; then no virtual processor runs."""
    waiter = machine.backing.waiter()
    loop = _Loop(machine, waiter, inf if seconds is None else time.monotonic() + seconds)
    for vp in machine.vps:
        vp.waker = waiter.wake
    try:
        return loop.run()
    finally:
        for vp in machine.vps:
            vp.waker = None
        loop.stand_still()
        waiter.close()


class _Loop:
    def __init__(self, machine: Machine, waiter: Waiter, end: float) -> None:
        self.machine, self.waiter, self.end = machine, waiter, end
        self.progress = Progress(machine)
        self._running: dict[int, Vp] = {}

    def run(self) -> Ended:
        machine = self.machine
        while machine.unhandled:
            if stop := self.progress.after(*machine.unhandled.pop(0)):
                return Ended(How.STOPPED, stop)
        while True:
            left = self.end - time.monotonic()
            if left <= 0:
                return Ended(How.TIME)
            alone = len(machine.vps) == 1 and self.progress.is_ready(machine.vps[0])
            exits = self._alone(machine.vps[0], left) if alone else self._together(left)
            for place, (vp, exit) in enumerate(exits):
                if stop := self.progress.after(vp, exit):
                    machine.unhandled += exits[place + 1 :]
                    return Ended(How.STOPPED, stop)
            if not exits and not self._running and self.progress.all_for_good():
                return Ended(How.HALTED)

    def stand_still(self) -> None:
        """Stops what runs; what has happened meanwhile is kept for the next run."""
        for vp in self._running.values():
            vp.stop()
        for vp in self._running.values():
            exit = vp.finish()
            if not isinstance(exit, (CancelledExit, TimeLimitExit)):
                self.machine.unhandled.append((vp, exit))
        self._running = {}

    def _alone(self, vp: Vp, left: float) -> list[tuple[Vp, Exit]]:
        return [(vp, vp.run(seconds=None if left == inf else left))]

    def _together(self, left: float) -> list[tuple[Vp, Exit]]:
        """Starts those that can run, and waits for the first exits."""
        there: list[tuple[Vp, Exit]] = []
        for vp in self.machine.vps:
            if vp.cpu.number in self._running or not self.progress.is_ready(vp):
                continue
            ready = vp.start(seconds=left)
            if ready is not None:
                there.append((vp, ready))
            else:
                self._running[vp.cpu.number] = vp
        if there or (not self._running and self.progress.all_for_good()):
            return there
        ended = self.waiter.wait(list(self._running), min(left, LOOK_SECONDS))
        return [(vp, vp.finish()) for vp in (self._running.pop(cpu) for cpu in ended)]
