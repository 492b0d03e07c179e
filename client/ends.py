"""How an event loop learns that a run has ended: from the device file, or, where there is none, by looking.

Imported by who has an event loop: asyncio is half of what a short-lived program would load otherwise.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Protocol

from sidecar.client.device_runner import DeviceRunner
from sidecar.client.notices import Notices
from sidecar.protocol.runner import Runner
from sidecar.protocol.slot import IN_COMMAND

YIELDS = 50
SHORTEST_SLEEP = 50e-6
LONGEST_SLEEP = 5e-3
GROWTH = 1.3


class Ends(Protocol):
    """What an AsyncCpu waits on."""

    async def wait(self, cpu: int) -> None:
        """Returns when the CPU's started run has ended; Runner.wait() then returns at once."""
        ...


class PolledEnds:
    """Looks at the status byte, in growing steps, and lets the loop do other things between."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def wait(self, cpu: int) -> None:
        looks, pause = 0, SHORTEST_SLEEP
        while self._runner.status(cpu) in IN_COMMAND:
            looks += 1
            await asyncio.sleep(0 if looks < YIELDS else pause)
            if looks >= YIELDS:
                pause = min(pause * GROWTH, LONGEST_SLEEP)


class DeviceEnds:
    """Tells event loops of ended runs, by the device files' readiness."""

    def __init__(self, runner: DeviceRunner) -> None:
        self._runner = runner
        self._waiting: dict[tuple[asyncio.AbstractEventLoop, int], int] = {}

    async def wait(self, cpu: int) -> None:
        notices = self._runner.notices[self._runner.numbers(cpu).node]
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        thread = threading.get_ident()

        def tell() -> None:
            """Called by whichever thread has read the file."""
            if threading.get_ident() == thread:
                _end(ended)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(_end, ended)

        self._add(loop, notices)
        try:
            notices.listen(cpu, tell)
            await ended
        finally:
            notices.ignore(cpu)
            self._remove(loop, notices)

    def _add(self, loop: asyncio.AbstractEventLoop, notices: Notices) -> None:
        key = loop, notices.node.fileno()
        self._waiting[key] = self._waiting.get(key, 0) + 1
        if self._waiting[key] == 1:
            loop.add_reader(notices.node.fileno(), notices.read)

    def _remove(self, loop: asyncio.AbstractEventLoop, notices: Notices) -> None:
        key = loop, notices.node.fileno()
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
            loop.remove_reader(notices.node.fileno())


def _end(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
