"""The driver's errno in words; the CPU's status and fault record say the rest."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from sidecar.client.records import Records
from sidecar.layout.control import CpuStatus
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import (
    CommandTimeout,
    CpuAway,
    CpuBusy,
    CpuFaulted,
    CpuLost,
    DriverError,
    NoSuchCpu,
    ProtocolError,
    status_name,
)
from sidecar.protocol.fault import Fault

SENTENCES: dict[int, tuple[type[DriverError], str]] = {
    errno.EBUSY: (CpuBusy, "is claimed by another open file, or a command is running on it"),
    errno.ENOENT: (CpuAway, "is not the sidecar's: Linux runs it, or it was removed"),
    errno.ESTALE: (CpuAway, "was Linux's in between: its command page was cleared"),
    errno.EPERM: (CpuBusy, "is not claimed by this open file"),
    errno.EINVAL: (NoSuchCpu, "is not of the driver's node"),
    errno.ESHUTDOWN: (CpuAway, "takes no commands any more: Linux is being shut down"),
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was asked of which CPU, when the driver said no."""

    cpu: CpuNumbers
    what: Ioctl
    command: str
    driver_seconds: float
    records: Records

    def of(self, error: OSError) -> DriverError:
        """The exception that the errno stands for."""
        if error.errno == errno.ETIMEDOUT:
            return self._timed_out()
        if error.errno == errno.EIO:
            return self._failed()
        known = SENTENCES.get(error.errno or 0)
        if known is not None:
            kind, sentence = known
            return kind(f"{self.cpu} {sentence}")
        why = os.strerror(error.errno or 0)
        return ProtocolError(f"{self.cpu}: the driver answered {self.what.name} with {why}; dmesg may say more")

    def _timed_out(self) -> CommandTimeout:
        """The driver has restarted the CPU already, or tried to."""
        status = self.records.status(self.cpu.linux)
        return CommandTimeout(
            self.cpu, self.command, status=CpuStatus.RUN, seconds=self.driver_seconds, fault=None,
            recovered=status == CpuStatus.IDLE,
        )

    def _failed(self) -> DriverError:
        status = self.records.status(self.cpu.linux)
        fault = Fault.read(memoryview(self.records.diagnostic(self.cpu.linux)))
        if status == CpuStatus.FAULTED and fault is not None and self.what is not Ioctl.RESTART:
            return CpuFaulted(self.cpu, fault)
        if self.what is Ioctl.RESTART:
            return CpuLost(f"{self.cpu} did not come back after INIT and STARTUP, its status is {status_name(status)}")
        return CpuLost(f"{self.cpu} is lost: its status is {status_name(status)}; dmesg says why, a restart may help")
