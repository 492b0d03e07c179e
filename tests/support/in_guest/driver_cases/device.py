"""One open device file, what sysfs shows, and Linux's switch."""

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import select
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sidecar.layout import CommandPage, RaiseKind, SidecarCommand
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.commands import raise_request

CPU_CALLS = (Ioctl.START, Ioctl.STOP, Ioctl.RUN, Ioctl.CLAIM, Ioctl.RELEASE, Ioctl.RESTART)
"""Those whose argument is a CPU's number."""

PAGE = 4096
STRIDE = 2 * PAGE
SECONDS = 60.0
"""For what must happen."""

SYS = Path("/sys/class/sidecar/sidecar0")
CPUS = Path("/sys/devices/system/cpu")
TIMEOUT = Path("/sys/module/sidecar/parameters/timeout_ms")
HANG = Path("/sys/module/sidecar/parameters/hang_ms")
LIBC = ctypes.CDLL(None, use_errno=True)

Outcome = int | str
Results = dict[str, object]
Case = Callable[..., Results]


def outcome(call: Callable[[], object]) -> Outcome:
    try:
        result = call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return result if isinstance(result, int) else 0


class Node:
    """One open file."""

    def __init__(self, flags: int = 0, name: str = "sidecar0") -> None:
        self.file = os.open(f"/dev/{name}", os.O_RDWR | flags)

    def close(self) -> None:
        os.close(self.file)

    def ask(self, what: int, cpu: int) -> Outcome:
        return outcome(lambda: fcntl.ioctl(self.file, what, cpu))

    def raw(self, request: int, argument: int) -> Outcome:
        """With an argument that Python's ioctl does not take."""
        result = int(LIBC.ioctl(self.file, ctypes.c_ulong(request), ctypes.c_ulong(argument)))
        return errno.errorcode[ctypes.get_errno()] if result < 0 else result

    def info(self) -> tuple[int, int, int]:
        """First CPU, number of CPUs, bytes of shared pages per CPU."""
        base, count, size = struct.unpack("=3I", fcntl.ioctl(self.file, Ioctl.INFO, bytes(12)))
        return base, count, size

    def map(self, offset: int, size: int, flags: int = mmap.MAP_SHARED, rights: int = 3) -> mmap.mmap:
        return mmap.mmap(self.file, size, flags=flags, prot=rights, offset=offset)

    def page(self, cpu: int) -> mmap.mmap:
        """The shared pages of a CPU of node 0, which this file has claimed."""
        return self.map(cpu * STRIDE, STRIDE)

    def read(self, size: int = 4) -> list[int] | str:
        try:
            data = os.read(self.file, size)
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return list(struct.unpack(f"={len(data) // 4}I", data))

    def readable(self, seconds: float = SECONDS) -> bool:
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        return bool(poll.poll(seconds * 1000))


def give(page: mmap.mmap, kind: RaiseKind, argument: int = 0) -> None:
    """Puts a RAISE into a command page."""
    request = raise_request(kind, argument)
    at = int(CommandPage.request_data)
    page[at : at + len(request)] = request
    struct.pack_into("<I", page, 0, SidecarCommand.RAISE)


def claimed(node: Node, *cpus: int) -> list[mmap.mmap]:
    """Claims the CPUs; their pages."""
    for cpu in cpus:
        assert node.ask(Ioctl.CLAIM, cpu) == 0, (cpu, node.ask(Ioctl.CLAIM, cpu))
    return [node.page(cpu) for cpu in cpus]


def fate(access: Callable[[], object]) -> str:
    """What becomes of a process that does this."""
    child = os.fork()
    if child == 0:
        access()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "lived"


def shown(cpu: int, name: str) -> str:
    return (SYS / f"cpu{cpu}" / name).read_text().strip()


def counters(cpu: int, *names: str) -> list[int]:
    return [int(shown(cpu, name)) for name in names]


def set_online(cpu: int, online: bool) -> Outcome:
    """Written once: a file object would try a second time when it is closed."""
    switch = os.open(CPUS / f"cpu{cpu}" / "online", os.O_WRONLY)
    try:
        return outcome(lambda: os.write(switch, b"1" if online else b"0") - 1)
    finally:
        os.close(switch)


@contextlib.contextmanager
def timeout(ms: int) -> Iterator[None]:
    """Another bound of the driver, for a while."""
    before = TIMEOUT.read_text()
    TIMEOUT.write_text(str(ms))
    try:
        yield
    finally:
        TIMEOUT.write_text(before)


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Another thread does this; the block ends after it."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(SECONDS)
