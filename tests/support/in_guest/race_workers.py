"""Workers of a race that use the client: threads, and the tasks of an event loop. Each knows what must be answered."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sidecar.client import Cpu, CpuBusy, SidecarCommandError
from sidecar.client.async_cpu import AsyncCpu
from sidecar.layout import MAX_REGISTERS, RaiseKind, SidecarCommand
from sidecar.protocol.commands import raise_request, register_request
from tests.support.in_guest.race_raw import RawCpu
from tests.support.in_guest.race_tally import Tally

KINDS = {"none": 40, "registers": 30, "unknown": 6, "count": 6, "stopped": 10, "raced": 8}
"""What a worker does, and how often."""

REQUESTS = {
    "stopped": (SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP)),
    "raced": (SidecarCommand.NONE, b""),
    "unknown": (0x7777, b""),
    "count": (SidecarCommand.GET_VP_REGISTERS, register_request([], count=MAX_REGISTERS + 1)),
}
NAMES = [f"HvX64RegisterDr{number}" for number in range(4)]
CLOSED = 0.1
"""How often a file is closed while a command runs, where CPUs are not one client's."""

PAUSE_SECONDS = 0.002
BUSY_SECONDS = 0.005


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
            if not self.alone and self.dice.random() < CLOSED:
                self.close_early(cpu)

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

    def close_early(self, cpu: Cpu) -> None:
        """A second file of this client starts a command and is closed: nobody hears of its end, which still comes."""
        command, data = REQUESTS[self.dice.choice(("stopped", "raced"))]
        self.tally.add("begun")
        try:
            with RawCpu(cpu.numbers.node, cpu.numbers.index, cpu.number) as raw:
                raw.fill(command, data)
                raw.start()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            self.tally.add("begun", -1)
            self.tally.add("busy")
        else:
            self.tally.add("closed")


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
