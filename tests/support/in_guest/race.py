"""Mixed commands from threads, event loops and processes, with STOP at any moment and clients that are killed.

    python3 -m tests.support.in_guest.race BACKING COMMANDS SECONDS KILL_EVERY CPU...

Without kills (KILL_EVERY 0) every CPU belongs to a thread of one client. Otherwise a quarter of the CPUs do; a quarter
are commanded by the tasks of an event loop in a second client; a quarter by a third that uses no client library; and
for the rest several clients compete, one of which is killed every KILL_EVERY seconds while its commands run, and which
close files over running commands. A worker knows what its commands must answer, and notes in memory that outlives it
how many it has begun and how many were answered: each CPU's own count must lie between the two.
Prints the tallies as JSON.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from sidecar.client import Cpu, Sidecar
from sidecar.protocol.backing import CpuNumbers
from tests.support.in_guest.race_raw import RawCpu, RawWorker
from tests.support.in_guest.race_tally import FIELDS, Tally
from tests.support.in_guest.race_workers import TaskWorker, ThreadWorker

T = TypeVar("T")

RIVALS = 2
LEAST = 150
"""Of all commands every CPU gets one in so many at least: event loops are slow where bytecode is."""

TEXT_BYTES = 4000


class Race:
    """All clients of one run. A CPU's tallies are RIVALS slots, of which the first alone is used without rivals."""

    def __init__(self, backing: Any, commands: int, seconds: float, kill_every: float, cpus: list[int]) -> None:
        self.backing, self.kill_every, self.cpus = backing, kill_every, cpus
        share = len(cpus) // 4 if kill_every else 0
        self.contested, self.looped, self.raw = (cpus[part * share : (part + 1) * share] for part in range(3))
        self.owned = cpus[3 * share :]
        self.commands, self.each, self.deadline = commands, commands // LEAST, time.monotonic() + seconds
        self.memory, self.text = mmap.mmap(-1, len(cpus) * RIVALS * 8 * len(FIELDS)), mmap.mmap(-1, TEXT_BYTES)
        self.answered = memoryview(self.memory).cast("Q")[FIELDS.index("answered") :: len(FIELDS)]
        self.kills = 0

    def tally(self, cpu: int, rival: int = 0) -> Tally:
        return Tally(self.memory, self.cpus.index(cpu) * RIVALS + rival)

    def enough(self) -> bool:
        """Were as many commands answered as were asked for, some on every CPU, or is the time over?"""
        if time.monotonic() > self.deadline:
            return True
        counts = self.answered.tolist()
        by_cpu = [sum(counts[start : start + RIVALS]) for start in range(0, len(counts), RIVALS)]
        return sum(by_cpu) >= self.commands and min(by_cpu) >= self.each

    # --- clients, each a process of its own ------------------------------------------------------------------------

    def owner(self) -> None:
        def work(cpu: Cpu) -> None:
            with self.reported(), cpu.claim():
                ThreadWorker(self.tally(cpu.number), self.enough, alone=True).work(cpu)

        self.in_threads(self.owned, work)

    def without_library(self) -> None:
        with Sidecar.open(self.backing) as sidecar:
            numbers = [sidecar.cpu(number).numbers for number in self.raw]

        def work(cpu: CpuNumbers) -> None:
            with self.reported(), RawCpu(cpu.node, cpu.index, cpu.linux) as raw:
                RawWorker(raw, self.tally(cpu.linux), self.enough).work()

        run_threads(numbers, work)

    def rival(self, rival: int) -> None:
        def work(cpu: Cpu) -> None:
            with self.reported():
                ThreadWorker(self.tally(cpu.number, rival), self.enough, alone=False).work(cpu)

        self.in_threads(self.contested, work)

    def in_threads(self, cpus: list[int], work: Callable[[Cpu], None]) -> None:
        with Sidecar.open(self.backing) as sidecar:
            run_threads([sidecar.cpu(number) for number in cpus], work)

    def loop(self) -> None:
        async def work(sidecar: Sidecar) -> None:
            await asyncio.gather(*(
                TaskWorker(self.tally(number), self.enough, alone=True).work(sidecar.async_cpu(number))
                for number in self.looped
            ))

        with Sidecar.open(self.backing) as sidecar:
            asyncio.run(work(sidecar))

    @contextmanager
    def reported(self) -> Iterator[None]:
        """What goes wrong inside is for the parent to read; the process ends."""
        try:
            yield
        except BaseException:
            text = traceback.format_exc().encode()[-TEXT_BYTES + 1 :]
            self.text[: len(text)] = text
            os._exit(1)

    # --- the parent ------------------------------------------------------------------------------------------------

    def child(self, work: Callable[[], None]) -> int:
        process = os.fork()
        if process == 0:
            with self.reported():
                work()
            os._exit(0)
        return process

    def run(self) -> None:
        """Returns when all clients have ended; raises what one of them reported."""
        rivals: dict[int, int] = {}
        works = [(self.owner, self.owned), (self.loop, self.looped), (self.without_library, self.raw)]
        others = {self.child(work) for work, cpus in works if cpus}
        if self.contested:
            rivals = {self.child(partial(self.rival, number)): number for number in range(RIVALS)}
        next_kill = time.monotonic() + self.kill_every
        while others or rivals:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process in rivals and os.WIFSIGNALED(status):
                number = rivals.pop(process)
                rivals[self.child(partial(self.rival, number))] = number
            elif process:
                self.check(status, [*others - {process}, *rivals.keys() - {process}])
                others.discard(process)
                rivals.pop(process, None)
            elif rivals and time.monotonic() > next_kill:
                next_kill = time.monotonic() + self.kill_every
                os.kill(random.choice(list(rivals)), signal.SIGKILL)
                self.kills += 1
            else:
                time.sleep(0.02)

    def check(self, status: int, rest: list[int]) -> None:
        if status:
            for process in rest:
                os.kill(process, signal.SIGKILL)
            raise SystemExit(self.text[:].rstrip(b"\0").decode() or f"a client ended with status {status:#x}")

    def tallies(self, cpu: int) -> dict[str, int]:
        rivals = range(RIVALS if cpu in self.contested else 1)
        return {name: sum(self.tally(cpu, rival)[name] for rival in rivals) for name in FIELDS}


def run_threads(items: Sequence[T], work: Callable[[T], None]) -> None:
    """A thread for each, until all have ended."""
    threads = [threading.Thread(target=work, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def counted(backing: Any, cpus: list[int]) -> dict[int, int]:
    """How many commands each CPU has executed since boot, by its own count."""
    with Sidecar.open(backing) as sidecar:
        return {number: sidecar.cpu(number).counters()["commands"] for number in cpus}


def main(backing: str, commands: str, seconds: str, kill_every: str, *names: str) -> None:
    cpus = [int(name) for name in names]
    race = Race(backing, int(commands), float(seconds), float(kill_every), cpus)
    before, started = counted(backing, cpus), time.monotonic()
    race.run()
    after, took = counted(backing, cpus), time.monotonic() - started
    print(json.dumps({
        "seconds": round(took, 1),
        "kills": race.kills,
        "contested": race.contested,
        "cpus": {number: race.tallies(number) | {"counted": after[number] - before[number]} for number in cpus},
    }))


if __name__ == "__main__":
    main(*sys.argv[1:])
