"""Commands on CPUs, from the claim to the end: start, stop, wait, time-out. `driver` builds on it.

    AVAIL -> STARTING    under the CPU's lock; `prepare` fills the command page, which is the driver's side now
    IDLE -> RUN          atomically in the control page; the CPU may act on it from here on
    STARTING -> SYNC     or ASYNC: published only after RUN, see `slot`
    request vector       to the CPU's x2APIC id, in case it sleeps; with the lock held, because afterwards the command
                         may have ended and the CPU may be Linux's
    RUN -> IDLE          by the CPU; poll() or the scan sees it
    SYNC -> AVAIL

A command that does not end in time gets INIT, and the CPU is restarted: its pages are not used again before that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sidecar.layout.control import CpuStatus
from sidecar.layout.x86 import Icr
from sidecar.protocol.backing import Backing
from sidecar.protocol.errors import (
    CommandTimeout,
    CpuFaulted,
    CpuLost,
    NoSuchCpu,
    NothingRuns,
    ProtocolError,
    status_name,
)
from sidecar.protocol.mapping import open_node
from sidecar.protocol.recovery import bring_up, interrupt
from sidecar.protocol.requests import command_name
from sidecar.protocol.runner import COMMAND_SECONDS, Prepare, nothing
from sidecar.protocol.scan import ENDED, Finished, Scan
from sidecar.protocol.slot import IN_COMMAND, IN_FLIGHT, DriverState, Node, Slot
from sidecar.protocol.waiting import poll


class Runs:
    """The CPUs in one machine's nodes and what runs on them. Raises ProtocolError if a page is not of this ABI."""

    def __init__(self, backing: Backing) -> None:
        self.backing = backing
        self.nodes: Sequence[Node] = [open_node(backing, number, pages) for number, pages in enumerate(backing.nodes)]
        self._slots = {slot.numbers.linux: slot for node in self.nodes for slot in node.slots}
        self._scan = Scan(self.nodes)

    def run(
        self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None, prepare: Prepare = nothing
    ) -> None:
        """Runs the command in the command page to its end.

        `prepare` fills the page; it is called when the CPU is claimed and before it is told to run. Raises CpuBusy,
        CpuAway, CpuLost, CpuFaulted, CommandTimeout.
        """
        slot = self._slot(cpu)
        generation = self._begin(slot, DriverState.SYNC, owner, prepare)
        self._await_end(slot, seconds, generation)

    def start(self, cpu: int, *, owner: object | None = None, prepare: Prepare = nothing) -> None:
        """Starts the command and returns; wait() or finished() tells of its end. Raises as run() at its start does."""
        self._begin(self._slot(cpu), DriverState.ASYNC, owner, prepare)

    def stop(self, cpu: int, *, owner: object | None = None) -> bool:
        """Asks the running command to end early; it ends with an answer as always. False if nothing runs any more."""
        slot = self._slot(cpu)
        with slot.lock:
            slot.require_owner(owner)
            if slot.state not in (DriverState.SYNC, DriverState.ASYNC):
                return False
            if slot.move(CpuStatus.RUN, CpuStatus.STOP) != CpuStatus.RUN:
                return False
            if slot.state is DriverState.ASYNC:
                slot.state = DriverState.STOPPING
            self._request(slot)
        return True

    def wait(self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None) -> None:
        """Waits for the end of a started run and takes it, so that finished() will not tell of it.

        Raises NothingRuns if there is no such run, CpuFaulted, CommandTimeout.
        """
        slot = self._slot(cpu)
        with slot.lock:
            slot.require_owner(owner)
            if slot.state not in IN_FLIGHT:
                raise NothingRuns(f"{slot.numbers}: no run was started, it is {slot.state.value}")
            generation = slot.generation
        self._await_end(slot, seconds, generation)

    def finished(self, *, seconds: float = 0.0, limit: int = sys.maxsize) -> list[Finished]:
        """Started runs that have ended, each told once; waits up to `seconds` for the first."""
        ended: list[Finished] = []

        def collect() -> bool:
            ended.extend(self._scan.collect(limit))
            return bool(ended)

        poll(collect, seconds, self.backing.check)
        return ended

    # --- inside ----------------------------------------------------------------------------------------------------

    def _slot(self, cpu: int) -> Slot:
        try:
            return self._slots[cpu]
        except KeyError:
            known = f"there are {len(self._slots)} CPUs in {len(self.nodes)} nodes"
            raise NoSuchCpu(f"CPU {cpu} is in no sidecar node; {known}") from None

    def _begin(self, slot: Slot, running: DriverState, owner: object | None, prepare: Prepare) -> int:
        with slot.lock:
            slot.require_available(owner)
            slot.state = DriverState.STARTING
            try:
                prepare()
                slot.note_command()
                self._to_run(slot)
            except BaseException:
                slot.state = DriverState.AVAIL
                raise
            slot.generation += 1
            slot.state = running  # after RUN stands in the page: the scan relies on it
            generation = slot.generation
            self._request(slot)
        return generation

    def _to_run(self, slot: Slot) -> None:
        found = slot.move(CpuStatus.IDLE, CpuStatus.RUN)
        if found == CpuStatus.FAULTED and (fault := slot.fault()):
            raise CpuFaulted(slot.numbers, fault)
        if found != CpuStatus.IDLE:
            raise ProtocolError(f"{slot.numbers} is not idle: its status is {status_name(found)}")

    def _request(self, slot: Slot) -> None:
        """Wakes the CPU; the lock is held. A backing that cannot send leaves it lost: nobody knows what it will see."""
        try:
            interrupt(self.backing, slot.numbers, Icr.FIXED, slot.node.request_vector)
        except BaseException:
            slot.state = DriverState.LOST
            raise

    def _await_end(self, slot: Slot, seconds: float, generation: int) -> None:
        try:
            poll(lambda: not slot.in_command() or slot.generation != generation, seconds, self.backing.check)
        except BaseException:
            self._leave_running(slot, generation)
            raise
        with slot.lock:
            if slot.generation != generation or slot.state not in (DriverState.SYNC, *IN_FLIGHT):
                raise NothingRuns(f"{slot.numbers}: the run was ended by another wait or a restart")
            status = slot.status.load()
            if status in IN_COMMAND:
                slot.state = DriverState.STARTING  # nobody may stop or collect what is going to be restarted
            else:
                slot.state = DriverState.AVAIL if status in ENDED else DriverState.LOST
        self._judge(slot, status, seconds)

    def _leave_running(self, slot: Slot, generation: int) -> None:
        """Somebody waited and was interrupted: the command goes on, and can be stopped or waited for."""
        with slot.lock:
            if slot.generation == generation and slot.state is DriverState.SYNC:
                slot.state = DriverState.ASYNC

    def _judge(self, slot: Slot, status: int, seconds: float) -> None:
        """What a run that ended with `status` means for who waited for it."""
        if status == CpuStatus.IDLE:
            return
        if status in IN_COMMAND:
            self._time_out(slot, seconds, command_name(slot.command))
        if status == CpuStatus.FAULTED and (fault := slot.fault()):
            raise CpuFaulted(slot.numbers, fault)
        raise ProtocolError(f"{slot.numbers} ended {command_name(slot.command)} with status {status_name(status)}")

    def _time_out(self, slot: Slot, seconds: float, command: str) -> None:
        """Takes the CPU back by INIT and restart, then raises CommandTimeout."""
        status = slot.status.load()
        fault = slot.fault() if slot.fault_count.load() != slot.faults_before else None
        with slot.lock:
            slot.state = DriverState.STARTING
            slot.generation += 1
        recovered = True
        try:
            self._bring_up(slot)
        except CpuLost:
            recovered = False
        raise CommandTimeout(slot.numbers, command, status=status, seconds=seconds, fault=fault, recovered=recovered)

    def _bring_up(self, slot: Slot) -> None:
        """Through the trampoline; the CPU is AVAIL afterwards, or LOST and CpuLost is raised."""
        arrived = False
        try:
            arrived = bring_up(self.backing, slot)
        finally:
            with slot.lock:
                slot.state = DriverState.AVAIL if arrived else DriverState.LOST
        if not arrived:
            status = status_name(slot.status.load())
            raise CpuLost(f"{slot.numbers} did not come back after INIT and STARTUP, its status is {status}")
