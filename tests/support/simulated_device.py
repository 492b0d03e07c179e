"""The driver's device files over a simulated sidecar: what the ioctls mean, who may, and which errno says no.

One `SimulatedKernel` is the loaded driver; every `SimulatedFile` is one open of a node's file, with claims of its own.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable

from sidecar.client.device import SHARED_BYTES, Info
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import (
    CommandTimeout,
    CpuAway,
    CpuBusy,
    CpuFaulted,
    CpuLost,
    DriverError,
    NoSuchCpu,
    NothingRuns,
)
from sidecar.protocol.slot import IN_COMMAND
from tests.support.simulated_sidecar import SimulatedSidecar

ERRNO: tuple[tuple[type[DriverError], int], ...] = (
    (CpuBusy, errno.EBUSY),
    (CpuAway, errno.ENOENT),
    (NoSuchCpu, errno.EINVAL),
    (CpuFaulted, errno.EIO),
    (CpuLost, errno.EIO),
    (CommandTimeout, errno.ETIMEDOUT),
    (NothingRuns, errno.EINVAL),
)
LOOK_SECONDS = 0.0005


class SimulatedKernel:
    """The driver; also the Records that it shows. `run_seconds` is its bound for RUN."""

    def __init__(self, sidecar: SimulatedSidecar) -> None:
        self.sidecar, self.driver = sidecar, PageDriver(sidecar)
        self.run_seconds = 10.0
        self.calls: list[tuple[Ioctl, int]] = []
        self.returned: set[int] = set()
        """CPUs that Linux has had since they were claimed: their pages are clear."""

    def open(self, node: int) -> SimulatedFile:
        return SimulatedFile(self, node)

    def status(self, cpu: int) -> int:
        return self.driver.status(cpu)

    def diagnostic(self, cpu: int) -> bytes:
        return self.driver.diagnostic_page(cpu)

    def log(self, cpu: int) -> bytes:
        return self.driver.log_page(cpu)

    def has_vp(self, cpu: int) -> bool:
        return bool(self.driver.pages(cpu).privileged.vp_created)


class SimulatedFile:
    """A DeviceNode."""

    def __init__(self, kernel: SimulatedKernel, number: int) -> None:
        self.number, self._kernel = number, kernel
        self._node = kernel.sidecar.nodes[number]
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._claimed: set[int] = set()
        self._running: set[int] = set()
        self._ended: list[int] = []
        self._lock = threading.Lock()
        self._closed = False
        self._asks: dict[Ioctl, Callable[[int], int | None]] = {
            Ioctl.CLAIM: self._claim, Ioctl.RELEASE: self._release, Ioctl.RUN: self._run, Ioctl.START: self._start,
            Ioctl.STOP: self._stop, Ioctl.RESTART: self._restart,
        }

    def fileno(self) -> int:
        return self._event

    def info(self) -> Info:
        return Info(self._node.base_cpu, self._node.cpu_count, SHARED_BYTES)

    def ask(self, what: Ioctl, cpu: int) -> int:
        self._kernel.calls.append((what, cpu))
        if not 0 <= cpu - self._node.base_cpu < self._node.cpu_count:
            raise OSError(errno.EINVAL, "not of this node")
        if what is not Ioctl.CLAIM and cpu not in self._claimed:
            raise OSError(errno.EPERM, "not claimed by this file")
        try:
            return self._asks[what](cpu) or 0
        except DriverError as error:
            number = next(number for kind, number in ERRNO if isinstance(error, kind))
            raise OSError(number, str(error)) from error

    def map_pages(self, index: int) -> memoryview:
        if self._node.base_cpu + index not in self._claimed:
            raise OSError(errno.EACCES, "not claimed by this file")
        return self._kernel.sidecar.view(self._node.shared_pa + index * SHARED_BYTES, SHARED_BYTES)

    def finished(self) -> list[int]:
        with self._lock:
            if self._ended:
                os.eventfd_read(self._event)
            ended, self._ended = self._ended, []
            return ended

    def close(self) -> None:
        """Ends the claims; what still runs is restarted."""
        self._closed = True
        for cpu in sorted(self._claimed):
            if cpu in self._running:
                self._restart(cpu)
            self._release(cpu)
        os.close(self._event)

    # --- the ioctls ------------------------------------------------------------------------------------------------

    def _claim(self, cpu: int) -> None:
        if self._kernel.driver.numbers(cpu).index == 0:
            raise CpuAway("the base CPU")
        self._kernel.driver.claim(cpu, self)
        self._kernel.returned.discard(cpu)
        self._claimed.add(cpu)

    def _release(self, cpu: int) -> None:
        self._kernel.driver.release(cpu, self)
        self._claimed.discard(cpu)

    def _require_told(self, cpu: int) -> None:
        if cpu in self._kernel.returned:
            self._kernel.returned.discard(cpu)
            raise OSError(errno.ESTALE, "its pages were cleared")

    def _run(self, cpu: int) -> None:
        self._require_told(cpu)
        self._kernel.driver.run(cpu, seconds=self._kernel.run_seconds, owner=self)

    def _start(self, cpu: int) -> None:
        self._require_told(cpu)
        self._kernel.driver.start(cpu, owner=self)
        self._running.add(cpu)
        threading.Thread(target=self._watch, args=(cpu,), daemon=True).start()

    def _stop(self, cpu: int) -> int:
        return self._kernel.driver.stop(cpu, owner=self)

    def _restart(self, cpu: int) -> None:
        self._running.discard(cpu)
        self._kernel.returned.discard(cpu)
        self._kernel.driver.restart(cpu, owner=self)

    def _watch(self, cpu: int) -> None:
        """The response interrupt."""
        while cpu in self._running and self._kernel.driver.status(cpu) in IN_COMMAND:
            time.sleep(LOOK_SECONDS)
        with self._lock:
            if cpu not in self._running or self._closed:
                return
            try:
                self._kernel.driver.wait(cpu, seconds=0, owner=self)
            except CpuFaulted:
                pass  # told as an end, like any other
            except NothingRuns:
                return
            self._running.discard(cpu)
            self._ended.append(cpu)
            os.eventfd_write(self._event, 1)
