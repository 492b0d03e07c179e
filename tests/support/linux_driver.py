"""A Linux guest for the tests of the driver: what it shows, and what stands in the pages it drives."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from sidecar.layout import ControlPage, CpuStatus
from sidecar.layout.acpi import AcpiHeader, Sdcr
from sidecar.protocol.machine import Discovered
from sidecar.qemu.linux.agent_client import Guest, GuestCommand, GuestError
from sidecar.qemu.linux_session import LinuxSession
from tests.support.kernel_log import KernelLog
from tests.support.program_server import PROGRAMS, call

CLASS = "/sys/class/sidecar"
PARAMETERS = "/sys/module/sidecar/parameters"
PATIENT = "timeout_ms=600000"
"""For load_driver(): commands may run as long as a test needs on a busy host."""

CASES = PROGRAMS / "driver_cases"
CASE_SECONDS = 100.0

PROCESSOR = 38
"""Ref: proc(5), /proc/pid/stat, field 39."""

_equipped: WeakSet[Guest] = WeakSet()


def equip(session: LinuxSession) -> None:
    """Puts the cases into the guest."""
    if session.guest not in _equipped:
        session.guest.run(f"mkdir -p /root/{CASES.name}").check()
        for file in CASES.glob("*.py"):
            session.guest.put(file, f"/root/{CASES.name}/{file.name}")
        _equipped.add(session.guest)


def start_case(session: LinuxSession, name: str, *arguments: object) -> GuestCommand:
    """A case of in_guest/driver_cases, running."""
    equip(session)
    return session.guest.start(["python3", "-m", CASES.name, name, *map(str, arguments)])


def case(session: LinuxSession, name: str, *arguments: object, seconds: float = CASE_SECONDS) -> Any:
    """What a case of in_guest/driver_cases prints."""
    equip(session)
    said = call(session, f"{CASES.name}.__main__", name, *map(str, arguments), seconds=seconds)
    assert said.status == 0, said.error[-2000:]
    return said.data


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
    session.guest.run(f"for i in $(seq 500); do {look}; sleep 0.1; done; exit 1").check()


def refusal(session: LinuxSession) -> str:
    """What the kernel's log says when the driver refuses to be loaded."""
    log = KernelLog(session)
    try:
        session.load_driver()
    except GuestError:
        return log.text
    unload(session)
    raise AssertionError("the driver was loaded")


def used(session: LinuxSession, cpu: int) -> bool:
    """Does a program run on the CPU when it is told to?"""
    stat = session.guest.run(["taskset", "-c", str(cpu), "cat", "/proc/self/stat"]).check().stdout
    return stat.split()[PROCESSOR] == str(cpu)


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
