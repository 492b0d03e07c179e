"""What can go wrong between a driver and its CPUs, each as a full sentence with the CPU's numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.layout.control import CpuStatus

if TYPE_CHECKING:
    from sidecar.protocol.backing import CpuNumbers
    from sidecar.protocol.fault import Fault


def status_name(status: int) -> str:
    """A status byte for people: its name, or the number where the table knows none."""
    try:
        return CpuStatus(status).name
    except ValueError:
        return f"{status:#x} (unknown)"


class DriverError(Exception):
    """What was asked of a CPU was not done; every exception of the driver's role is one."""


class ProtocolError(DriverError):
    """A shared page says what the ABI does not allow: another version, a status outside the table, a wrong answer."""


class NoSuchCpu(DriverError):
    """The number is of no CPU in a sidecar node."""


class CpuBusy(DriverError):
    """The CPU is claimed by another owner, or a command is running on it."""


class CpuAway(DriverError):
    """The CPU is Linux's or was removed; giving it back makes it usable."""


class NothingRuns(DriverError):
    """A wait for a run that was not started, or that another wait or a restart has ended."""


class CpuLost(DriverError):
    """The CPU did not come back through the trampoline; a restart may be tried again."""


class SidecarCommandError(DriverError):
    """The sidecar executed the command and answered with a sentence; `sentence` is the sidecar's own."""

    def __init__(self, cpu: CpuNumbers, command: str, sentence: str) -> None:
        super().__init__(f"{cpu} answered {command} with an error: {sentence}")
        self.cpu, self.command, self.sentence = cpu, command, sentence


class CommandTimeout(DriverError):
    """A CPU did not answer in time and was taken back by INIT; `recovered` says whether it answered the restart."""

    def __init__(
        self, cpu: CpuNumbers, command: str, *, status: int, seconds: float, fault: Fault | None, recovered: bool
    ) -> None:
        evidence = f"; it faulted meanwhile: {fault}" if fault else ""
        outcome = "it was restarted" if recovered else "it did not come back after INIT and STARTUP: lost"
        what = f"{cpu} did not finish {command} within {seconds:g} s, its status was {status_name(status)}"
        super().__init__(f"{what}{evidence}; {outcome}")
        self.cpu, self.command, self.status, self.seconds = cpu, command, status, seconds
        self.fault, self.recovered = fault, recovered


class CpuFaulted(DriverError):
    """A CPU took a fault, which its sidecar contained; it answers again after a restart."""

    def __init__(self, cpu: CpuNumbers, fault: Fault) -> None:
        super().__init__(f"{cpu} faulted: {fault}; restart it to use it again")
        self.cpu, self.fault = cpu, fault
