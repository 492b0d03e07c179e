"""CPUs that Linux takes while something is on them, and bring-ups that fail."""

import os
import time

from sidecar.layout import RaiseKind
from sidecar.layout.ioctl import Ioctl

from .device import (
    CPU_CALLS,
    CPUS,
    PAGE,
    Case,
    Node,
    Outcome,
    Results,
    claimed,
    counters,
    give,
    meanwhile,
    set_online,
    shown,
    timeout,
)


def converted() -> Results:
    """Linux wants CPUs that do something, and gets them or not."""
    node = Node(os.O_NONBLOCK)
    (page,) = claimed(node, 1)
    before = counters(1, "conversions")
    result: Results = {"claimed": [set_online(1, True), shown(1, "state"), shown(1, "claimed")]}
    result["away"] = {what.name: node.ask(what, 1) for what in CPU_CALLS if what is not Ioctl.RELEASE}
    page[PAGE] = 0xA5
    result["back"] = [set_online(1, False), shown(1, "state"), page[PAGE]]
    result["told"] = [node.ask(Ioctl.RUN, 1), node.ask(Ioctl.RUN, 1)]
    give(page, RaiseKind.WAIT_FOR_STOP)
    node.ask(Ioctl.START, 1)
    begin = time.monotonic()
    with timeout(700):
        result["busy"] = [set_online(1, True), shown(1, "state"), shown(1, "status")]
    result["busy seconds"] = time.monotonic() - begin
    node.ask(Ioctl.STOP, 1)
    node.readable()
    result["untold"] = [
        shown(1, "state"), set_online(1, True), shown(1, "state"), node.readable(0), set_online(1, False),
    ]  # fmt: skip
    result["still untold"] = [
        node.ask(Ioctl.START, 1), node.ask(Ioctl.RELEASE, 1), node.read(), node.ask(Ioctl.START, 1),
        node.ask(Ioctl.RUN, 1),
    ]  # fmt: skip
    give(page, RaiseKind.GENERAL_PROTECTION)
    result["faulted"] = [
        node.ask(Ioctl.RUN, 1), set_online(1, True), shown(1, "status"), set_online(1, False), shown(1, "status"),
        node.ask(Ioctl.RELEASE, 1), node.ask(Ioctl.RUN, 1),
    ]  # fmt: skip
    result["conversions"] = counters(1, "conversions")[0] - before[0]
    return result


def waited_for() -> Results:
    """An online during a command that ends in time; no other command is begun meanwhile."""
    node = Node(os.O_NONBLOCK)
    pages = claimed(node, 1, 2)
    for page in pages:
        give(page, RaiseKind.WAIT_FOR_STOP)
    result: Results = {"start": [node.ask(Ioctl.START, cpu) for cpu in (1, 2)]}
    outcomes: dict[int, Outcome] = {}
    with meanwhile(lambda: outcomes.update({1: set_online(1, True)})):
        time.sleep(0.5)
        result["meanwhile"] = [dict(outcomes), shown(1, "state"), node.ask(Ioctl.STOP, 1)]
    result["then"] = [outcomes[1], shown(1, "state"), node.read(), shown(2, "state")]
    result["back"] = [set_online(1, False), node.ask(Ioctl.RUN, 1), node.ask(Ioctl.RUN, 1)]
    with meanwhile(lambda: outcomes.update({2: set_online(2, True)})):
        time.sleep(0.5)
        result["restart meanwhile"] = [node.ask(Ioctl.START, 2), node.ask(Ioctl.RESTART, 2)]
    result["then 2"] = [outcomes[2], shown(2, "state"), node.read(), set_online(2, False)]
    result["restarted"] = [node.ask(Ioctl.RESTART, 2), node.ask(Ioctl.RUN, 2)]
    return result


def wanted(text: str) -> Results:
    """Linux gets a CPU whose client begins one command after the other."""
    cpu = int(text)
    child = os.fork()
    if child == 0:
        node = Node()
        while node.ask(Ioctl.RUN, cpu) == 0:
            pass
        os._exit(7 if node.ask(Ioctl.RUN, cpu) in ("EBUSY", "ENOENT") else 1)
    time.sleep(0.5)
    result: Results = {"online": set_online(cpu, True), "client": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}
    result["offline"] = set_online(cpu, False)
    return result


def rolled_back(text: str, where: str) -> Results:
    """Linux's bring-up fails at the hotplug state `where`, with a client that holds the CPU."""
    cpu = int(text)
    node = Node()
    (page,) = claimed(node, cpu)
    page[PAGE] = 1
    before = counters(cpu, "conversions", "arrivals")
    fail_at(cpu, where)
    result: Results = {"online": set_online(cpu, True), "state": shown(cpu, "state")}
    result["run"] = [node.ask(Ioctl.RUN, cpu), node.ask(Ioctl.RUN, cpu)]
    after = counters(cpu, "conversions", "arrivals")
    result["counted"] = [now - then for then, now in zip(before, after, strict=True)]
    result["page"] = page[PAGE]
    return result


def not_given_back(text: str, where: str) -> Results:
    """Linux's own way offline fails at the hotplug state `where`: the CPU stays with it."""
    cpu = int(text)
    result: Results = {"online": set_online(cpu, True)}
    fail_at(cpu, where)
    result["offline"] = [set_online(cpu, False), shown(cpu, "state"), shown(cpu, "status")]
    result["then"] = [set_online(cpu, False), shown(cpu, "state"), Node().ask(Ioctl.RUN, cpu)]
    return result


def fail_at(cpu: int, where: str) -> None:
    """The next step of the CPU through the hotplug state of that name fails."""
    states = (CPUS / "hotplug" / "states").read_text().splitlines()
    (number,) = [line.split(":")[0].strip() for line in states if line.split(":", 1)[1].strip() == where]
    (CPUS / f"cpu{cpu}" / "hotplug" / "fail").write_text(number)


def refused_once(text: str) -> Results:
    """An online that fails, asked for once: a shell's echo tries again."""
    return {"online": set_online(int(text), True)}


def offline_fails(text: str, where: str) -> Results:
    """Linux gives up the way offline of a CPU at the hotplug state `where`."""
    fail_at(int(text), where)
    return {"offline": set_online(int(text), False)}


CASES: dict[str, Case] = {
    case.__name__: case
    for case in (converted, waited_for, wanted, rolled_back, not_given_back, refused_once, offline_fails)
}
