"""A Linux guest for the tests of the driver: what it shows, and what stands in the pages it drives."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sidecar.layout import ControlPage, CpuStatus
from sidecar.layout.acpi import AcpiHeader, Sdcr
from sidecar.protocol.machine import Discovered
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_client import program

CLASS = "/sys/class/sidecar"


def case(session: LinuxSession, name: str, *arguments: object, seconds: float = 120.0) -> Any:
    """What a case of in_guest/driver_cases.py prints."""
    return program(session, "driver_cases.py", name, *map(str, arguments), seconds=seconds)


def found(session: LinuxSession) -> Discovered:
    assert session.found is not None
    return session.found


def shown(session: LinuxSession, cpu: int, name: str) -> str:
    """A file of a CPU in sysfs."""
    node = found(session).cpu(cpu).node
    return session.guest.read(f"{CLASS}/sidecar{node}/cpu{cpu}/{name}").decode().strip()


def states(session: LinuxSession) -> dict[int, str]:
    """The driver's states of all CPUs."""
    text = session.guest.run(f"grep -H . {CLASS}/*/cpu*/state").check().stdout
    lines = (line.split(":") for line in text.splitlines())
    return {int(path.split("/")[-2].removeprefix("cpu")): state for path, state in lines}


def switch(session: LinuxSession, cpu: int, online: bool) -> None:
    """Raises GuestError if Linux refuses."""
    session.guest.run(f"echo {int(online)} > /sys/devices/system/cpu/cpu{cpu}/online").check()


def unload(session: LinuxSession) -> None:
    session.guest.run("rmmod sidecar").check()


def wait_settled(session: LinuxSession) -> None:
    """Until no CPU is being restarted any more."""
    look = f"grep -q starting {CLASS}/*/cpu*/state || exit 0"
    session.guest.run(f"for i in $(seq 300); do {look}; sleep 0.1; done; exit 1").check()


def refusal(session: LinuxSession) -> str:
    """What the kernel's log says when the driver refuses to be loaded."""
    before = len(session.guest.log())
    try:
        session.load_driver()
    except GuestError:
        return session.guest.log()[before:]
    unload(session)
    raise AssertionError("the driver was loaded")


def set_status(session: LinuxSession, cpu: int, status: int) -> None:
    """The status byte, as if somebody had left it so."""
    where = found(session).cpu(cpu)
    assert where.node is not None
    assert where.index is not None
    node = found(session).nodes[where.node]
    session.machine.ram.view(node.control_pa + int(ControlPage.cpu_status) + where.index, 1)[0] = status


def status(session: LinuxSession, cpu: int) -> CpuStatus:
    where = found(session).cpu(cpu)
    assert where.node is not None
    assert where.index is not None
    node = found(session).nodes[where.node]
    return CpuStatus(session.machine.ram.read(node.control_pa + int(ControlPage.cpu_status) + where.index, 1)[0])


def response(session: LinuxSession, node: int = 0) -> tuple[int, int]:
    """APIC id and vector that a node's CPUs notify."""
    pa = found(session).nodes[node].control_pa + int(ControlPage.response_cpu)
    pair = session.machine.ram.read(pa, 8)
    return int.from_bytes(pair[:4], "little"), int.from_bytes(pair[4:], "little")


@contextmanager
def damaged(session: LinuxSession, pa: int, data: bytes) -> Iterator[None]:
    """Other bytes at a physical address, for a while."""
    view = session.machine.ram.view(pa, len(data))
    kept = bytes(view)
    view[:] = data
    try:
        yield
    finally:
        view[:] = kept


@contextmanager
def damaged_table(session: LinuxSession, offset: int, data: bytes) -> Iterator[None]:
    """The same in the SDCR table, whose checksum still fits."""
    pa = found(session).sdcr_pa
    length = int.from_bytes(session.machine.ram.read(pa + int(AcpiHeader.length), 4), "little")
    table = bytearray(session.machine.ram.read(pa, length))
    table[offset : offset + len(data)] = data
    table[int(AcpiHeader.checksum)] = 0
    table[int(AcpiHeader.checksum)] = -sum(table) % 256
    assert length >= Sdcr.SIZE
    with damaged(session, pa, bytes(table)):
        yield


__all__ = [
    "CLASS", "case", "damaged", "damaged_table", "found", "refusal", "response", "set_status", "shown", "states",
    "status", "switch", "unload", "wait_settled",
]
