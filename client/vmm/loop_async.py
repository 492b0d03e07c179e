"""Runs all virtual processors of a machine in an event loop: a task for each.

    ended = await asyncio.wait_for(machine.run_async(), 10)

Handlers run in the event loop and must not block. Imported by who has an event loop.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from sidecar.client.vmm.exits import CancelledExit, Exit, TimeLimitExit
from sidecar.client.vmm.loop import Ended, How, Progress
from sidecar.client.vmm.vp import Vp

if TYPE_CHECKING:
    from sidecar.client.ends import Ends
    from sidecar.client.vmm.machine import Machine


async def run(machine: Machine, *, seconds: float | None = None) -> Ended:
    """As loop.run(), also when its task is cancelled: no virtual processor runs afterwards."""
    progress, changed = Progress(machine), asyncio.Condition()
    while machine.unhandled:
        if stop := progress.after(*machine.unhandled.pop(0)):
            return Ended(How.STOPPED, stop)
    loop, ends = asyncio.get_running_loop(), machine.backing.ends()
    runners = [_Runner(vp, progress, ends, changed) for vp in machine.vps]
    for one in runners:
        one.vp.waker = partial(_wake, loop, changed)
    tasks = [asyncio.create_task(one.run()) for one in runners]
    halted = asyncio.create_task(_all_halted(progress, runners, changed))
    try:
        done, _ = await asyncio.wait([*tasks, halted], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for vp in machine.vps:
            vp.waker = None
        for task in (*tasks, halted):
            task.cancel()
        await asyncio.gather(*tasks, halted, return_exceptions=True)
    return next((task.result() for task in done), Ended(How.TIME))


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Condition) -> None:
    """From any thread."""
    asyncio.run_coroutine_threadsafe(_tell(changed), loop)


async def _tell(changed: asyncio.Condition) -> None:
    async with changed:
        changed.notify_all()


async def _all_halted(progress: Progress, runners: list[_Runner], changed: asyncio.Condition) -> Ended:
    async with changed:
        await changed.wait_for(lambda: all(one.waits for one in runners) and progress.all_for_good())
    return Ended(How.HALTED)


class _Runner:
    """One virtual processor's task."""

    def __init__(self, vp: Vp, progress: Progress, ends: Ends, changed: asyncio.Condition) -> None:
        self.vp, self.progress, self.waits = vp, progress, False
        self._ends, self._changed = ends, changed

    async def run(self) -> Ended:
        """Until somebody answers Stop."""
        while True:
            await self._ready()
            stop = self.progress.after(self.vp, await self._exit())
            await _tell(self._changed)  # a handler may have woken another one
            if stop is not None:
                return Ended(How.STOPPED, stop)

    async def _ready(self) -> None:
        async with self._changed:
            self.waits = True
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.progress.is_ready(self.vp))
            self.waits = False

    async def _exit(self) -> Exit:
        ready = self.vp.start()
        if ready is not None:
            return ready
        try:
            await self._ends.wait(self.vp.cpu.number)
        except asyncio.CancelledError:
            self.vp.stop()
            exit = await asyncio.to_thread(self.vp.finish)
            if not isinstance(exit, (CancelledExit, TimeLimitExit)):
                self.progress.machine.unhandled.append((self.vp, exit))
            raise
        return self.vp.finish()
