"""The search for started runs that have ended: what a driver does when a CPU has asked for attention."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.layout.control import CpuStatus
from sidecar.protocol.slot import DriverState, Node, Slot

ENDED = (CpuStatus.IDLE, CpuStatus.FAULTED)
RUNNING = (DriverState.ASYNC, DriverState.STOPPING)


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that ended: the CPU, and the status it ended with, IDLE unless something went wrong."""

    cpu: int
    status: int


class Scan:
    """The nodes' finished runs, each handed out once. Any number of threads may ask."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._stopped: deque[tuple[Slot, int]] = deque()
        self._lock = threading.Lock()

    def collect(self, limit: int) -> list[Finished]:
        """Up to `limit` finished runs; their CPUs are AVAIL again."""
        with self._lock:
            for node in self._nodes:
                if node.attention.load() and node.attention.exchange(0):
                    node.needs_scan = True
                if node.needs_scan:
                    node.needs_scan = self._scan(node)
            return self._hand_out(limit)

    def _scan(self, node: Node) -> bool:
        """Marks the ended runs STOPPED; True if a CPU must be looked at again, because its start is under way."""
        again = False
        for slot in node.slots:
            state = slot.state  # before the status byte, see `slot`
            again = again or state is DriverState.STARTING
            if state not in RUNNING or slot.in_command():
                continue
            with slot.lock:
                if slot.state in RUNNING and not slot.in_command():
                    slot.state = DriverState.STOPPED
                    self._stopped.append((slot, slot.generation))
        return again

    def _hand_out(self, limit: int) -> list[Finished]:
        ended: list[Finished] = []
        while self._stopped and len(ended) < limit:
            slot, generation = self._stopped.popleft()
            with slot.lock:
                if slot.state is not DriverState.STOPPED or slot.generation != generation:
                    continue  # a wait or a restart has taken the run meanwhile
                status = slot.status.load()
                slot.state = DriverState.AVAIL if status in ENDED else DriverState.LOST
                ended.append(Finished(slot.numbers.linux, status))
        return ended
