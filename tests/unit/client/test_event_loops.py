"""Commanding from event loops, through device files and without the driver's module: tasks, cancelled and in time."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sidecar.client import CommandTimeout, CpuBusy, CpuFaulted, SidecarCommandError
from sidecar.client.sidecar import Sidecar
from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand
from sidecar.protocol.commands import raise_request
from tests.support.guest import Guest
from tests.support.simulated_cpu import UNKNOWN_COMMAND
from tests.support.simulated_sidecar import SimulatedSidecar

WAIT = raise_request(RaiseKind.WAIT_FOR_STOP)


@pytest.fixture(params=["driver", "no-module"])
def any_sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    with SimulatedSidecar((4, 3)) as simulated:
        guest = Guest(simulated, tmp_path)
        with guest.with_driver() if request.param == "driver" else guest.without_module() as opened:
            assert opened.backing == request.param
            yield opened


def test_many_at_once(any_sidecar: Sidecar) -> None:
    async def use() -> list[dict[str, int]]:
        cpus = [any_sidecar.async_cpu(number) for number in (1, 2, 3, 5, 6)]
        for _ in range(10):
            await asyncio.gather(*(cpu.none() for cpu in cpus))
        await asyncio.gather(*(cpu.set_registers({"HvX64RegisterDr1": cpu.cpu.number}) for cpu in cpus))
        return await asyncio.gather(*(cpu.get_registers(["HvX64RegisterDr1"]) for cpu in cpus))

    assert asyncio.run(use()) == [{"HvX64RegisterDr1": number} for number in (1, 2, 3, 5, 6)]


def test_a_cancelled_task_stops_its_run(any_sidecar: Sidecar) -> None:
    async def use() -> None:
        cpu = any_sidecar.async_cpu(1)
        task = asyncio.create_task(cpu.execute(SidecarCommand.RAISE, WAIT))
        await asyncio.sleep(0.02)
        assert cpu.cpu.status == CpuStatus.RUN
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cpu.cpu.status == CpuStatus.IDLE
        await cpu.none()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cpu.execute(SidecarCommand.RAISE, WAIT), 0.02)
        await cpu.none()

    asyncio.run(use())


def test_a_cancelled_task_whose_cpu_does_not_obey(any_sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is restarted; the loop goes on meanwhile."""
    monkeypatch.setattr("sidecar.client.async_cpu.STOP_SECONDS", 0.05)

    async def use() -> None:
        cpu = any_sidecar.async_cpu(1)
        task = asyncio.create_task(cpu.raise_fault(RaiseKind.SPIN))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cpu.none()
        assert cpu.cpu.boot_record()["arrivals"] == 2

    asyncio.run(use())


def test_a_time_out_while_the_loop_goes_on(any_sidecar: Sidecar) -> None:
    async def use() -> None:
        cpu, other = any_sidecar.async_cpu(1), any_sidecar.async_cpu(2)
        spin = asyncio.create_task(cpu.raise_fault(RaiseKind.SPIN, seconds=0.05))
        while not spin.done():
            await other.none()
        with pytest.raises(CommandTimeout, match=r"did not finish RAISE within 0\.05 s"):
            await spin
        await cpu.none()

    asyncio.run(use())


def test_a_fault_and_an_error_in_a_task(any_sidecar: Sidecar) -> None:
    async def use() -> None:
        cpu = any_sidecar.async_cpu(1)
        with pytest.raises(SidecarCommandError, match=UNKNOWN_COMMAND):
            await cpu.execute(0x63)
        with pytest.raises(CpuFaulted, match="#GP"):
            await cpu.raise_fault(RaiseKind.GENERAL_PROTECTION)
        cpu.cpu.restart()
        await cpu.none()

    asyncio.run(use())


def test_one_task_at_a_time(any_sidecar: Sidecar) -> None:
    async def use() -> None:
        cpu = any_sidecar.async_cpu(1)
        first = asyncio.create_task(cpu.execute(SidecarCommand.RAISE, WAIT))
        await asyncio.sleep(0.01)
        with pytest.raises(CpuBusy, match="executes a command"):
            await cpu.none()
        first.cancel()
        await asyncio.wait([first])

    asyncio.run(use())


def test_a_loop_after_a_loop(any_sidecar: Sidecar) -> None:
    for _ in range(3):
        asyncio.run(partial(any_sidecar.async_cpu(1).none)())
