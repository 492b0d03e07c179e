"""A guest without Linux: whoever sees the machine's memory plays the driver's role for it, as PageDriver does for runs.

    vm = PagesVm(session.driver, session.machine.ram, FreeRam(session).take, tsc_khz=session.found.tsc_khz)

Ref: docs/virtual_processors.md, "Giving a CPU a virtual processor" and "Changing guest memory".
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from sidecar.client.vmm.errors import VmError
from sidecar.client.vmm.waiting import PolledWaiter
from sidecar.layout.control import CpuStatus
from sidecar.layout.diagnostics import PrivilegedPage
from sidecar.layout.ioctl import GuestRights
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.svm import VP_PAGES
from sidecar.layout.x86 import Icr
from sidecar.protocol.atomics import AtomicU64
from sidecar.protocol.commands import Cpu
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.nested import NestedTables, Rights
from sidecar.protocol.recovery import interrupt
from sidecar.protocol.slot import IN_COMMAND
from sidecar.protocol.typed import TypedCpu
from sidecar.protocol.waiting import poll

if TYPE_CHECKING:
    from sidecar.client.ends import PolledEnds

UNMAP_SECONDS = 10.0
LARGE_PAGE = 2 << 20


class Store(Protocol):
    """The machine's memory by physical address."""

    def view(self, pa: int, size: int) -> memoryview: ...


class Take(Protocol):
    """Gives the physical address of zeroed memory that nobody else has."""

    def __call__(self, size: int, *, align: int = ...) -> int: ...


class PagesVm:
    """A VmBacking. What it has taken it does not give back: the machine is ended sooner or later."""

    slice_seconds = 1.0

    def __init__(self, driver: PageDriver, memory: Store, take: Take, *, tsc_khz: int) -> None:
        self.tsc_khz = tsc_khz
        self._driver, self._memory, self._take = driver, memory, take
        self._tables = NestedTables(memory, lambda: take(PAGE_SIZE))
        self._allocated: list[tuple[memoryview, int]] = []
        self._cpus: dict[int, TypedCpu] = {}

    def cpu(self, number: int) -> Cpu:
        return Cpu(self._driver, number)

    def page(self, cpu: TypedCpu) -> memoryview:
        return self._driver.open_page(cpu.number, cpu)

    def register_page(self, cpu: TypedCpu) -> memoryview:
        return self._driver.pages(cpu.number).register

    def allocate(self, size: int) -> memoryview:
        pa = self._take(size, align=LARGE_PAGE if size >= LARGE_PAGE else PAGE_SIZE)
        memory = self._memory.view(pa, size)
        self._allocated.append((memory, pa))
        return memory

    def map(self, gpa: int, memory: memoryview, rights: GuestRights) -> None:
        pa = next((pa for known, pa in self._allocated if known is memory), None)
        if pa is None:
            raise VmError(f"memory for {gpa:#x} was not allocated here")
        self._tables.map(gpa, pa, len(memory), Rights(rights))
        self._changed()

    def unmap(self, gpa: int, size: int) -> None:
        self._tables.unmap(gpa, size)
        self._changed()

    def create_vp(self, cpu: TypedCpu) -> None:
        """Its number is another one for each creation, as the sidecar asks for."""
        privileged = self._driver.pages(cpu.number).privileged
        privileged.vp_pages_pa = self._take(VP_PAGES * PAGE_SIZE, align=PAGE_SIZE)
        privileged.guest_root_pa = self._tables.root_pa
        privileged.iopm_pa = 0
        self._word(cpu.number, int(PrivilegedPage.doorbell)).exchange(0)
        privileged.vp_created = time.monotonic_ns()
        self._cpus[cpu.number] = cpu

    def destroy_vp(self, cpu: TypedCpu) -> None:
        """After the command the CPU refers to none of its pages; one that is not idle forgets them later."""
        self._driver.pages(cpu.number).privileged.vp_created = 0
        del self._cpus[cpu.number]
        if cpu.status == CpuStatus.IDLE:
            cpu.none()

    def ring(self, cpu: TypedCpu, bits: int) -> None:
        self._word(cpu.number, int(PrivilegedPage.doorbell)).set_bits(bits)
        self._request(cpu.number)

    def waiter(self) -> PolledWaiter:
        return PolledWaiter(self._driver)

    def ends(self) -> PolledEnds:
        from sidecar.client.ends import PolledEnds

        return PolledEnds(self._driver)

    def close(self) -> None:
        """Nothing is open."""

    # --- inside ----------------------------------------------------------------------------------------------------

    def _word(self, cpu: int, offset: int) -> AtomicU64:
        return AtomicU64(self._driver.pages(cpu).privileged._memory, offset)

    def _changed(self) -> None:
        """Counts the generation up on each CPU, and waits until it has taken note. Raises VmError."""
        for number in self._cpus:
            generation = self._word(number, int(PrivilegedPage.guest_generation))
            seen = self._word(number, int(PrivilegedPage.seen_generation))
            wanted = generation.load() + 1
            generation.exchange(wanted)  # a full barrier
            self._request(number)
            if not poll(partial(self._has_seen, number, seen, wanted), UNMAP_SECONDS, self._driver.backing.check):
                raise VmError(f"{self._driver.numbers(number)} took no note of a change of its guest's memory")

    def _has_seen(self, cpu: int, seen: AtomicU64, wanted: int) -> bool:
        return seen.load() == wanted or not self._runs(cpu)

    def _runs(self, cpu: int) -> bool:
        return self._driver.status(cpu) in IN_COMMAND

    def _request(self, cpu: int) -> None:
        if self._runs(cpu):
            vector = int(self._driver.pages(cpu).control.request_vector)
            interrupt(self._driver.backing, self._driver.numbers(cpu), Icr.FIXED, vector)
