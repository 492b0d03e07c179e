"""Mixed commands from threads, event loops and processes, with STOP at any moment and clients that are killed.

    race.py BACKING COMMANDS SECONDS KILL_EVERY CPU...

Without kills (KILL_EVERY 0) every CPU belongs to a thread of one client. Otherwise a third of the CPUs do, a third are
commanded by the tasks of an event loop in a second client, and for the rest several clients compete, one of which is
killed every KILL_EVERY seconds while its commands run. A worker knows what its commands must answer, and notes in
memory that outlives it how many it has begun and how many were answered: each CPU's own count must lie between the two.
Prints the tallies as JSON.
"""

import asyncio
import json
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sidecar.client import Cpu, CpuBusy, Sidecar, SidecarCommandError
from sidecar.client.async_cpu import AsyncCpu
from sidecar.layout import MAX_REGISTERS, RaiseKind, SidecarCommand
from sidecar.protocol.commands import raise_request, register_request

FIELDS = ("begun", "answered", "busy", "stopped", "refused")
KINDS = {"none": 40, "registers": 30, "unknown": 6, "count": 6, "stopped": 10, "raced": 8}
"""What a worker does, and how often."""

REQUESTS = {
    "stopped": (SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP)),
    "raced": (SidecarCommand.NONE, b""),
    "unknown": (0x7777, b""),
    "count": (SidecarCommand.GET_VP_REGISTERS, register_request([], count=MAX_REGISTERS + 1)),
}
NAMES = [f"HvX64RegisterDr{number}" for number in range(4)]
RIVALS = 2
PAUSE_SECONDS = 0.002
BUSY_SECONDS = 0.005
TEXT_BYTES = 4000


class Tally:
    """A worker's numbers on one CPU, in memory that all processes share; only that worker writes them."""

    def __init__(self, memory: mmap.mmap, slot: int) -> None:
        self._memory, self._start = memory, slot * 8 * len(FIELDS)

    def __getitem__(self, name: str) -> int:
        (value,) = struct.unpack_from("<Q", self._memory, self._start + 8 * FIELDS.index(name))
        return int(value)

    def add(self, name: str, count: int = 1) -> None:
        struct.pack_into("<Q", self._memory, self._start + 8 * FIELDS.index(name), self[name] + count)

    @contextmanager
    def one(self) -> Iterator[None]:
        """One command: begun, and answered unless the CPU was another's."""
        self.add("begun")
        try:
            yield
        except CpuBusy:
            self.add("begun", -1)
            raise
        self.add("answered")


@dataclass
class Worker:
    """Commands on one CPU until all have `enough`; raises at the first wrong answer.

    `alone`: nobody else commands the CPU in between.
    """

    tally: Tally
    enough: Callable[[], bool]
    alone: bool
    dice: random.Random = field(default_factory=random.Random)
    sets: int = 0

    def kinds(self) -> Iterator[str]:
        while not self.enough():
            yield self.dice.choices(list(KINDS), list(KINDS.values()))[0]

    def values(self) -> dict[str, int]:
        """Unlike those given before."""
        self.sets += 1
        return {name: self.dice.getrandbits(16) | self.sets << 16 for name in NAMES[: self.dice.randint(1, 2)]}

    def pause(self) -> float:
        return self.dice.random() * PAUSE_SECONDS

    def refused(self, kind: str, error: SidecarCommandError) -> None:
        expected = "0x7777" if kind == "unknown" else str(MAX_REGISTERS + 1)
        assert expected in error.sentence, error
        self.tally.add("refused")


@dataclass
class ThreadWorker(Worker):
    """Waits for each command, or starts it and stops it."""

    def work(self, cpu: Cpu) -> None:
        for kind in self.kinds():
            try:
                self.do(cpu, kind)
            except CpuBusy:
                assert not self.alone, f"{cpu} is another's"
                self.tally.add("busy")
                time.sleep(BUSY_SECONDS)

    def do(self, cpu: Cpu, kind: str) -> None:
        if kind == "none":
            with self.tally.one():
                cpu.none()
        elif kind == "registers" and self.alone:
            self.registers(cpu)
        elif kind == "registers":
            with cpu.claim():
                self.registers(cpu)
        elif kind in ("stopped", "raced"):
            with self.tally.one():
                self.stop(cpu, kind)
        else:
            with self.tally.one():
                try:
                    cpu.execute(*REQUESTS[kind])
                except SidecarCommandError as error:
                    self.refused(kind, error)
                else:
                    raise AssertionError(f"{cpu} has executed what it must refuse: {kind}")

    def registers(self, cpu: Cpu) -> None:
        values = self.values()
        with self.tally.one():
            cpu.set_registers(values)
        with self.tally.one():
            got = cpu.get_registers(values)
        assert got == values, f"{cpu} has {got}, expected {values}"

    def stop(self, cpu: Cpu, kind: str) -> None:
        run = cpu.start(*REQUESTS[kind])
        if self.dice.random() < 0.5:
            time.sleep(self.pause())
        if run.stop():
            self.tally.add("stopped")
        else:
            assert kind == "raced", f"{cpu}: a command that waits for STOP was over before"
        run.wait()


@dataclass
class TaskWorker(Worker):
    """The same from an event loop, where a task that is cancelled stops its run."""

    async def work(self, cpu: AsyncCpu) -> None:
        for kind in self.kinds():
            if kind == "registers":
                await self.registers(cpu)
                continue
            with self.tally.one():
                if kind == "none":
                    await cpu.none()
                elif kind in ("stopped", "raced"):
                    await self.cancel(cpu, kind)
                else:
                    try:
                        await cpu.execute(*REQUESTS[kind])
                    except SidecarCommandError as error:
                        self.refused(kind, error)

    async def registers(self, cpu: AsyncCpu) -> None:
        values = self.values()
        with self.tally.one():
            await cpu.set_registers(values)
        with self.tally.one():
            got = await cpu.get_registers(values)
        assert got == values, f"{cpu} has {got}, expected {values}"

    async def cancel(self, cpu: AsyncCpu, kind: str) -> None:
        task = asyncio.create_task(cpu.execute(*REQUESTS[kind]))
        await asyncio.sleep(self.pause())
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or kind == "raced", f"{cpu}: a command that waits for STOP was over before"
        if task.cancelled():
            self.tally.add("stopped")
        else:
            task.result()


class Race:
    """All clients of one run. A CPU's tallies are RIVALS slots, of which the first alone is used without rivals."""

    def __init__(self, backing: Any, commands: int, seconds: float, kill_every: float, cpus: list[int]) -> None:
        self.backing, self.kill_every, self.cpus = backing, kill_every, cpus
        third = len(cpus) // 3 if kill_every else 0
        self.owned, self.looped = cpus[: len(cpus) - 2 * third], cpus[len(cpus) - 2 * third : len(cpus) - third]
        self.contested = cpus[len(cpus) - third :]
        self.commands, self.deadline = commands, time.monotonic() + seconds
        self.memory, self.text = mmap.mmap(-1, len(cpus) * RIVALS * 8 * len(FIELDS)), mmap.mmap(-1, TEXT_BYTES)
        self.answered = memoryview(self.memory).cast("Q")[FIELDS.index("answered") :: len(FIELDS)]
        self.kills = 0

    def tally(self, cpu: int, rival: int = 0) -> Tally:
        return Tally(self.memory, self.cpus.index(cpu) * RIVALS + rival)

    def enough(self) -> bool:
        """Were as many commands answered as were asked for, by all clients together, or is the time over?"""
        return sum(self.answered) >= self.commands or time.monotonic() > self.deadline

    # --- clients, each a process of its own ------------------------------------------------------------------------

    def owner(self) -> None:
        def work(cpu: Cpu) -> None:
            with self.reported(), cpu.claim():
                ThreadWorker(self.tally(cpu.number), self.enough, alone=True).work(cpu)

        self.in_threads(self.owned, work)

    def rival(self, rival: int) -> None:
        def work(cpu: Cpu) -> None:
            with self.reported():
                ThreadWorker(self.tally(cpu.number, rival), self.enough, alone=False).work(cpu)

        self.in_threads(self.contested, work)

    def in_threads(self, cpus: list[int], work: Callable[[Cpu], None]) -> None:
        with Sidecar.open(self.backing) as sidecar:
            threads = [threading.Thread(target=work, args=(sidecar.cpu(number),)) for number in cpus]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

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
        others = {self.child(self.owner)} | ({self.child(self.loop)} if self.looped else set())
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


main(*sys.argv[1:])
