"""Wrong input to every call, and who may have what."""

import ctypes
import errno
import mmap
import os
import signal
import struct

from sidecar.layout import CommandPage
from sidecar.layout.ioctl import Ioctl

from .device import CPU_CALLS, LIBC, PAGE, STRIDE, Case, Node, Outcome, Results, claimed, fate, outcome, shown

PROT_EXEC = mmap.PROT_READ | mmap.PROT_EXEC
NOWHERE = 0x1000


def errors() -> Results:
    """Wrong input to every call."""
    node, held = Node(os.O_NONBLOCK), {}
    for what in CPU_CALLS:
        held[what.name] = {
            "of another node": node.ask(what, 99), "negative": node.ask(what, -1), "base CPU": node.ask(what, 0),
            "64 bits": node.raw(what, 0x1_0000_0001),
        }  # fmt: skip
    result: Results = {"ioctls": held}
    result["unknown ioctl"] = [node.ask(0xB8FF, 1), node.ask(0xB8EF, 1), node.ask(0x5401, 1), node.ask(0x800CB8F4, 1)]
    result["INFO to nowhere"] = node.raw(Ioctl.INFO, NOWHERE)
    result["INFO"] = node.info()
    result["RELEASE unclaimed"] = node.ask(Ioctl.RELEASE, 1)
    result["STOP of nothing"] = node.ask(Ioctl.STOP, 1)
    result["short read"] = [node.read(0), node.read(3)]
    result["read of nothing"] = node.read()
    result["write"] = outcome(lambda: os.write(node.file, b"1234"))
    result["seek"] = outcome(lambda: os.lseek(node.file, 4, os.SEEK_SET))
    result["pread"] = outcome(lambda: os.pread(node.file, 4, 0))
    result["CLAIM"] = [node.ask(Ioctl.CLAIM, 1), node.ask(Ioctl.CLAIM, 1)]
    result["read to nowhere"] = read_to_nowhere(node)
    result["interrupted read"] = interrupted_read()
    node.close()
    return result


def read_to_nowhere(node: Node) -> list[object]:
    """The number of a finished run, read to a bad address: it is not lost."""
    node.ask(Ioctl.START, 1)
    node.readable()
    result = LIBC.read(node.file, ctypes.c_void_p(NOWHERE), ctypes.c_size_t(4))
    return [result, errno.errorcode[ctypes.get_errno()], node.read(), node.ask(Ioctl.RELEASE, 1)]


def interrupted_read() -> list[object]:
    """A signal while read() waits; it comes again and again, in case the first comes too early."""
    node, buffer = Node(), ctypes.create_string_buffer(4)
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    result = LIBC.read(node.file, buffer, ctypes.c_size_t(4))
    reason = errno.errorcode[ctypes.get_errno()]
    signal.setitimer(signal.ITIMER_REAL, 0)
    node.close()
    return [result, reason]


def mappings() -> Results:
    """Every way to map, and what may be done with a mapping."""
    node = Node()
    end = node.info()[1] * STRIDE
    result: Results = {
        "beyond": outcome(lambda: node.map(end, PAGE)),
        "over the end": outcome(lambda: node.map(end - PAGE, STRIDE)),
        "unclaimed": outcome(lambda: node.map(STRIDE, STRIDE)),
        "base CPU": outcome(lambda: node.map(0, PAGE)),
        "claimed": [node.ask(Ioctl.CLAIM, 1), outcome(lambda: node.map(STRIDE, STRIDE))],
        "half": outcome(lambda: node.map(STRIDE + PAGE, PAGE)),
        "claimed and not": outcome(lambda: node.map(STRIDE, 2 * STRIDE)),
        "private": outcome(lambda: node.map(STRIDE, STRIDE, mmap.MAP_PRIVATE)),
        "executable": outcome(lambda: node.map(STRIDE, STRIDE, rights=PROT_EXEC)),
        "read only": outcome(lambda: node.map(STRIDE, STRIDE, rights=mmap.PROT_READ)),
    }
    page = node.page(1)
    address = ctypes.c_void_p(ctypes.addressof((ctypes.c_char * 1).from_buffer(page)))
    one_page, two_pages = ctypes.c_size_t(PAGE), ctypes.c_size_t(2 * PAGE)
    result["made executable"] = failed(LIBC.mprotect(address, one_page, PROT_EXEC))
    result["grown"] = failed(LIBC.mremap(address, one_page, two_pages, ctypes.c_int(1)))
    result["kept by children"] = failed(LIBC.madvise(address, two_pages, ctypes.c_int(11)))
    result["dumped"] = failed(LIBC.madvise(address, two_pages, ctypes.c_int(17)))
    return result


def failed(result: int) -> Outcome:
    """The errno of a C call that should have failed."""
    return errno.errorcode[ctypes.get_errno()] if ctypes.c_long(result).value in (-1, 0xFFFFFFFF) else "no error"


def two_files() -> Results:
    """One CPU, two files."""
    one, other = Node(), Node(os.O_NONBLOCK)
    result: Results = {"claim": one.ask(Ioctl.CLAIM, 1)}
    page = one.page(1)
    page[int(CommandPage.request_data)] = 0x5A
    page[PAGE] = 0xA5
    result["other"] = {what.name: other.ask(what, 1) for what in CPU_CALLS}
    result["other maps"] = outcome(lambda: other.map(STRIDE, STRIDE))
    result["inherited"] = fate(lambda: page[0])
    result["release"] = one.ask(Ioctl.RELEASE, 1)
    again = other.ask(Ioctl.CLAIM, 1)
    seen = other.page(1)
    result["other then"] = [again, seen[int(CommandPage.request_data)], seen[PAGE]]
    at = int(CommandPage.abi_hash)
    result["stamped"] = struct.unpack_from("<Q", seen, at)[0] != 0
    result["after release"] = lost(page)
    return result


def lost(page: mmap.mmap) -> Outcome:
    """What write(2) from a mapping gives whose claim has ended: the kernel cannot read it, and sends no signal."""
    buffer = (ctypes.c_char * 1).from_buffer(page)
    out = os.open("/tmp/lost", os.O_CREAT | os.O_WRONLY)
    result = int(LIBC.write(out, ctypes.byref(buffer), ctypes.c_size_t(1)))
    os.close(out)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


def whole_region() -> Results:
    """As upstream's client: everything mapped at once, no CLAIM."""
    one, other = Node(), Node()
    count = one.info()[1]
    mine = one.map(0, count * STRIDE)
    result: Results = {"claimed before": [shown(1, "claimed"), shown(2, "claimed")]}
    mine[1 * STRIDE + int(CommandPage.sequence)] = 7
    result["claimed by touch"] = [shown(1, "claimed"), shown(2, "claimed")]
    result["run"] = [one.ask(Ioctl.RUN, 1), mine[1 * STRIDE + int(CommandPage.completed_sequence)]]
    result["unmapped START claims"] = [one.ask(Ioctl.START, 2), shown(2, "claimed"), one.read()]
    result["other"] = [other.ask(Ioctl.RUN, 1), other.ask(Ioctl.RUN, 3)]
    result["base CPU"] = touched(one, count, 0)
    result["another's"] = touched(other, count, 1)
    result["own"] = touched(other, count, 3)
    one.close()
    result["still mapped"] = shown(1, "claimed")
    mine.close()
    result["after close"] = [shown(1, "claimed"), shown(2, "claimed"), other.ask(Ioctl.RUN, 1)]
    return result


def touched(node: Node, count: int, index: int) -> str:
    """A process that maps the whole region itself and reads a byte of one CPU's pages."""
    return fate(lambda: node.map(0, count * STRIDE)[index * STRIDE])


def left_in_a_lost_cpu(text: str) -> Results:
    """A CPU that cannot be restarted, from one file to the next."""
    cpu = int(text)
    one, other = Node(), Node()
    (page,) = claimed(one, cpu)
    page[int(CommandPage.request_data)] = 0x5A
    page[PAGE] = 0xA5
    result: Results = {"restart": one.ask(Ioctl.RESTART, cpu), "state": shown(cpu, "state")}
    result["commands"] = [one.ask(what, cpu) for what in (Ioctl.RUN, Ioctl.START, Ioctl.STOP)]
    page.close()
    one.close()
    (seen,) = claimed(other, cpu)
    result["seen"] = [seen[int(CommandPage.request_data)], seen[PAGE], other.ask(Ioctl.RUN, cpu)]
    return result


CASES: dict[str, Case] = {
    case.__name__: case for case in (errors, mappings, two_files, whole_region, left_in_a_lost_cpu)
}
