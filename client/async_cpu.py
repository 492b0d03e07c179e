"""The same commands from an event loop: each is awaited, and a task that is cancelled stops its run.

    cpu = sidecar.async_cpu(3)
    await asyncio.gather(cpu.none(), sidecar.async_cpu(4).none())
    await asyncio.wait_for(cpu.execute(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP)), 0.1)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from sidecar.client.cpu import Cpu
from sidecar.client.device_runner import STOP_SECONDS
from sidecar.client.ends import Ends
from sidecar.protocol import requests
from sidecar.protocol.errors import CommandTimeout, DriverError
from sidecar.protocol.requests import Dialogue, Register, T
from sidecar.protocol.runner import COMMAND_SECONDS
from sidecar.protocol.translation import Translation
from sidecar.protocol.typed import Run


class AsyncCpu:
    """A Cpu whose commands are awaited. One command at a time: a second one gets CpuBusy, as with Cpu."""

    def __init__(self, cpu: Cpu, ends: Ends) -> None:
        self.cpu, self._ends = cpu, ends

    def __repr__(self) -> str:
        return repr(self.cpu)

    async def none(self, *, seconds: float = COMMAND_SECONDS) -> None:
        """Does nothing: an answer says that the CPU lives."""
        await self._hold(requests.none(), seconds)

    async def get_registers(
        self, names: Iterable[Register], *, seconds: float = COMMAND_SECONDS
    ) -> dict[Register, int]:
        """As Cpu.get_registers()."""
        return await self._hold(requests.get_registers(names), seconds)

    async def set_registers(self, values: Mapping[Register, int], *, seconds: float = COMMAND_SECONDS) -> None:
        """As Cpu.set_registers()."""
        await self._hold(requests.set_registers(values), seconds)

    async def translate(self, linear: int, flags: int = 0, *, seconds: float = COMMAND_SECONDS) -> Translation:
        """As Cpu.translate()."""
        return await self._hold(requests.translate(linear, flags), seconds)

    async def raise_fault(self, kind: int, argument: int = 0, *, seconds: float = COMMAND_SECONDS) -> None:
        """As Cpu.raise_fault()."""
        await self._hold(requests.raise_fault(kind, argument), seconds)

    async def _hold(self, dialogue: Dialogue[T], seconds: float) -> T:
        try:
            request = next(dialogue)
            while True:
                request = dialogue.send(await self.execute(*request, seconds=seconds))
        except StopIteration as end:
            result: T = end.value
            return result

    async def execute(self, command: int, data: bytes = b"", *, seconds: float = COMMAND_SECONDS) -> bytes:
        """Any command, as Cpu.execute(). A cancellation stops the run, and is raised when the CPU is free again."""
        run = self.cpu.start(command, data)
        try:
            async with asyncio.timeout(seconds):
                await self._ends.wait(self.cpu.number)
        except TimeoutError:
            return await asyncio.to_thread(_too_late, run, seconds)
        except BaseException:
            await self._end_early(run)
            raise
        return run.wait()

    async def _end_early(self, run: Run) -> None:
        """Stops the run and takes its end, whatever it is; a CPU that does not obey is restarted by the wait."""
        run.stop()
        try:
            await asyncio.wait_for(asyncio.shield(self._ends.wait(self.cpu.number)), STOP_SECONDS)
            run.wait()
        except TimeoutError:
            await asyncio.to_thread(_swallow, run)
        except DriverError:
            return  # it ended in a fault or an error: nobody waits for the answer any more


def _too_late(run: Run, seconds: float) -> bytes:
    """The end of a run whose time is over: mostly CommandTimeout, after the CPU's restart."""
    try:
        return run.wait(seconds=0)
    except CommandTimeout as error:
        raise CommandTimeout(
            error.cpu, error.command, status=error.status, seconds=seconds, fault=error.fault, recovered=error.recovered
        ) from None


def _swallow(run: Run) -> None:
    try:
        run.wait(seconds=0)
    except DriverError:
        return
