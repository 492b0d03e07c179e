"""Commands from their start to their end: told once, stopped, faulted, late, interrupted, beside each other."""

import os
import signal
import time
from collections.abc import Callable

from sidecar.layout import RaiseKind
from sidecar.layout.ioctl import Ioctl

from .device import HANG, SECONDS, SYS, Case, Node, Outcome, Results, claimed, counters, give, meanwhile, shown, timeout

TICKS = 2_000_000_000
"""Of a command that ends by itself, by the TSC: about a second."""
COUNTERS = (
    "commands", "errors", "requests", "stray", "faults", "restarts", "arrivals", "timeouts", "conversions",
)  # fmt: skip


def stuck() -> Results:
    """A started command that gives no sign of life; it moves again when it is told to stop."""
    HANG.write_text("400")
    try:
        node = Node(os.O_NONBLOCK)
        (page,) = claimed(node, 2)
        result: Results = {"idle": shown(2, "stuck_ms")}
        give(page, RaiseKind.WAIT_FOR_STOP)
        result["start"] = node.ask(Ioctl.START, 2)
        result["stuck"] = until(lambda: int(shown(2, "stuck_ms")) >= 400)
        result["stop"] = [node.ask(Ioctl.STOP, 2), node.readable(), node.read()]
        result["well"] = until(lambda: shown(2, "stuck_ms") == "0")
        node.close()
    finally:
        HANG.write_text("10000")
    return result


def unheard() -> Results:
    """A started command whose response interrupt is lost while its caller waits in poll."""
    interrupts = SYS / "interrupts"
    before = interrupts.read_text()
    HANG.write_text("400")
    try:
        node = Node(os.O_NONBLOCK)
        (page,) = claimed(node, 2)
        give(page, RaiseKind.MEASURE_GAPS, TICKS)
        result: Results = {"start": node.ask(Ioctl.START, 2), "ended": node.readable(0)}
        began = time.monotonic()
        result["waited"] = node.readable()  # its last look, when the time is over, would find the end by itself
        result["heard"] = time.monotonic() - began < SECONDS / 2
        result |= {"read": node.read(), "interrupts": int(interrupts.read_text()) - int(before)}
        node.close()
    finally:
        HANG.write_text("10000")
    return result


def until(holds: Callable[[], bool]) -> bool:
    """Does it hold before the patience is over?"""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def started() -> Results:
    """START, STOP, read and poll."""
    node, other = Node(os.O_NONBLOCK), Node(os.O_NONBLOCK)
    page = claimed(node, 1, 2, 3)[0]
    result: Results = {"start": [node.ask(Ioctl.START, cpu) for cpu in (1, 2, 3)]}
    ended: list[int] = []
    while len(ended) < 3 and node.readable():
        got = node.read(64)
        ended += got if isinstance(got, list) else []
    result["ended"] = sorted(ended)
    result["then"] = [node.read(), node.readable(0)]
    give(page, RaiseKind.WAIT_FOR_STOP)
    result["run"] = [
        node.ask(Ioctl.START, 1), node.ask(Ioctl.START, 1), node.ask(Ioctl.RUN, 1), node.ask(Ioctl.RELEASE, 1),
        shown(1, "state"), shown(1, "status"), node.readable(0.2), other.ask(Ioctl.STOP, 1),
    ]  # fmt: skip
    result["stop"] = [node.ask(Ioctl.STOP, 1), node.readable(), other.readable(0), shown(1, "state")]
    result["untold"] = [
        node.ask(Ioctl.START, 1), node.ask(Ioctl.RUN, 1), node.ask(Ioctl.RELEASE, 1), node.ask(Ioctl.STOP, 1),
    ]  # fmt: skip
    result["told"] = [other.read(), node.read(), node.read(), node.ask(Ioctl.RUN, 1)]
    give(page, RaiseKind.WAIT_FOR_STOP)
    result["restart"] = [node.ask(Ioctl.START, 1), node.ask(Ioctl.RESTART, 1), node.read(), node.ask(Ioctl.RUN, 1)]
    return result


def faults() -> Results:
    """A fault in RUN, and one in a started run."""
    node = Node()
    (page,) = claimed(node, 2)
    before = counters(2, "faults", "arrivals")
    give(page, RaiseKind.PAGE_FAULT, 0x4242)
    result: Results = {"run": node.ask(Ioctl.RUN, 2), "status": shown(2, "status"), "state": shown(2, "state")}
    result["again"] = [node.ask(Ioctl.RUN, 2), node.ask(Ioctl.START, 2)]
    result["last fault"] = shown(2, "last_fault")
    result["restart"] = [node.ask(Ioctl.RESTART, 2), node.ask(Ioctl.RUN, 2), shown(2, "status")]
    give(page, RaiseKind.INVALID_OPCODE)
    result["started"] = [node.ask(Ioctl.START, 2), node.readable(), node.read(), shown(2, "status")]
    node.close()
    page.close()
    another = Node()
    result["left behind"] = [another.ask(Ioctl.RUN, 2), another.ask(Ioctl.RESTART, 2), another.ask(Ioctl.RUN, 2)]
    result["counted"] = [now - then for now, then in zip(counters(2, "faults", "arrivals"), before, strict=True)]
    return result


def late() -> Results:
    """Commands that do not end: RUN gives up, and so does who closes the file."""
    node = Node()
    (page,) = claimed(node, 3)
    before = counters(3, "timeouts", "restarts")
    give(page, RaiseKind.SPIN)
    begin = time.monotonic()
    with timeout(300):
        result: Results = {"run": node.ask(Ioctl.RUN, 3), "seconds": time.monotonic() - begin}
    result["after"] = [shown(3, "state"), node.ask(Ioctl.RUN, 3)]
    give(page, RaiseKind.SPIN)
    node.ask(Ioctl.START, 3)
    page.close()
    begin = time.monotonic()
    with timeout(300):
        node.close()
    result["closing seconds"] = time.monotonic() - begin
    result["closed"] = Node().ask(Ioctl.RUN, 3)
    result["counted"] = [now - then for now, then in zip(counters(3, "timeouts", "restarts"), before, strict=True)]
    return result


def signalled() -> Results:
    """A signal ends a RUN early, by STOP; it comes again and again, in case the first comes too early."""
    node = Node()
    (page,) = claimed(node, 1)
    give(page, RaiseKind.WAIT_FOR_STOP)
    caught: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: caught.append(number))
    begin = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0.3, 0.3)
    ended = node.ask(Ioctl.RUN, 1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - begin
    return {"run": ended, "caught": bool(caught), "seconds": seconds, "then": node.ask(Ioctl.RUN, 1)}


def contended() -> Results:
    """What other threads get while one waits in RUN."""
    node = Node(os.O_NONBLOCK)
    (page,) = claimed(node, 1)
    give(page, RaiseKind.WAIT_FOR_STOP)
    ended: list[Outcome] = []
    result: Results = {}
    with meanwhile(lambda: ended.append(node.ask(Ioctl.RUN, 1))):
        while shown(1, "status") != "run":
            time.sleep(0.01)
        result["others"] = {
            what.name: node.ask(what, 1) for what in (Ioctl.RUN, Ioctl.START, Ioctl.RESTART, Ioctl.RELEASE, Ioctl.CLAIM)
        }
        result["state"] = shown(1, "state")
        result["stop"] = node.ask(Ioctl.STOP, 1)
    result["run"] = ended
    result["read"] = node.read()
    return result


def neighbours() -> Results:
    """What is done to one CPU disturbs no command on another, of the same file or of another one."""
    one, other = Node(os.O_NONBLOCK), Node(os.O_NONBLOCK)
    pages = claimed(one, 1, 2) + claimed(other, 3)
    for page in pages:
        give(page, RaiseKind.WAIT_FOR_STOP)
    result: Results = {"start": [one.ask(Ioctl.START, 1), one.ask(Ioctl.START, 2), other.ask(Ioctl.START, 3)]}
    result["stop"] = [one.ask(Ioctl.STOP, 1), one.readable(), one.read(), one.ask(Ioctl.RELEASE, 1)]
    pages[2].close()
    other.close()
    result["still"] = [shown(2, "state"), shown(2, "status"), one.readable(0.2)]
    result["end"] = [one.ask(Ioctl.STOP, 2), one.readable(), one.read(), one.read()]
    return result


def counted() -> Results:
    """What the counters of a CPU count."""
    node = Node()
    (page,) = claimed(node, 2)

    def run(kind: RaiseKind, argument: int = 0) -> Outcome:
        give(page, kind, argument)
        return node.ask(Ioctl.RUN, 2)

    def stray() -> Outcome:
        run(RaiseKind.VECTOR, 0x77)
        return node.ask(Ioctl.RUN, 2)  # it was taken when the CPU parked

    return {
        "empty": difference(lambda: node.ask(Ioctl.RUN, 2)),
        "refused": difference(lambda: run(RaiseKind.VECTOR, 3)),
        "stray": difference(stray),
        "fault": difference(lambda: run(RaiseKind.GENERAL_PROTECTION)),
        "restart": difference(lambda: node.ask(Ioctl.RESTART, 2)),
    }


def difference(call: Callable[[], Outcome]) -> list[object]:
    """What a call returns, and by how much it moves which counters of CPU 2."""
    before = counters(2, *COUNTERS)
    result = call()
    moved = zip(COUNTERS, before, counters(2, *COUNTERS), strict=True)
    return [result, {name: now - then for name, then, now in moved if now != then}]


def until_refused(text: str) -> Results:
    """One command after the other until one is refused; tells on the console, as nobody may be there to ask."""
    cpu, node = int(text), Node()
    assert node.ask(Ioctl.RUN, cpu) == 0
    say(f"CPU {cpu} runs")
    while (ended := node.ask(Ioctl.RUN, cpu)) == 0:
        time.sleep(0.01)
    say(f"CPU {cpu} is refused: {ended}")
    return {"refused": ended}


def say(sentence: str) -> None:
    """In the kernel's log."""
    with open("/dev/kmsg", "w") as log:
        log.write(f"<4>test: {sentence}\n")


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (started, stuck, unheard, faults, late, signalled, contended, neighbours, counted, until_refused)
}
