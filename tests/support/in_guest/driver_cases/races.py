"""Commands on all CPUs at once, beside conversions, and by clients that are killed."""

import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.layout import CommandPage, RaiseKind
from sidecar.layout.ioctl import Ioctl

from .device import Case, Node, Outcome, Results, claimed, counters, give, set_online, shown

TALLY = "=5I"
AWAY = ("ENOENT", "EBUSY")
PAUSE = 0.003
"""Between two commands where something else shall come to run on Linux's CPUs too."""

PROCESSOR = 38
"""Ref: proc(5), /proc/pid/stat, field 39."""


def killed(rounds: str) -> Results:
    """Clients killed at any moment leave CPUs that answer."""
    answers: list[Outcome] = []
    timeouts = [shown(cpu, "timeouts") for cpu in (1, 2, 3)]
    for number in range(int(rounds)):
        cpu = 1 + number % 3
        child = os.fork()
        if child == 0:
            node = Node()
            (page,) = claimed(node, cpu)
            while True:
                give(page, RaiseKind.WAIT_FOR_STOP)
                node.ask(Ioctl.START, cpu)
                node.ask(Ioctl.STOP, cpu)
                node.read()
        time.sleep(0.01 * (number % 7))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        node = Node()
        answers.append(node.ask(Ioctl.RUN, cpu))
        node.close()
    return {
        "answers": sorted(map(str, set(answers))),
        "timed out": [shown(cpu, "timeouts") for cpu in (1, 2, 3)] != timeouts,
    }


@dataclass(slots=True)
class Tally:
    """Commands that were executed; that went wrong; that were not begun as Linux had or wanted the CPU, or as the pages
    were cleared; whose answer was cleared before it was read.
    """

    done: int = 0
    wrong: int = 0
    away: int = 0
    told: int = 0
    cleared: int = 0


class User:
    """Commands of all kinds on one CPU, each with its number."""

    def __init__(self, cpu: int) -> None:
        self.cpu, self.node, self.tally = cpu, Node(), Tally()
        (self.page,) = claimed(self.node, cpu)

    def once(self) -> bool:
        """One command; false if the CPU is Linux's."""
        number = self.tally.done + 1
        arrivals = shown(self.cpu, "arrivals")
        waits = number % 3 == 0
        if waits:
            give(self.page, RaiseKind.WAIT_FOR_STOP)
        struct.pack_into("<Q", self.page, int(CommandPage.sequence), number)
        starts = waits or number % 2 == 1
        begun = self.node.ask(Ioctl.START if starts else Ioctl.RUN, self.cpu)
        if begun in AWAY:
            self.tally.away += 1
            return False
        if begun == "ESTALE":
            self.tally.told += 1
            return True
        self.tally.done += 1
        wrong = begun != 0
        if starts and not wrong:
            if waits or number % 5 == 0:
                self.node.ask(Ioctl.STOP, self.cpu)
            wrong |= self.node.read() != [self.cpu]
        answered = completed(self.page)
        if not answered and arrivals != shown(self.cpu, "arrivals"):
            self.tally.cleared += 1
        else:
            self.tally.wrong += wrong or answered != number
        return True


def completed(page: mmap.mmap) -> int:
    """The number of the command that was answered last."""
    return int(struct.unpack_from("<Q", page, int(CommandPage.completed_sequence))[0])


def in_children(cpus: Sequence[int], goes_on: Callable[[], bool], pause: float) -> list[int]:
    """A process for each CPU that commands it as long as it may, and then tells; where to read that."""
    ends = []
    for cpu in cpus:
        told, tell = os.pipe()
        if os.fork() == 0:
            user = User(cpu)
            while goes_on() or not user.tally.done:
                if not user.once() or pause:
                    time.sleep(pause or PAUSE)
            tally = user.tally
            os.write(tell, struct.pack(TALLY, tally.done, tally.wrong, tally.away, tally.told, tally.cleared))
            os._exit(0)
        os.close(tell)
        ends.append(told)
    return ends


def tallies(ends: Sequence[int]) -> Results:
    """What the processes tell, when all have."""
    results = [struct.unpack(TALLY, os.read(told, struct.calcsize(TALLY))) for told in ends]
    names = ("commands", "wrong", "away", "told", "cleared")
    return {name: [one[place] for one in results] for place, name in enumerate(names)}


def races(seconds: str, *cpus: str) -> Results:
    """START, STOP, RUN and read from several processes, one per CPU."""
    until = time.monotonic() + float(seconds)
    return tallies(in_children([*map(int, cpus)], lambda: time.monotonic() < until, 0))


def there_and_back(rounds: str, *texts: str) -> Results:
    """Every CPU to Linux and back, one after the other, while a client for each goes on commanding it."""
    cpus = [*map(int, texts)]
    before = counters_of(cpus)
    stop = "/tmp/stop"
    ends = in_children(cpus, lambda: not os.path.exists(stop), PAUSE)
    failed: list[object] = []
    for number in range(int(rounds)):
        for cpu in cpus:
            outcomes = [set_online(cpu, True), runs_on(cpu), set_online(cpu, False)]
            if outcomes != [0, True, 0]:
                failed.append([number, cpu, *outcomes])
    os.close(os.open(stop, os.O_CREAT))
    result = tallies(ends)
    os.unlink(stop)
    after = counters_of(cpus)
    return result | {"failed": failed, "conversions": [now - then for now, then in zip(after, before, strict=True)]}


def counters_of(cpus: Sequence[int]) -> list[int]:
    return [counters(cpu, "conversions")[0] for cpu in cpus]


def runs_on(cpu: int) -> bool:
    """Does a program run on the CPU when it is told to?"""
    command = ["taskset", "-c", str(cpu), "cat", "/proc/self/stat"]
    stat = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return len(stat) > PROCESSOR and stat[PROCESSOR] == str(cpu)


CASES: dict[str, Case] = {case.__name__: case for case in (killed, races, there_and_back)}
