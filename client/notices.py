"""Who waits for which run's end, when one device file tells of all of them: threads and event loops at once.

The file tells each end once, to whoever reads it; so whoever reads, reads for all. Of the threads that wait, one at a
time polls the file, the others sleep until it has read something.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from math import ceil

from sidecar.client.device import DeviceNode

Call = Callable[[], None]


class Notices:
    """The ended runs of one node's CPUs that nobody has taken yet. Any number of threads may use it."""

    def __init__(self, node: DeviceNode) -> None:
        self.node = node
        self._ended: set[int] = set()
        self._listeners: dict[int, Call] = {}
        self._polled = False
        self._changed = threading.Condition()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def wait(self, cpu: int, seconds: float) -> bool:
        """Takes the end of the CPU's run; False if it has not ended within `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            self.read()
            with self._changed:
                if cpu in self._ended:
                    self._ended.discard(cpu)
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if self._polled:
                    self._changed.wait(left)
                    continue
                self._polled = True
            self._poll(left)

    def listen(self, cpu: int, call: Call) -> None:
        """Has `call` called once, from any thread, when the run has ended; at once if it has already."""
        with self._changed:
            if cpu not in self._ended:
                self._listeners[cpu] = call
                return
        call()

    def ignore(self, cpu: int) -> None:
        """Ends listen()."""
        with self._changed:
            self._listeners.pop(cpu, None)

    def forget(self, cpu: int) -> None:
        """The CPU's last run is not to be told of any more."""
        with self._changed:
            self._ended.discard(cpu)

    def read(self) -> None:
        """Takes in what the file has to tell; does not wait."""
        numbers = self.node.finished()
        if not numbers:
            return
        with self._changed:
            self._ended.update(numbers)
            calls = [call for cpu in numbers if (call := self._listeners.pop(cpu, None))]
            self._changed.notify_all()
            if self._polled:  # the file is silent again: who polls it must be told by other means
                os.eventfd_write(self._wake, 1)
        for call in calls:
            call()

    def close(self) -> None:
        os.close(self._wake)

    def _poll(self, seconds: float) -> None:
        try:
            poll = select.poll()
            poll.register(self.node.fileno(), select.POLLIN)
            poll.register(self._wake, select.POLLIN)
            if self._wake in (file for file, _ in poll.poll(ceil(seconds * 1000))):
                os.eventfd_read(self._wake)
        finally:
            with self._changed:
                self._polled = False
                self._changed.notify_all()  # another one polls now
