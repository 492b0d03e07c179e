"""Virtual processors of a machine without Linux: what the driver gives a CPU, given by the host.

    with HostedVp(session, 1, memory_bytes=0x10000) as vp:
        vp.memory[0x8000:] = code
        outcome = vp.run()

Guest memory and tables lie in the machine's RAM above FREE_FROM, which nobody uses without Linux.
"""

from __future__ import annotations

from types import TracebackType
from typing import ClassVar, Self
from weakref import WeakKeyDictionary

from sidecar.layout.command import SidecarCommand
from sidecar.layout.control import CpuStatus
from sidecar.layout.diagnostics import PrivilegedPage
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.svm import VP_PAGES, Vmcb, VpPage
from sidecar.layout.x86 import Icr
from sidecar.protocol import vp_run
from sidecar.protocol.atomics import AtomicU64
from sidecar.protocol.commands import Cpu, Run
from sidecar.protocol.errors import ProtocolError
from sidecar.protocol.nested import NestedTables, Rights
from sidecar.protocol.recovery import interrupt
from sidecar.protocol.runner import COMMAND_SECONDS
from sidecar.protocol.views import View
from sidecar.protocol.vp_run import Outcome
from sidecar.protocol.waiting import poll
from sidecar.qemu.memory_map import OutOfRange
from sidecar.qemu.session import Session

FREE_FROM = 32 << 20
"""Above the shim and everything below it."""

UNMAP_SECONDS = 10.0


class FreeRam:
    """Pages of a session's RAM that neither firmware, shim nor sidecar has: from FREE_FROM up to the sidecar's.

    None is given twice: TCG would not see the host's stores into code that it has translated.
    """

    _of: ClassVar[WeakKeyDictionary[Session, FreeRam]] = WeakKeyDictionary()

    @classmethod
    def of(cls, session: Session) -> FreeRam:
        """The one of a session."""
        if session not in cls._of:
            cls._of[session] = cls(session)
        return cls._of[session]

    def __init__(self, session: Session) -> None:
        self.ram = session.machine.ram
        taken = [session.found.image_pa, *(node.control_pa for node in session.found.nodes)]
        self._next = FREE_FROM
        end = next(ram.end for ram in self.ram.ranges if ram.start <= FREE_FROM < ram.end)
        self._end = min([end, *(pa for pa in taken if pa > FREE_FROM)])

    def take(self, size: int, *, align: int = PAGE_SIZE) -> int:
        """Physical address of `size` zeroed bytes, whole pages. Raises OutOfRange if there is no more."""
        start = -(-self._next // align) * align
        end = start + -(-size // PAGE_SIZE) * PAGE_SIZE
        if end > self._end:
            raise OutOfRange(f"no {size:#x} bytes of RAM are free between {self._next:#x} and {self._end:#x}")
        self._next = end
        self.ram.view(start, end - start)[:] = bytes(end - start)
        return start

    def page(self) -> int:
        """One zeroed page."""
        return self.take(PAGE_SIZE)


class HostedVp:
    """The virtual processor of one CPU, with guest memory from address 0 on; `with` gives it and takes it away."""

    _created: ClassVar[int] = 0

    def __init__(self, session: Session, number: int, *, memory_bytes: int = 0x10000) -> None:
        self.session = session
        self.cpu: Cpu = session.cpus[number]
        self.free = free = FreeRam.of(session)
        cpu = self.cpu
        self._slot_memory = cpu.driver.command_memory(cpu.number)
        self.memory_pa = free.take(memory_bytes)
        self.memory = free.ram.view(self.memory_pa, memory_bytes)
        self.tables = NestedTables(free.ram, free.page)
        self.tables.map(0, self.memory_pa, memory_bytes)
        self.pages_pa = free.take(VP_PAGES * PAGE_SIZE)
        privileged = cpu.pages.privileged._memory
        self.privileged = View(PrivilegedPage, privileged)
        self._doorbell = AtomicU64(privileged, int(PrivilegedPage.doorbell))
        self._generation = AtomicU64(privileged, int(PrivilegedPage.guest_generation))
        self._seen = AtomicU64(privileged, int(PrivilegedPage.seen_generation))

    def __enter__(self) -> Self:
        self.create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    def create(self) -> None:
        """Gives the CPU its virtual processor, in its reset state; the CPU must be idle."""
        HostedVp._created += 1
        self.privileged.vp_pages_pa = self.pages_pa
        self.privileged.guest_root_pa = self.tables.root_pa
        self.privileged.iopm_pa = 0
        self._doorbell.exchange(0)
        self.privileged.vp_created = HostedVp._created

    def destroy(self) -> None:
        """Takes it away: after the command, or the restart of a CPU that runs, the CPU refers to none of its pages."""
        self.privileged.vp_created = 0
        driver, number = self.cpu.driver, self.cpu.number
        if self._runs():
            driver.restart(number)
        elif self.cpu.status == CpuStatus.IDLE:
            Cpu(driver, number).none()

    # --- running ----------------------------------------------------------------------------------------------------

    @property
    def page(self) -> memoryview:
        """The command page."""
        return self._slot_memory

    @property
    def vmcb(self) -> View:
        """The VMCB, for those who look below the interface."""
        return View(Vmcb, self.free.ram.view(self.pages_pa + VpPage.VMCB * PAGE_SIZE, PAGE_SIZE))

    def run(
        self,
        *,
        seconds: float = COMMAND_SECONDS,
        time_limit: int = 0,
        flags: int = 0,
        exception_intercepts: int = 0,
        advance_rip: int = 0,
        **gps: int,
    ) -> Outcome:
        """One RUN_VP to its end; general registers and cr2 by name. Raises as Cpu.execute()."""
        self._prepare(time_limit, flags, exception_intercepts, advance_rip, gps)
        self.cpu.execute(SidecarCommand.RUN_VP, seconds=seconds)
        return vp_run.read_run(self.page)

    def start(
        self, *, time_limit: int = 0, flags: int = 0, exception_intercepts: int = 0, advance_rip: int = 0, **gps: int
    ) -> Run:
        """The same without waiting; `outcome()` after Run.wait()."""
        self._prepare(time_limit, flags, exception_intercepts, advance_rip, gps)
        return self.cpu.start(SidecarCommand.RUN_VP)

    def outcome(self) -> Outcome:
        """What the last run left in the command page."""
        return vp_run.read_run(self.page)

    def _prepare(
        self, time_limit: int, flags: int, exception_intercepts: int, advance_rip: int, gps: dict[str, int]
    ) -> None:
        vp_run.write_run(
            self.page, time_limit=time_limit, flags=flags, exception_intercepts=exception_intercepts,
            advance_rip=advance_rip,
        )
        vp_run.write_gps(self.page, gps)

    # --- as the driver does -----------------------------------------------------------------------------------------

    def ring(self, bits: int) -> None:
        """Posts doorbell bits, and interrupts the CPU if it runs."""
        self._doorbell.set_bits(bits)
        self._request()

    def map(self, gpa: int, pa: int, size: int, rights: Rights = Rights.ALL) -> None:
        """Maps guest memory, also while the guest runs."""
        self.tables.map(gpa, pa, size, rights)
        self.changed()

    def unmap(self, gpa: int, size: int) -> None:
        """Unmaps guest memory; afterwards the CPU uses none of it any more."""
        self.tables.unmap(gpa, size)
        self.changed()

    def changed(self) -> None:
        """Counts the generation up, and waits until the CPU has seen it or is in no command. Raises ProtocolError."""
        generation = self._generation.load() + 1
        self._generation.exchange(generation)  # a full barrier
        self._request()
        if not poll(lambda: self._seen.load() == generation or not self._runs(), UNMAP_SECONDS, self._check):
            raise ProtocolError(f"{self.cpu.numbers} did not see generation {generation} of its guest's memory")

    def _runs(self) -> bool:
        return self.cpu.status in (CpuStatus.RUN, CpuStatus.STOP)

    def _check(self) -> None:
        self.cpu.driver.backing.check()

    def _request(self) -> None:
        if self._runs():
            interrupt(self.cpu.driver.backing, self.cpu.numbers, Icr.FIXED, int(self.cpu.pages.control.request_vector))
