"""Commanding the sidecar from an unmodified guest, without a driver: /dev/mem, and the stock `msr` module.

    NoModuleAttachment.open(linux)     maps the nodes, which takes nothing from anybody: list, log and faults only look
    driver.open_page(3, cpu)           the first command: takes the machine's lock, and sees what was left behind
    backing.send(icr)                  writes the ICR, an MSR, through CPU 0's msr file

Nobody is notified of a run's end (the response vector is 0): whoever waits looks at the status byte.

Who else could have a CPU: another such client, which the lock keeps out; the driver, which knows of no lock, so this
client refuses to attach where it is loaded, and commands nothing any more when it appears; and Linux, which may bring
the CPU online at any time, so that before every command and every INIT there is a look at that.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol, Self

from sidecar.client.dev_mem import DevMem, NodeMemory
from sidecar.client.errors import AlreadyAttached, DriverAppeared, LinuxRefused
from sidecar.client.linux import Linux
from sidecar.client.lock import MachineLock
from sidecar.client.msr import MsrFile
from sidecar.client.pages import PagesAttachment
from sidecar.layout.x86 import Msr
from sidecar.protocol.backing import NodePages, ResponseTarget
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.errors import CpuAway
from sidecar.protocol.machine import Discovered
from sidecar.protocol.runner import COMMAND_SECONDS
from sidecar.protocol.slot import DriverState

DELIVERY_MODE = 0x700
"""In an ICR value; 0 is an ordinary interrupt. Ref: SDM vol. 3A, figure 11-28."""


class IcrWriter(Protocol):
    """Who can write an MSR of a CPU."""

    def write(self, register: Msr, value: int) -> None: ...
    def close(self) -> None: ...


class NoModuleBacking:
    """A `protocol.backing.Backing` in the guest."""

    def __init__(self, found: Discovered, memory: NodeMemory, msr: IcrWriter, linux: Linux) -> None:
        self.found, self._memory, self._msr, self._linux = found, memory, msr, linux
        self._linux_numbers = {cpu.apic_id: cpu.linux_number for cpu in found.cpus}

    @property
    def nodes(self) -> Sequence[NodePages]:
        return self.found.nodes

    @property
    def apic_ids(self) -> Sequence[int]:
        return [cpu.apic_id for cpu in self.found.cpus]

    @property
    def trampoline_pa(self) -> int:
        return self.found.trampoline_pa

    @property
    def response(self) -> ResponseTarget:
        """Nobody: a user-mode program has no vector."""
        return ResponseTarget(apic_id=0, vector=0)

    def view(self, pa: int, size: int) -> memoryview:
        return self._memory.view(pa, size)

    def send(self, icr: int) -> None:
        """Writes the ICR. Raises CpuAway rather than send more than a vector to a CPU that Linux runs: INIT kills.

        The status byte was moved by a locked instruction, and a system call lies between it and the WRMSR: the store is
        visible before the interrupt is.
        """
        if icr & DELIVERY_MODE:
            self.require_away_from_linux(self._linux_numbers[icr >> 32])
        self._msr.write(Msr.X2APIC_ICR, icr)

    def drain(self, seconds: float) -> None:
        """An ICR write in x2APIC mode has left when it returns. Ref: SDM vol. 3A, 11.12.9."""

    def check(self) -> None:
        """Raises DriverAppeared if the machine is the driver's meanwhile."""
        if self._linux.driver_is_loaded():
            raise DriverAppeared("the sidecar's driver was loaded meanwhile: this client must not touch its CPUs")

    def require_away_from_linux(self, cpu: int) -> None:
        if self._linux.is_online(cpu):
            raise CpuAway(f"CPU {cpu} is run by Linux")

    def close(self) -> None:
        self._msr.close()


class NoModuleDriver(PageDriver):
    """A PageDriver that takes the machine at its first command, and not before."""

    def __init__(self, backing: NoModuleBacking, lock: MachineLock) -> None:
        super().__init__(backing)
        self._guest, self._lock, self._taking = backing, lock, threading.Lock()

    def open_page(self, cpu: int, owner: object) -> memoryview:
        self._take(cpu)
        if self.state(cpu) is DriverState.LOST:  # a client that was killed has left it running
            self.restart(cpu, owner=owner)
        return super().open_page(cpu, owner)

    def claim(self, cpu: int, owner: object) -> None:
        self._take(cpu)
        super().claim(cpu, owner)

    def restart(self, cpu: int, *, owner: object | None = None) -> None:
        self._take(cpu)
        super().restart(cpu, owner=owner)

    def remove(self, cpu: int, *, seconds: float = COMMAND_SECONDS, owner: object | None = None) -> None:
        self._take(cpu)
        super().remove(cpu, seconds=seconds, owner=owner)

    def take(self) -> None:
        """Takes the lock, the first time, and looks what other clients have done to the CPUs before."""
        self._guest.check()
        with self._taking:
            if not self._lock.held:
                self._lock.take()
                self.look_again()

    def _take(self, cpu: int) -> None:
        """The same, for a CPU that Linux must not run."""
        self.take()
        try:
            self._guest.require_away_from_linux(cpu)
        except CpuAway:
            self.note_away(cpu)
            raise CpuAway(f"{self.numbers(cpu)} is run by Linux") from None

    def close(self) -> None:
        self._lock.release()


class NoModuleAttachment(PagesAttachment):
    """An Attachment without a driver. Raises AlreadyAttached if there is one."""

    name = "no-module"

    def __init__(self, backing: NoModuleBacking, linux: Linux) -> None:
        self._no_module = NoModuleDriver(backing, MachineLock(linux.table_path))
        super().__init__(self._no_module, backing.found)
        self._backing, self._linux = backing, linux

    @classmethod
    def open(cls, linux: Linux) -> Self:
        """Raises NoSidecar, NoDriver, AlreadyAttached, AbiMismatch."""
        found = linux.discover()
        if linux.driver_is_loaded():
            raise AlreadyAttached(
                "the sidecar's driver is loaded and has the machine: use it, or unload it first (rmmod sidecar)"
            )
        msr = MsrFile()
        msr.require_x2apic()
        return cls(NoModuleBacking(found, DevMem(found.nodes), msr, linux), linux)

    def is_online(self, cpu: int) -> bool:
        return self._linux.is_online(cpu)

    def convert(self, cpu: int, owner: object) -> None:
        """REMOVE, REMOVED, then Linux's own INIT and STARTUP; if Linux does not want it, it goes back."""
        driver = self._no_module
        driver.remove(cpu, owner=owner)
        try:
            self._linux.set_online(driver.numbers(cpu), True)
        except LinuxRefused:
            if not self._linux.is_online(cpu):
                driver.give_back(cpu, owner=owner)
            raise

    def give_back(self, cpu: int, owner: object) -> None:
        driver = self._no_module
        numbers = driver.numbers(cpu)
        if numbers.index == 0:
            raise CpuAway(f"{numbers} is the first of its node: Linux keeps it")
        driver.take()
        if self._linux.is_online(cpu):
            self._linux.set_online(numbers, False)
            driver.note_away(cpu)
        driver.give_back(cpu, owner=owner)

    def close(self) -> None:
        self._no_module.close()
        self._backing.close()
