"""A VMM in a Linux guest that makes the driver's calls one by one, and the host's view of what comes of them."""

import itertools
import json
import struct
from types import TracebackType
from typing import Any, Self

from sidecar.layout import PAGE_SIZE, CommandPage, PrivatePage, PrivilegedPage, RaiseKind, SidecarCommand
from sidecar.layout.ioctl import (
    NO_EVENTFD,
    Doorbell,
    DoorbellFd,
    GuestRights,
    Ioctl,
    MemoryMap,
    MemoryUnmap,
    VmIoctl,
    VpCreate,
    VpIoctl,
)
from sidecar.layout.private import VpGlobals
from sidecar.layout.x86 import PTE_ADDRESS_MASK, Pte
from sidecar.protocol.commands import raise_request
from sidecar.protocol.nested import NestedTables
from sidecar.protocol.vp_run import GENERAL, Outcome, read_run
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until
from tests.support.linux_client import start_program
from tests.support.linux_driver import found

SECONDS = 60.0
ALL = GuestRights.READ | GuestRights.WRITE | GuestRights.EXECUTE
RESET_ROOM = 16
COUNTED = 0x1000
COUNT_FOR_EVER = bytes.fromhex("ff060010 ebfa")  # inc word ptr [0x1000]; jmp back to the start
PATTERN = bytes(range(1, 249)) * 16
Result = int | str
"""What a call returned, or the name of its errno."""

_numbers = itertools.count(1)


class Vmm:
    """A process in the guest; what it has opened is closed when it ends. `call` makes any call of vm_server.py."""

    def __init__(self, session: LinuxSession) -> None:
        self.session = session
        self._fifo = f"/root/vmm-{next(_numbers)}"
        self._process = start_program(session, "vm_server.py", self._fifo)
        self._answers = 0
        self._answer("the process to start")
        self.node = int(self.call("node"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()
        self._process.wait(SECONDS)

    def call(self, name: str, *arguments: object, **options: object) -> Any:
        line = json.dumps([name, arguments, options])
        self.session.guest.run(["sh", "-c", 'echo "$0" > "$1"', line, self._fifo]).check()
        return self._answer(f"the answer to {line}")

    def _answer(self, what: str) -> Any:
        def look() -> list[bytes] | None:
            lines = self._process.stdout.split(b"\n")[:-1]
            assert self._process.running or len(lines) > self._answers, self._process.stderr.decode()
            return lines if len(lines) > self._answers else None

        lines = wait_until(look, seconds=SECONDS, what=what)
        self._answers += 1
        return json.loads(lines[self._answers - 1])

    # --- the driver's calls --------------------------------------------------------------------------------------

    def ask(self, what: Ioctl | VpIoctl | VmIoctl, argument: int, *, file: int | None = None) -> Result:
        """A call whose argument is a CPU number, or an address."""
        result: Result = self.call("ask", self.node if file is None else file, int(what), argument)
        return result

    def tell(self, what: VpIoctl | VmIoctl, argument: bytes, *, file: int | None = None) -> Result:
        """A call with a structure."""
        result: Result = self.call("tell", self.node if file is None else file, int(what), argument.hex())
        return result

    def vm(self) -> int:
        """A new guest memory."""
        return int(self.ask(VpIoctl.VM_CREATE, 0))

    def map(self, vm: int, gpa: int, size: int, address: int, rights: int = ALL, *, reserved: int = 0) -> Result:
        argument = struct.pack("<3Q2I", gpa, size, address, rights, reserved)
        assert reserved or argument == MemoryMap.build(gpa=gpa, size=size, user_address=address, rights=rights)
        return self.tell(VmIoctl.MAP, argument, file=vm)

    def unmap(self, vm: int, gpa: int, size: int) -> Result:
        return self.tell(VmIoctl.UNMAP, MemoryUnmap.build(gpa=gpa, size=size), file=vm)

    def create(self, cpu: int, vm: int) -> Result:
        return self.tell(VpIoctl.VP_CREATE, VpCreate.build(cpu=cpu, vm_fd=vm))

    def destroy(self, cpu: int) -> Result:
        return self.ask(VpIoctl.VP_DESTROY, cpu)

    def claim(self, *cpus: int) -> None:
        assert [self.ask(Ioctl.CLAIM, cpu) for cpu in cpus] == [0] * len(cpus)

    def ring(self, cpu: int, bits: int) -> Result:
        return self.tell(VpIoctl.DOORBELL, Doorbell.build(cpu=cpu, bits=bits))

    def bind(self, cpu: int, eventfd: int, bit: int) -> Result:
        return self.tell(VpIoctl.DOORBELL_FD, DoorbellFd.build(cpu=cpu, eventfd=eventfd, bit=bit))

    def unbind(self, cpu: int, bit: int) -> Result:
        return self.bind(cpu, NO_EVENTFD, bit)

    def store(self, cpu: int, offset: int, data: bytes) -> None:
        """Into the command page, which call("page", ...) has mapped."""
        self.call("store", cpu, offset, data.hex())

    def load(self, cpu: int, offset: int, size: int) -> bytes:
        return bytes.fromhex(self.call("load", cpu, offset, size))

    # --- commands --------------------------------------------------------------------------------------------------

    def give(self, cpu: int, command: SidecarCommand, data: bytes = b"") -> None:
        """Puts a command into the page of a claimed CPU."""
        assert self.call("page", self.node, cpu) == 0
        self.store(cpu, int(CommandPage.request_data), data)
        self.store(cpu, int(CommandPage.command), struct.pack("<I", command))

    def start(self, cpu: int, kind: RaiseKind) -> None:
        """A command of the tests, which runs when this returns."""
        self.give(cpu, SidecarCommand.RAISE, raise_request(kind))
        assert self.ask(Ioctl.START, cpu) == 0

    def fault(self, cpu: int) -> None:
        self.give(cpu, SidecarCommand.RAISE, raise_request(RaiseKind.INVALID_OPCODE))
        assert self.ask(Ioctl.RUN, cpu) == "EIO"

    def stop(self, cpu: int) -> None:
        """What was started, and is still running."""
        assert self.ask(Ioctl.STOP, cpu) == 1
        self.wait_end(cpu)

    def wait_end(self, cpu: int) -> None:
        """Of what was started last."""
        assert self.call("finished", self.node, SECONDS) == [cpu]

    # --- guests ----------------------------------------------------------------------------------------------------

    def map_code(self, vm: int, code: bytes) -> None:
        """At the reset vector, in real mode: 16 bytes at the end of the last page below 4 GiB."""
        assert len(code) <= RESET_ROOM
        address = self.call("memory", 1)
        self.call("write", address + PAGE_SIZE - RESET_ROOM, code.hex())
        assert self.map(vm, (1 << 32) - PAGE_SIZE, PAGE_SIZE, address, GuestRights.READ | GuestRights.EXECUTE) == 0

    def start_counter(self, cpu: int) -> int:
        """A guest on a claimed CPU that counts for ever at the beginning of a page; where that is in the process."""
        vm, data = self.vm(), int(self.call("memory", 1))
        self.call("write", data + 8, PATTERN.hex())
        self.map_code(vm, COUNT_FOR_EVER)
        assert [self.map(vm, COUNTED, PAGE_SIZE, data), self.create(cpu, vm)] == [0, 0]
        self.start_guest(cpu)
        self.wait_growth(data)
        return data

    def give_run(self, cpu: int) -> None:
        self.give(cpu, SidecarCommand.RUN_VP)
        self.store(cpu, int(CommandPage.run.notifications), bytes(8))

    def start_guest(self, cpu: int) -> None:
        self.give_run(cpu)
        assert self.ask(Ioctl.START, cpu) == 0

    def run_guest(self, cpu: int, **gps: int) -> Outcome:
        """To its end."""
        self.give_run(cpu)
        for name, value in gps.items():
            self.store(cpu, int(CommandPage.cpu_context.gps) + 8 * GENERAL.index(name), value.to_bytes(8, "little"))
        assert self.ask(Ioctl.RUN, cpu) == 0
        return self.outcome(cpu)

    def outcome(self, cpu: int) -> Outcome:
        """Of the run that has ended; AssertionError with the sidecar's sentence if it was refused."""
        page = memoryview(self.load(cpu, 0, PAGE_SIZE))
        error = CommandPage.parse(page).error
        assert not page[int(CommandPage.has_error)], bytes(error.text[: error.length])
        return read_run(page)

    def wait_growth(self, address: int) -> int:
        """Until a guest has changed memory of the process; what is there then."""
        before = self.call("peek", address)

        def grown() -> int | None:
            value = int(self.call("peek", address))
            return value if value != before else None

        return wait_until(grown, seconds=SECONDS, what=f"a guest to change what is at {address:#x}")


# --- from outside --------------------------------------------------------------------------------------------------


def privileged_pa(session: LinuxSession, cpu: int) -> int:
    machine = found(session)
    return machine.private_page_pa(machine.cpu(cpu), PrivatePage.PRIVILEGED)


def privileged(session: LinuxSession, cpu: int) -> Any:
    """What the driver has told a CPU."""
    return PrivilegedPage.parse(session.machine.ram.read(privileged_pa(session, cpu), PAGE_SIZE))


def set_privileged(session: LinuxSession, cpu: int, field: str, value: int) -> None:
    at = privileged_pa(session, cpu) + PrivilegedPage.field(field).offset
    session.machine.ram.view(at, 8)[:] = value.to_bytes(8, "little")


class Tables(NestedTables):
    """The tables that the driver has built, walked from outside."""

    def __init__(self, session: LinuxSession, cpu: int) -> None:
        self._session = session
        super().__init__(session.machine.ram, lambda: int(privileged(session, cpu).guest_root_pa))

    def look(self, gpa: int) -> tuple[int, GuestRights, int] | None:
        """First eight bytes of the page at `gpa`, what a guest may do there, its level; None if nothing is there."""
        entry, level = self.entry(gpa)
        if not entry & Pte.PRESENT:
            return None
        assert entry & Pte.USER
        pa = (entry & PTE_ADDRESS_MASK) + (gpa % (2 << 20) if level == 2 else 0)
        rights = GuestRights.READ
        if entry & Pte.WRITE:
            rights |= GuestRights.WRITE
        if not entry & Pte.NX:
            rights |= GuestRights.EXECUTE
        return int.from_bytes(self._session.machine.ram.read(pa, 8), "little"), rights, level


class Counter:
    """The page of Vmm.start_counter() by its physical address, which stays when nobody knows of the guest any more."""

    def __init__(self, session: LinuxSession, cpu: int) -> None:
        self._session, self._cpu = session, cpu
        entry, _ = Tables(session, cpu).entry(COUNTED)
        self._pa = entry & PTE_ADDRESS_MASK
        assert self.page[8 : 8 + len(PATTERN)] == PATTERN

    @property
    def page(self) -> bytes:
        return self._session.machine.ram.read(self._pa, PAGE_SIZE)

    def wait_forgotten(self) -> bytes:
        """Until the driver has taken the guest from the CPU, and the CPU has left SVM's mode; the page then."""
        wait_until(self.is_forgotten, seconds=SECONDS, what="the end of the guest", interval=0.01)
        return self.page

    def is_forgotten(self) -> bool:
        machine = found(self._session)
        pa = machine.private_page_pa(machine.cpu(self._cpu), PrivatePage.GLOBALS) + int(VpGlobals.vp.created)
        known = int.from_bytes(self._session.machine.ram.read(pa, 8), "little")
        return (known, int(privileged(self._session, self._cpu).vp_created)) == (0, 0)

    def stands_still_since(self, page: bytes) -> bool:
        """Has nobody counted on? Linux may have used the page for something else."""
        now = self.page
        return now == page or now[8:] != page[8:]


def pins(session: LinuxSession) -> int:
    """Pages of user space that the guest's Linux has pinned. Its CPUs count for themselves until asked to add up."""
    said = session.guest.run("cat /proc/sys/vm/stat_refresh; grep nr_foll_pin /proc/vmstat").check().stdout
    figures = {name: int(value) for name, value in (line.split() for line in said.splitlines())}
    return figures["nr_foll_pin_acquired"] - figures["nr_foll_pin_released"]


__all__ = [
    "ALL", "SECONDS", "Counter", "Result", "Tables", "Vmm", "pins", "privileged", "privileged_pa", "set_privileged",
]
