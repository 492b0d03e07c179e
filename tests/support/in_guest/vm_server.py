"""A VMM that does what it is told: a line of JSON on the FIFO argv[1], `["CALL", ARGUMENT ...]`; one back on stdout.

The driver's files are used directly, without the client. An outcome is what a call returned, or the name of its errno.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import resource
import select
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.layout import CommandPage, SidecarCommand
from sidecar.layout.ioctl import Doorbell, Ioctl, VpIoctl

PAGE = 4096
STRIDE = 2 * PAGE
NOBODY = 65534
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
MAP_HUGETLB = 0x40000
NOTIFICATIONS = int(CommandPage.run.notifications)
END_SECONDS = 30.0
Outcome = int | str

pages: dict[int, mmap.mmap] = {}


def outcome(call: Callable[[], object]) -> Outcome:
    try:
        result = call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return result if isinstance(result, int) else 0


# --- files -----------------------------------------------------------------------------------------------------------


def node(name: str = "sidecar0") -> Outcome:
    return outcome(lambda: os.open(f"/dev/{name}", os.O_RDWR | os.O_NONBLOCK))


def null() -> Outcome:
    """A file that is something else."""
    return os.open("/dev/null", os.O_RDWR)


def close(file: int) -> Outcome:
    return outcome(lambda: os.close(file))


def duplicate(file: int) -> Outcome:
    return os.dup(file)


def ask(file: int, request: int, argument: int) -> Outcome:
    """An ioctl with a number, or with an address."""
    result = int(LIBC.ioctl(file, ctypes.c_ulong(request), ctypes.c_ulong(argument)))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


def tell(file: int, request: int, argument: str) -> Outcome:
    """An ioctl with a structure, in hexadecimal."""
    return outcome(lambda: fcntl.ioctl(file, request, bytes.fromhex(argument)))


def tell_from_child(file: int, request: int, argument: str) -> Outcome:
    """The same by another process that has the file too."""
    told, teller = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(teller, str(tell(file, request, argument)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(teller)
    with os.fdopen(told) as answer:
        return answer.read()


def eventfd(count: int = 0) -> Outcome:
    return os.eventfd(count, os.EFD_NONBLOCK)


def signal(file: int, count: int = 1) -> Outcome:
    return outcome(lambda: os.eventfd_write(file, count))


def count(file: int) -> Outcome:
    """Of an eventfd, which is 0 afterwards."""
    return outcome(lambda: os.eventfd_read(file))


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(count: int, *, huge: bool = False, rights: int = 3, shared: bool = False) -> int:
    """Pages; each begins with its own address if they can be written to. `huge`: of Linux's pool of huge pages."""
    kind = mmap.MAP_ANONYMOUS | (mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE) | (MAP_HUGETLB if huge else 0)
    address = int(LIBC.mmap(None, count * PAGE, rights, kind, -1, 0))
    if rights & mmap.PROT_WRITE:
        for page in range(address, address + count * PAGE, PAGE):
            poke(page, page)
    return address


def forget(address: int, count: int) -> int:
    """munmap"""
    return int(LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(count * PAGE)))


def peek(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def poke(address: int, value: int) -> None:
    ctypes.c_uint64.from_address(address).value = value


def write(address: int, data: str) -> None:
    ctypes.memmove(address, bytes.fromhex(data), len(data) // 2)


def pinned_kib() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPin:"))
    return int(line.split()[1])


def limit(size: int) -> None:
    """From now on with this RLIMIT_MEMLOCK, and without the privilege to exceed it."""
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (size, size))
    os.setresuid(NOBODY, NOBODY, NOBODY)


# --- CPUs ------------------------------------------------------------------------------------------------------------


def page(file: int, cpu: int) -> Outcome:
    """Maps a claimed CPU's shared pages."""

    def map_them() -> None:
        pages[cpu] = mmap.mmap(file, STRIDE, offset=cpu * STRIDE)

    return outcome(map_them)


def page_address(file: int, cpu: int) -> int:
    """Where a mapping of a claimed CPU's pages lies: memory that is no memory of the process."""
    return int(LIBC.mmap(None, STRIDE, 3, mmap.MAP_SHARED, file, cpu * STRIDE))


def store(cpu: int, offset: int, data: str) -> None:
    raw = bytes.fromhex(data)
    pages[cpu][offset : offset + len(raw)] = raw


def load(cpu: int, offset: int, size: int) -> str:
    return pages[cpu][offset : offset + size].hex()


def finished(file: int, seconds: float) -> list[int] | str:
    """CPUs whose end is told within a time."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    poll.poll(seconds * 1000)
    try:
        data = os.read(file, 64)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


def online(cpu: int, yes: bool) -> Outcome:
    """Written once: a file object would try a second time when it is closed."""
    switch = os.open(f"/sys/devices/system/cpu/cpu{cpu}/online", os.O_WRONLY)
    try:
        return outcome(lambda: os.write(switch, b"1" if yes else b"0") - 1)
    finally:
        os.close(switch)


class Bells:
    """A guest that never ends by itself is run again and again, and returns with what was posted, each bit once."""

    def __init__(self, file: int, cpu: int) -> None:
        self._file, self._cpu, self._page = file, cpu, pages[cpu]
        self.outstanding = 0
        self.invented = 0

    def post(self, bits: int) -> None:
        self.outstanding |= bits
        fcntl.ioctl(self._file, VpIoctl.DOORBELL, Doorbell.build(cpu=self._cpu, bits=bits))

    def signal(self, event: int, bit: int) -> None:
        self.outstanding |= 1 << bit
        os.eventfd_write(event, 1)

    def start(self) -> None:
        self._page[NOTIFICATIONS : NOTIFICATIONS + 8] = bytes(8)
        self._page[:4] = struct.pack("<I", SidecarCommand.RUN_VP)
        fcntl.ioctl(self._file, Ioctl.START, self._cpu)

    def end(self) -> int:
        """What the run was notified of; 0 if it does not end."""
        if finished(self._file, END_SECONDS) != [self._cpu]:
            return 0
        seen = int.from_bytes(self._page[NOTIFICATIONS : NOTIFICATIONS + 8], "little")
        self.invented |= seen & ~self.outstanding
        self.outstanding &= ~seen
        return seen


def ring_at_random(file: int, cpu: int, event: int, bit: int, rounds: int) -> dict[str, object]:
    """Bits 0 to 31 by ioctl, `bit` by its eventfd, before, in and after a run; none that is posted and not told of."""
    chance, bells = random.Random(rounds), Bells(file, cpu)
    empty = 0
    for _ in range(rounds):
        free = [one for one in range(32) if not bells.outstanding >> one & 1]
        before, in_it, after = chance.sample(free, 3)
        if chance.random() < 0.3:
            bells.post(1 << before)
        bells.start()
        time.sleep(chance.choice((0, 0, 0.0005, 0.002)))
        if chance.random() < 0.5 and not bells.outstanding >> bit & 1:
            bells.signal(event, bit)
        bells.post(1 << in_it)
        if chance.random() < 0.5:
            bells.post(1 << after)
        empty += bells.end() == 0
    while bells.outstanding and not empty:
        bells.start()
        empty += bells.end() == 0
    return {"ended without": empty, "lost": bells.outstanding, "invented": bells.invented}


CALLS: dict[str, Callable[..., object]] = {
    call.__name__: call
    for call in (
        node, null, close, duplicate, ask, tell, tell_from_child, eventfd, signal, count, memory, forget, peek, poke,
        write, pinned_kib, limit, page, page_address, store, load, finished, online, ring_at_random,
    )
}


def main(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path)
    print(json.dumps("ready"), flush=True)
    with os.fdopen(os.open(path, os.O_RDWR)) as lines:
        for line in lines:
            name, arguments, options = json.loads(line)
            print(json.dumps(CALLS[name](*arguments, **options)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
