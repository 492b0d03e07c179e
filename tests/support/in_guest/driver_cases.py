"""The driver's files used directly, without the client: `driver_cases.py CASE [ARGUMENT ...]` prints JSON.

Every outcome is a number: what the call returned, or the name of its errno.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sidecar.layout import CommandPage, RaiseKind, SidecarCommand
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.commands import raise_request

PAGE = 4096
STRIDE = 2 * PAGE
SYS = Path("/sys/class/sidecar/sidecar0")
CPUS = Path("/sys/devices/system/cpu")
LIBC = ctypes.CDLL(None, use_errno=True)
Outcome = int | str


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

    def readable(self, seconds: float = 0) -> bool:
        poll = select.poll()
        poll.register(self.file, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def give(self, cpu: int, page: mmap.mmap, kind: RaiseKind, argument: int = 0) -> None:
        """Puts a RAISE into the command page."""
        request = raise_request(kind, argument)
        at = int(CommandPage.request_data)
        page[at : at + len(request)] = request
        struct.pack_into("<I", page, 0, SidecarCommand.RAISE)


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


def set_timeout(ms: int) -> None:
    Path("/sys/module/sidecar/parameters/timeout_ms").write_text(str(ms))


def set_online(cpu: int, online: bool) -> Outcome:
    """Written once: a file object would try a second time when it is closed."""
    switch = os.open(CPUS / f"cpu{cpu}" / "online", os.O_WRONLY)
    try:
        return outcome(lambda: os.write(switch, b"1" if online else b"0") - 1)
    finally:
        os.close(switch)


# --- cases -----------------------------------------------------------------------------------------------------------


def errors() -> dict[str, object]:
    """Wrong input to every call."""
    node, held = Node(os.O_NONBLOCK), {}
    commands = [what for what in Ioctl if what is not Ioctl.INFO]
    for what in commands:
        held[what.name] = {
            "of another node": node.ask(what, 99), "negative": node.ask(what, -1),
            "the base CPU": node.ask(what, 0),
        }
    result: dict[str, object] = {"ioctls": held, "64-bit CPU": raw(node, Ioctl.CLAIM, 0x1_0000_0001)}
    result["unknown ioctl"] = [node.ask(0xB8FC, 1), node.ask(0xB8EF, 1), node.ask(0x5401, 1), node.ask(0x800CB8F4, 1)]
    result["INFO to nowhere"] = raw(node, Ioctl.INFO, 0x1000)
    result["INFO"] = list(struct.unpack("=3I", fcntl.ioctl(node.file, Ioctl.INFO, bytes(12))))
    result["RELEASE unclaimed"] = node.ask(Ioctl.RELEASE, 1)
    result["STOP of nothing"] = node.ask(Ioctl.STOP, 1)
    result["short read"] = [node.read(0), node.read(3)]
    result["read of nothing"] = node.read()
    result["write"] = outcome(lambda: os.write(node.file, b"1234"))
    result["seek"] = outcome(lambda: os.lseek(node.file, 4, os.SEEK_SET))
    result["pread"] = outcome(lambda: os.pread(node.file, 4, 0))
    count = struct.unpack("=3I", fcntl.ioctl(node.file, Ioctl.INFO, bytes(12)))[1]
    result["mmap"] = {
        "beyond": outcome(lambda: node.map(count * STRIDE, PAGE)),
        "over the end": outcome(lambda: node.map(count * STRIDE - PAGE, STRIDE)),
        "unclaimed": outcome(lambda: node.map(STRIDE, STRIDE)),
        "base CPU": outcome(lambda: node.map(0, PAGE)),
        "claimed": [node.ask(Ioctl.CLAIM, 1), outcome(lambda: node.map(STRIDE, STRIDE))],
        "half": outcome(lambda: node.map(STRIDE + PAGE, PAGE)),
        "claimed and not": outcome(lambda: node.map(STRIDE, 2 * STRIDE)),
        "private": outcome(lambda: node.map(STRIDE, STRIDE, mmap.MAP_PRIVATE)),
        "executable": outcome(lambda: node.map(STRIDE, STRIDE, rights=mmap.PROT_READ | mmap.PROT_EXEC)),
        "read only": outcome(lambda: node.map(STRIDE, STRIDE, rights=mmap.PROT_READ)),
    }
    result["CLAIM twice"] = node.ask(Ioctl.CLAIM, 1)
    result["read to nowhere"] = read_to_nowhere(node)
    return result


def raw(node: Node, request: int, argument: int) -> Outcome:
    """With an argument that Python's ioctl does not take."""
    result = int(LIBC.ioctl(node.file, ctypes.c_ulong(request), ctypes.c_ulong(argument)))
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


def read_to_nowhere(node: Node) -> list[object]:
    """The number of a finished run, read to a bad address."""
    node.ask(Ioctl.START, 1)
    node.readable(5)
    result = LIBC.read(node.file, ctypes.c_void_p(0x1000), ctypes.c_size_t(4))
    return [result, errno.errorcode[ctypes.get_errno()], node.read(), node.ask(Ioctl.RELEASE, 1)]


def two_files() -> dict[str, object]:
    """One CPU, two files."""
    one, other = Node(), Node(os.O_NONBLOCK)
    result: dict[str, object] = {"claim": one.ask(Ioctl.CLAIM, 1)}
    page = one.page(1)
    page[int(CommandPage.request_data)] = 0x5A
    page[PAGE] = 0xA5
    result["other"] = {what.name: other.ask(what, 1) for what in Ioctl if what is not Ioctl.INFO}
    result["other maps"] = outcome(lambda: other.map(STRIDE, STRIDE))
    result["inherited"] = fate(lambda: page[0])
    result["release"] = one.ask(Ioctl.RELEASE, 1)
    again = other.ask(Ioctl.CLAIM, 1)
    seen = other.page(1)
    result["other then"] = [again, seen[int(CommandPage.request_data)], seen[PAGE]]
    at = int(CommandPage.abi_hash)
    result["stamped"] = struct.unpack_from("<Q", seen, at)[0] != 0
    result["after release"] = lost(page)
    other.close()
    del seen
    one.close()
    return result


def lost(page: mmap.mmap) -> Outcome:
    """What write(2) from a mapping gives whose claim has ended: the kernel cannot read it, and sends no signal."""
    buffer = (ctypes.c_char * 1).from_buffer(page)
    out = os.open("/tmp/lost", os.O_CREAT | os.O_WRONLY)
    result = int(LIBC.write(out, ctypes.byref(buffer), ctypes.c_size_t(1)))
    os.close(out)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result


def whole_region() -> dict[str, object]:
    """As upstream's client: everything mapped at once, no CLAIM."""
    one, other = Node(), Node()
    _, count, _ = struct.unpack("=3I", fcntl.ioctl(one.file, Ioctl.INFO, bytes(12)))
    mine = one.map(0, count * STRIDE)
    result: dict[str, object] = {"claimed before": [shown(1, "claimed"), shown(2, "claimed")]}
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
    other.close()
    return result


def touched(node: Node, count: int, index: int) -> str:
    """A process that maps the whole region itself and reads a byte of one CPU's pages."""
    return fate(lambda: node.map(0, count * STRIDE)[index * STRIDE])


def started() -> dict[str, object]:
    """START, STOP, read and poll."""
    node, other = Node(os.O_NONBLOCK), Node(os.O_NONBLOCK)
    pages = {}
    for cpu in (1, 2, 3):
        node.ask(Ioctl.CLAIM, cpu)
        pages[cpu] = node.page(cpu)
    result: dict[str, object] = {"start": [node.ask(Ioctl.START, cpu) for cpu in (1, 2, 3)]}
    ended: list[int] = []
    while len(ended) < 3 and node.readable(5):
        got = node.read(64)
        ended += got if isinstance(got, list) else []
    result["ended"] = sorted(ended)
    result["then"] = [node.read(), node.readable()]
    node.give(1, pages[1], RaiseKind.WAIT_FOR_STOP)
    result["run"] = [
        node.ask(Ioctl.START, 1), node.ask(Ioctl.START, 1), node.ask(Ioctl.RUN, 1), node.ask(Ioctl.RELEASE, 1),
        shown(1, "state"), shown(1, "status"), node.readable(0.2), other.ask(Ioctl.STOP, 1),
    ]
    result["stop"] = [node.ask(Ioctl.STOP, 1), node.readable(5), other.readable(), shown(1, "state")]
    result["untold"] = [
        node.ask(Ioctl.START, 1), node.ask(Ioctl.RUN, 1), node.ask(Ioctl.RELEASE, 1), node.ask(Ioctl.STOP, 1),
    ]
    result["told"] = [other.read(), node.read(), node.read(), node.ask(Ioctl.RUN, 1)]
    node.give(1, pages[1], RaiseKind.WAIT_FOR_STOP)
    result["restart"] = [node.ask(Ioctl.START, 1), node.ask(Ioctl.RESTART, 1), node.read(), node.ask(Ioctl.RUN, 1)]
    return result


def faults() -> dict[str, object]:
    node = Node()
    node.ask(Ioctl.CLAIM, 2)
    page = node.page(2)
    node.give(2, page, RaiseKind.PAGE_FAULT, 0x4242)
    result: dict[str, object] = {"run": node.ask(Ioctl.RUN, 2)}
    result |= {"status": shown(2, "status"), "state": shown(2, "state")}
    result["again"] = [node.ask(Ioctl.RUN, 2), node.ask(Ioctl.START, 2)]
    result["shown"] = [shown(2, "faults"), shown(2, "last_fault")]
    result["restart"] = [node.ask(Ioctl.RESTART, 2), node.ask(Ioctl.RUN, 2), shown(2, "status"), shown(2, "arrivals")]
    node.give(2, page, RaiseKind.INVALID_OPCODE)
    result["started"] = [node.ask(Ioctl.START, 2), node.readable(5), node.read(), shown(2, "status")]
    node.close()
    page.close()
    another = Node()
    result["left behind"] = [another.ask(Ioctl.RUN, 2), another.ask(Ioctl.RESTART, 2), another.ask(Ioctl.RUN, 2)]
    return result


def late() -> dict[str, object]:
    """Commands that do not end."""
    set_timeout(300)
    node = Node()
    node.ask(Ioctl.CLAIM, 3)
    page = node.page(3)
    node.give(3, page, RaiseKind.SPIN)
    before = time.monotonic()
    result: dict[str, object] = {"run": node.ask(Ioctl.RUN, 3), "seconds": time.monotonic() - before}
    result["after"] = [shown(3, "state"), shown(3, "timeouts"), node.ask(Ioctl.RUN, 3)]
    node.give(3, page, RaiseKind.SPIN)
    node.ask(Ioctl.START, 3)
    page.close()
    before = time.monotonic()
    node.close()
    another = Node()
    result["closed"] = [another.ask(Ioctl.RUN, 3), shown(3, "timeouts")]
    result["closing seconds"] = time.monotonic() - before
    set_timeout(5000)
    return result


def signalled() -> dict[str, object]:
    """A signal ends a RUN early, by STOP."""
    node = Node()
    node.ask(Ioctl.CLAIM, 1)
    page = node.page(1)
    node.give(1, page, RaiseKind.WAIT_FOR_STOP)
    caught: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    before = time.monotonic()
    ended = node.ask(Ioctl.RUN, 1)
    return {"run": ended, "caught": len(caught), "seconds": time.monotonic() - before, "then": node.ask(Ioctl.RUN, 1)}


def killed(rounds: str) -> dict[str, object]:
    """Clients killed at any moment leave CPUs that answer."""
    answers: list[Outcome] = []
    for number in range(int(rounds)):
        cpu = 1 + number % 3
        child = os.fork()
        if child == 0:
            node = Node()
            node.ask(Ioctl.CLAIM, cpu)
            page = node.page(cpu)
            while True:
                node.give(cpu, page, RaiseKind.WAIT_FOR_STOP)
                node.ask(Ioctl.START, cpu)
                node.ask(Ioctl.STOP, cpu)
                node.read()
        time.sleep(0.01 * (number % 7))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        node = Node()
        answers.append(node.ask(Ioctl.RUN, cpu))
        node.close()
    return {"answers": sorted(map(str, set(answers))), "timeouts": [shown(cpu, "timeouts") for cpu in (1, 2, 3)]}


def converted() -> dict[str, object]:
    """Linux wants CPUs that do something."""
    set_timeout(700)
    node = Node(os.O_NONBLOCK)
    node.ask(Ioctl.CLAIM, 1)
    page = node.page(1)
    result: dict[str, object] = {"claimed": [set_online(1, True), shown(1, "state"), shown(1, "claimed")]}
    result["away"] = {what.name: node.ask(what, 1) for what in Ioctl if what not in (Ioctl.INFO, Ioctl.RELEASE)}
    result["back"] = [set_online(1, False), shown(1, "state"), node.ask(Ioctl.RUN, 1)]
    node.give(1, page, RaiseKind.WAIT_FOR_STOP)
    node.ask(Ioctl.START, 1)
    before = time.monotonic()
    result["busy"] = [set_online(1, True), shown(1, "state")]
    result["busy seconds"] = time.monotonic() - before
    node.ask(Ioctl.STOP, 1)
    node.readable(5)
    result["untold"] = [
        shown(1, "state"), set_online(1, True), shown(1, "state"), node.readable(), set_online(1, False),
    ]
    result["still untold"] = [
        node.ask(Ioctl.START, 1), node.ask(Ioctl.RELEASE, 1), node.read(), node.ask(Ioctl.RUN, 1),
    ]
    node.give(1, page, RaiseKind.GENERAL_PROTECTION)
    result["faulted"] = [node.ask(Ioctl.RUN, 1), set_online(1, True), shown(1, "status"), set_online(1, False),
                         shown(1, "status"), node.ask(Ioctl.RUN, 1)]
    result["conversions"] = shown(1, "conversions")
    set_timeout(5000)
    return result


def wanted(cpu_text: str) -> dict[str, object]:
    """Linux gets a CPU whose client begins one command after the other."""
    cpu = int(cpu_text)
    child = os.fork()
    if child == 0:
        node = Node()
        while node.ask(Ioctl.RUN, cpu) == 0:
            pass
        os._exit(7 if node.ask(Ioctl.RUN, cpu) in ("EBUSY", "ENOENT") else 1)
    time.sleep(0.5)
    result: dict[str, object] = {"online": set_online(cpu, True), "client": os.WEXITSTATUS(os.waitpid(child, 0)[1])}
    result["offline"] = set_online(cpu, False)
    return result


def rolled_back(cpu_text: str, after: str) -> dict[str, object]:
    """Linux's bring-up fails at the hotplug state `after`."""
    cpu = int(cpu_text)
    fail = CPUS / f"cpu{cpu}" / "hotplug" / "fail"
    states = (CPUS / "hotplug" / "states").read_text().splitlines()
    (number,) = [line.split(":")[0].strip() for line in states if line.split(":", 1)[1].strip() == after]
    fail.write_text(number)
    failed = set_online(cpu, True)
    node = Node()
    return {"online": failed, "state": shown(cpu, "state"), "run": node.ask(Ioctl.RUN, cpu)}


def use(cpu: int, until: float) -> tuple[int, int]:
    """Commands of all kinds on one CPU, each with its number: how many there were, and how many went wrong."""
    node = Node()
    node.ask(Ioctl.CLAIM, cpu)
    page = node.page(cpu)
    done = wrong = 0
    while time.monotonic() < until:
        done += 1
        waits = done % 3 == 0
        if waits:
            node.give(cpu, page, RaiseKind.WAIT_FOR_STOP)
        struct.pack_into("<Q", page, int(CommandPage.sequence), done)
        if waits or done % 2:
            wrong += node.ask(Ioctl.START, cpu) != 0
            if waits or done % 5 == 0:
                node.ask(Ioctl.STOP, cpu)
            wrong += node.read() != [cpu]
        else:
            wrong += node.ask(Ioctl.RUN, cpu) != 0
        wrong += struct.unpack_from("<Q", page, int(CommandPage.completed_sequence))[0] != done
    return done, wrong


def races(seconds: str) -> dict[str, object]:
    """START, STOP, RUN and read from several processes, one per CPU."""
    ends = []
    until = time.monotonic() + float(seconds)
    _, count, _ = struct.unpack("=3I", fcntl.ioctl(Node().file, Ioctl.INFO, bytes(12)))
    for cpu in range(1, count):
        told, tell = os.pipe()
        if os.fork() == 0:
            os.write(tell, struct.pack("=2I", *use(cpu, until)))
            os._exit(0)
        ends.append(told)
    results = [struct.unpack("=2I", os.read(told, 8)) for told in ends]
    return {"commands": sum(done for done, _ in results), "wrong": [wrong for _, wrong in results]}


CASES: dict[str, Callable[..., dict[str, object]]] = {
    case.__name__: case
    for case in (
        errors, two_files, whole_region, started, faults, late, signalled, killed, converted, wanted, rolled_back,
        races,
    )
}

if __name__ == "__main__":
    print(json.dumps(CASES[sys.argv[1]](*sys.argv[2:])))
