"""One CPU of a sidecar node as the driver keeps it: its pages, its atomics, and the driver's private state of it.

Private states, of which the sidecar knows nothing:

    AVAIL     nothing runs               STARTING  claimed, RUN not yet published, or being restarted
    SYNC      somebody waits right here  ASYNC     runs; whoever asks for finished runs gets it
    STOPPING  ASYNC, cancelled           STOPPED   finished, not yet handed out
    REMOVED   Linux's, or given up       LOST      did not come back after INIT and STARTUP

Every change is made with `lock` held. The scan for finished runs looks at `state` before it takes the lock, and the
order protects it: ASYNC is stored after RUN stands in the control page, and the scan loads `state` before the status
byte. So a CPU that is seen ASYNC and IDLE has run; upstream once reported the IDLE from before the start.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass, field
from enum import Enum

from sidecar.layout.command import CommandPage
from sidecar.layout.control import CpuStatus, Party, allowed
from sidecar.protocol.atomics import AtomicU8, AtomicU32, AtomicU64
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import CpuAway, CpuBusy, CpuLost, ProtocolError
from sidecar.protocol.fault import Fault
from sidecar.protocol.views import View

IN_COMMAND = (CpuStatus.RUN, CpuStatus.STOP)
"""The statuses in which the CPU owns its command page."""


class DriverState(Enum):
    """See the module."""

    AVAIL = "available"
    SYNC = "running a command that is being waited for"
    STARTING = "being started"
    ASYNC = "running"
    STOPPING = "running, and asked to stop"
    STOPPED = "finished, and not yet handed out"
    REMOVED = "removed"
    LOST = "lost"


IN_FLIGHT = (DriverState.ASYNC, DriverState.STOPPING, DriverState.STOPPED)


@dataclass(frozen=True, slots=True)
class CpuPages:
    """The pages of one CPU, as views; `control` is its node's."""

    control: View
    command: View
    diagnostic: View
    log: View
    privileged: View
    register: memoryview


@dataclass(slots=True, eq=False)
class Node:
    """A node's control page and what the scan for finished runs remembers of it."""

    number: int
    memory: memoryview
    control: View
    attention: AtomicU32
    response: AtomicU64
    request_vector: int
    slots: list[Slot] = field(default_factory=list)
    needs_scan: bool = False


@dataclass(slots=True, eq=False)
class Slot:
    """One CPU. `generation` counts runs and restarts: a waiter notices by it that its run was ended by another."""

    numbers: CpuNumbers
    node: Node
    pages: CpuPages
    status: AtomicU8
    arrivals: AtomicU64
    fault_count: AtomicU64
    command_memory: memoryview
    diagnostic_memory: memoryview
    state: DriverState = DriverState.AVAIL
    owner: object | None = None
    generation: int = 0
    command: int = 0
    faults_before: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def in_command(self) -> bool:
        return self.status.load() in IN_COMMAND

    def move(self, old: CpuStatus, new: CpuStatus) -> int:
        """The one place where the driver changes a status byte: returns the status found, so success is `== old`.

        Raises ProtocolError if the driver may not make this move at all.
        """
        if not allowed(old, new, Party.DRIVER):
            raise ProtocolError(f"{self.numbers}: the driver may not move its status from {old.name} to {new.name}")
        return self.status.compare_exchange(old, new)

    def require_owner(self, owner: object | None) -> None:
        """Raises CpuBusy if somebody else has claimed the CPU."""
        if self.owner is not None and self.owner is not owner:
            raise CpuBusy(f"{self.numbers} is claimed by another owner")

    def require_available(self, owner: object | None) -> None:
        """Raises CpuBusy, CpuAway or CpuLost unless nothing runs on the CPU and `owner` may use it."""
        self.require_owner(owner)
        if self.state is DriverState.REMOVED:
            raise CpuAway(f"{self.numbers} is not the sidecar's: it was removed or is run by Linux")
        if self.state is DriverState.LOST:
            raise CpuLost(f"{self.numbers} is lost: it did not come back after INIT and STARTUP")
        if self.state is not DriverState.AVAIL:
            raise CpuBusy(f"{self.numbers} is {self.state.value}")

    def fault(self) -> Fault | None:
        """The last fault on the diagnostic page; it is valid once the status is FAULTED."""
        return Fault.read(self.diagnostic_memory)

    def note_command(self) -> None:
        """Remembers, before RUN, what is going to run: the CPU takes the command out of the page."""
        (self.command,) = struct.unpack_from("<I", self.command_memory, int(CommandPage.command))
        self.faults_before = self.fault_count.load()
