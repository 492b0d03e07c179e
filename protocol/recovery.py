"""INIT and STARTUP: how a CPU that faulted, did not answer, or was away comes through the trampoline again.

INIT comes first, so that nothing of the CPU's former life touches its pages any more; a change of status that it made
with its last instructions is found afterwards. That a CPU has come back is told by its own count of arrivals; its
status alone could be the former life's.
Ref: SDM vol. 3A, 9.4.4.1 "Typical BSP Initialization Sequence" (10 ms from INIT to STARTUP); MP specification 1.4, B.4.
"""

from __future__ import annotations

import time
from functools import partial

from sidecar.layout.control import CpuStatus
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.x86 import Icr
from sidecar.protocol.backing import Backing, CpuNumbers
from sidecar.protocol.errors import ProtocolError, status_name
from sidecar.protocol.slot import Slot
from sidecar.protocol.waiting import poll

INIT_SECONDS = 0.01
ARRIVE_SECONDS = 2.0
DRAIN_SECONDS = 5.0
ATTEMPTS = 3


def interrupt(backing: Backing, cpu: CpuNumbers, kind: Icr, vector: int = 0) -> None:
    """Sends one interrupt to one CPU by its x2APIC id."""
    backing.send(cpu.apic_id << 32 | kind | vector)


def halt_by_init(backing: Backing, cpu: CpuNumbers) -> None:
    """After this the CPU executes nothing until STARTUP."""
    interrupt(backing, cpu, Icr.INIT)
    backing.drain(DRAIN_SECONDS)
    time.sleep(INIT_SECONDS)


def bring_up(backing: Backing, slot: Slot) -> bool:
    """INIT, status RUN, STARTUP, until the CPU is IDLE after a new arrival; False if it is not after all attempts.

    The caller has made the CPU STARTING, so that nobody else uses it.
    """
    privileged = slot.pages.privileged
    for _ in range(ATTEMPTS):
        arrivals = slot.arrivals.load()
        halt_by_init(backing, slot.numbers)
        privileged.restart_count = privileged.restart_count + 1
        publish(slot, CpuStatus.RUN)
        interrupt(backing, slot.numbers, Icr.STARTUP, backing.trampoline_pa // PAGE_SIZE)
        poll(partial(_arrived, slot, arrivals), ARRIVE_SECONDS, backing.check)
        if slot.arrivals.load() != arrivals and slot.status.load() == CpuStatus.IDLE:
            return True
    return False


def publish(slot: Slot, wanted: CpuStatus) -> None:
    """Gives a CPU that was taken by INIT its status, whatever its former life left there."""
    found = slot.status.load()
    while found != wanted:
        try:
            old = CpuStatus(found)
        except ValueError:
            name = status_name(found)
            raise ProtocolError(f"{slot.numbers} cannot become {wanted.name}: its status is {name}") from None
        found = slot.move(old, wanted)
        if found == old:
            return


def _arrived(slot: Slot, before: int) -> bool:
    return slot.arrivals.load() != before and slot.status.load() != CpuStatus.RUN
