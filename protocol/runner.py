"""What commands are run by: somebody who plays the driver's role, or asks the kernel's driver to.

`PageDriver` is one: it moves the status bytes and sends the interrupts itself. The other asks the driver of a running
Linux through its device files. `typed.TypedCpu` needs nothing else of either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.fault import Fault

COMMAND_SECONDS = 10.0

Prepare = Callable[[], None]


def nothing() -> None:
    """The preparation of a command page that is already filled."""


class Runner(Protocol):
    """The CPUs of a machine's sidecar nodes, by Linux number, and what runs on them.

    `owner` is who calls, for claims; every method that has one raises CpuBusy if another owner has claimed the CPU.
    """

    @property
    def cpus(self) -> Sequence[CpuNumbers]:
        """Every CPU of a sidecar node, the base CPUs, which are Linux's, included."""
        ...

    def numbers(self, cpu: int) -> CpuNumbers:
        """Raises NoSuchCpu."""
        ...

    def open_page(self, cpu: int, owner: object) -> memoryview:
        """The CPU's command page, for `owner` alone until close_page(). Raises CpuBusy, CpuAway."""
        ...

    def close_page(self, cpu: int, owner: object) -> None:
        """Ends what open_page() began; a claim that was there before stays."""
        ...

    def run(
        self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None, prepare: Prepare = nothing
    ) -> None:
        """Runs the command in the command page to its end.

        `prepare` fills the page; it is called when nobody else can use the CPU and before it is told to run. Raises
        CpuBusy, CpuAway, CpuLost, CpuFaulted, CommandTimeout.
        """
        ...

    def start(self, cpu: int, *, owner: object | None = None, prepare: Prepare = nothing) -> None:
        """Starts the command and returns. Raises as run() at its start does."""
        ...

    def stop(self, cpu: int, *, owner: object | None = None) -> bool:
        """Asks the running command to end early; it ends with an answer as always. False if nothing runs any more."""
        ...

    def wait(self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None) -> None:
        """Waits for the end of a started run and takes it. Raises NothingRuns, CpuFaulted, CommandTimeout."""
        ...

    def claim(self, cpu: int, owner: object) -> None:
        """From now on only calls with this owner are served. Claims do not nest: CpuBusy also for the same owner."""
        ...

    def release(self, cpu: int, owner: object) -> None:
        """Ends a claim. Raises CpuBusy while a command runs, or if the claim is another owner's."""
        ...

    def restart(self, cpu: int, *, owner: object | None = None) -> None:
        """INIT and a new arrival; a started run is abandoned without an answer. Raises CpuBusy, CpuAway, CpuLost."""
        ...

    def status(self, cpu: int) -> int:
        """The status byte as it is now."""
        ...

    def fault(self, cpu: int) -> Fault | None:
        """The CPU's last fault, None if it never had one; complete once the status is FAULTED."""
        ...
