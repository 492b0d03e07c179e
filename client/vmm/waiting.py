"""Waiters: which of several started runs have ended, for one thread.

Through the driver the device files tell; without one somebody has to look at the status bytes.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterable
from functools import partial
from math import ceil

from sidecar.client.device_runner import DeviceRunner
from sidecar.client.notices import Notices
from sidecar.protocol.runner import Runner
from sidecar.protocol.slot import IN_COMMAND

LOOKS = 50
SHORTEST, LONGEST, GROWTH = 50e-6, 2e-3, 1.3


class PolledWaiter:
    """Looks, in growing steps."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._woken = runner, threading.Event()

    def wait(self, cpus: Iterable[int], seconds: float) -> list[int]:
        wanted, end, looks, pause = list(cpus), time.monotonic() + seconds, 0, SHORTEST
        while True:
            ended = [cpu for cpu in wanted if self._runner.status(cpu) not in IN_COMMAND]
            if ended or self._woken.is_set() or time.monotonic() >= end:
                self._woken.clear()
                return ended
            looks += 1
            if looks > LOOKS:
                self._woken.wait(pause)
                pause = min(pause * GROWTH, LONGEST)

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """Nothing is open."""


class DeviceWaiter:
    """Polls the device files, for this thread and for whoever else waits for their CPUs."""

    def __init__(self, runner: DeviceRunner) -> None:
        self._runner = runner
        self._ended: set[int] = set()
        self._listening: set[int] = set()
        self._lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        for notices in runner.notices.values():
            self._poll.register(notices.node.fileno(), select.POLLIN)

    def wait(self, cpus: Iterable[int], seconds: float) -> list[int]:
        for cpu in cpus:
            if cpu not in self._listening:
                self._listening.add(cpu)
                self._notices(cpu).listen(cpu, partial(self._tell, cpu, threading.get_ident()))
        for notices in self._runner.notices.values():
            notices.read()
        if not self._ended:
            for file, _ in self._poll.poll(ceil(seconds * 1000)):
                if file == self._wake:
                    os.eventfd_read(self._wake)
            for notices in self._runner.notices.values():
                notices.read()
        with self._lock:
            ended, self._ended = list(self._ended), set()
            self._listening.difference_update(ended)
        return ended

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        for cpu in self._listening:
            self._notices(cpu).ignore(cpu)
        os.close(self._wake)

    def _tell(self, cpu: int, thread: int) -> None:
        """Called by whichever thread has read the file."""
        with self._lock:
            self._ended.add(cpu)
        if threading.get_ident() != thread:
            os.eventfd_write(self._wake, 1)

    def _notices(self, cpu: int) -> Notices:
        return self._runner.notices[self._runner.numbers(cpu).node]
