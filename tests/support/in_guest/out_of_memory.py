"""Has each call of the driver's that needs memory fail once, step by step; prints what came of each as JSON.

A line says: the step, the call that failed, what the step returned or the name of its errno, what was not given back,
and what should not be there any more. The last of a step, without a call, is the one in which nothing failed. At the
end the driver is loaded, and nothing of it in use.
"""

import ctypes
import errno
import fcntl
import itertools
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sidecar.layout.ioctl import (
    NO_EVENTFD,
    DoorbellFd,
    GuestRights,
    Ioctl,
    MemoryMap,
    MemoryUnmap,
    VmIoctl,
    VpCreate,
    VpIoctl,
)
from tests.support.in_guest.vm_server import ask, eventfd, memory, online, outcome, page_address, tell

PAGE = 4096
LARGE = 2 << 20
PARAMETERS = Path("/sys/module/nth_failure/parameters")
SETTINGS = b"online=0 io_ports=0x80 timeout_ms=600000"
FINIT_MODULE, DELETE_MODULE = 313, 176  # Linux, arch/x86/entry/syscalls/syscall_64.tbl
CPU, OTHER_BASE, OTHER = 1, 2, 3
LOOKS, LOOK_SECONDS = 100, 0.01
RIGHTS = GuestRights.READ | GuestRights.WRITE
LIBC = ctypes.CDLL(None, use_errno=True)

Outcome = int | str
Step = Callable[[], Outcome]
Lines = list[dict[str, object]]


def live() -> int:
    return int((PARAMETERS / "live").read_text())


def remains() -> list[str]:
    """Of a driver that is not loaded."""
    return [
        name for name, where in (
            ("module", Path("/proc/modules").read_text()), ("memory", Path("/proc/iomem").read_text()),
            ("device", Path("/proc/devices").read_text()), ("interrupt", Path("/proc/interrupts").read_text()),
        ) if any(word.startswith("sidecar") for word in where.split())
    ]  # fmt: skip


def nothing() -> list[str]:
    return []


def attempts(name: str, step: Step, undo: Step, look: Callable[[], list[str]] = nothing) -> Lines:
    """The step again and again, the next call failing each time, until none is left."""
    lines: Lines = []
    for nth in itertools.count(1):
        before = live()
        (PARAMETERS / "armed").write_text(str(nth))
        result = step()
        failed = (PARAMETERS / "failed").read_text().strip()
        (PARAMETERS / "armed").write_text("0")
        left = [] if result == 0 else look()
        undone = undo() if result == 0 else 0
        lines.append({"step": name, "failed": failed, "result": result, "undone": undone, "lost": live() - before,
                      "left": left})  # fmt: skip
        if not failed:
            return lines
    raise AssertionError


def system_call(number: int, *arguments: object) -> Outcome:
    if LIBC.syscall(ctypes.c_long(number), *arguments) < 0:
        return str(errno.errorcode[ctypes.get_errno()])
    return 0


def load() -> Outcome:
    with open("/root/sidecar.ko", "rb") as module:
        return system_call(FINIT_MODULE, ctypes.c_int(module.fileno()), ctypes.c_char_p(SETTINGS), ctypes.c_int(0))


def unload() -> Outcome:
    return system_call(DELETE_MODULE, ctypes.c_char_p(b"sidecar"), ctypes.c_uint(os.O_NONBLOCK))


class Opened:
    """A step that opens a file, which is closed to undo it."""

    def __init__(self, how: Callable[[], int]) -> None:
        self._how, self.file = how, -1

    def open(self) -> Outcome:
        def keep() -> None:
            self.file = self._how()

        return outcome(keep)

    def close(self) -> Outcome:
        return outcome(lambda: os.close(self.file))


def touched(node: int) -> Step:
    """A page of the CPU is mapped and touched."""

    def touch() -> Outcome:
        address = page_address(node, CPU)
        ctypes.c_uint32.from_address(address).value = 0
        LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(2 * PAGE))
        return 0

    return touch


def fine() -> Outcome:
    return 0


def ranges(vm: int) -> Lines:
    """Three pages on both sides of 1 GiB, and 2 MiB that lie in a row."""
    lines: Lines = []
    Path("/proc/sys/vm/nr_hugepages").write_text("1")
    for name, gpa, size, huge in (("MAP", (1 << 30) - PAGE, 3 * PAGE, False), ("MAP large", LARGE, LARGE, True)):
        address = memory(size // PAGE, huge=huge)
        add = MemoryMap.build(gpa=gpa, size=size, user_address=address, rights=RIGHTS).hex()
        take = MemoryUnmap.build(gpa=gpa, size=size).hex()
        lines += attempts(name, partial(tell, vm, VmIoctl.MAP, add), partial(tell, vm, VmIoctl.UNMAP, take))
        LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    Path("/proc/sys/vm/nr_hugepages").write_text("0")
    return lines


def processors(node: int, vm: int) -> Lines:
    """A virtual processor and a doorbell."""
    create, event = VpCreate.build(cpu=CPU, vm_fd=vm).hex(), eventfd()
    assert isinstance(event, int)
    bind, unbind = (DoorbellFd.build(cpu=CPU, eventfd=file, bit=3).hex() for file in (event, NO_EVENTFD))
    lines = attempts(
        "VP_CREATE", lambda: tell(node, VpIoctl.VP_CREATE, create), lambda: ask(node, VpIoctl.VP_DESTROY, CPU)
    )
    assert tell(node, VpIoctl.VP_CREATE, create) == 0
    lines += attempts(
        "DOORBELL_FD", lambda: tell(node, VpIoctl.DOORBELL_FD, bind), lambda: tell(node, VpIoctl.DOORBELL_FD, unbind)
    )
    lines += attempts(
        "VP_DESTROY", lambda: ask(node, VpIoctl.VP_DESTROY, CPU), lambda: tell(node, VpIoctl.VP_CREATE, create)
    )
    assert ask(node, VpIoctl.VP_DESTROY, CPU) == 0
    return lines


def used() -> Lines:
    """What user space can do with /dev/sidecar0."""
    opening = Opened(lambda: os.open("/dev/sidecar0", os.O_RDWR | os.O_NONBLOCK))
    lines = attempts("open", opening.open, opening.close)
    assert opening.open() == 0
    node = opening.file
    lines += attempts("CLAIM", lambda: ask(node, Ioctl.CLAIM, CPU), lambda: ask(node, Ioctl.RELEASE, CPU))
    assert ask(node, Ioctl.CLAIM, CPU) == 0
    for name, step in (
        ("touch", touched(node)),
        ("RUN", lambda: ask(node, Ioctl.RUN, CPU)),
        ("RESTART", lambda: ask(node, Ioctl.RESTART, CPU)),
    ):
        lines += attempts(name, step, fine)
    vm = Opened(lambda: fcntl.ioctl(node, VpIoctl.VM_CREATE, 0))
    lines += attempts("VM_CREATE", vm.open, vm.close)
    assert vm.open() == 0
    lines += ranges(vm.file) + processors(node, vm.file)
    assert [vm.close(), opening.close()] == [0, 0]
    return lines


def interrupts() -> int:
    return int(Path("/sys/class/sidecar/sidecar1/interrupts").read_text())


def conversions() -> Lines:
    """A CPU there and back; the first CPU of a node, with which the node's interrupt moves, and a command after it."""
    node = os.open("/dev/sidecar1", os.O_RDWR)

    def moved(yes: bool) -> Outcome:
        result, before = online(OTHER_BASE, yes), interrupts()
        for _ in range(LOOKS):
            result = result or ask(node, Ioctl.RUN, OTHER)
            if result or interrupts() > before:
                return result
            time.sleep(LOOK_SECONDS)
        return "not notified"

    lines = attempts("online", lambda: online(CPU, True), lambda: online(CPU, False))
    assert online(CPU, True) == 0
    lines += attempts("offline", lambda: online(CPU, False), lambda: online(CPU, True))
    lines += attempts("first online", lambda: moved(True), lambda: moved(False))
    assert moved(True) == 0
    lines += attempts("first offline", lambda: moved(False), lambda: moved(True))
    assert [online(CPU, False), moved(False)] == [0, 0]
    os.close(node)
    return lines


def main() -> None:
    before = live()
    lines = attempts("load", load, unload, remains)
    assert load() == 0
    lines += used() + conversions()
    lines += [{"step": "unload", "failed": "", "result": unload(), "undone": 0, "lost": live() - before,
               "left": remains()}]  # fmt: skip
    assert load() == 0
    print(json.dumps(lines))


main()
