"""The client's classes over the host-driven backing: no Linux, the host sees the machine's memory."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.client import CpuBusy, CpuFaulted, LinuxRefused, NoSuchCpu, Sidecar, SidecarCommandError
from sidecar.client.pages import PagesAttachment
from sidecar.layout import RaiseKind, SidecarCommand
from sidecar.protocol.requests import raise_request
from sidecar.qemu.session import Session


@pytest.fixture
def sidecar(run_directory: Path) -> Iterator[Sidecar]:
    with (
        Session(smp=8, numa=2, tests=True, directory=run_directory) as session,
        Sidecar(PagesAttachment(session.driver, session.found)) as opened,
    ):
        yield opened


def test_the_same_classes_on_the_host(sidecar: Sidecar) -> None:
    assert sidecar.backing == "host"
    assert [cpu.number for cpu in sidecar.commandable] == [1, 2, 3, 5, 6, 7]
    cpu = sidecar.cpu("1:2")
    assert cpu is sidecar.cpu(6)
    assert cpu is sidecar.cpu(f"apic:{cpu.numbers.apic_id}")
    with cpu.claim():
        cpu.set_registers({"HvX64RegisterDr0": 0x1234})
        assert cpu.get_registers(["HvX64RegisterDr0"]) == {"HvX64RegisterDr0": 0x1234}
    with pytest.raises(SidecarCommandError, match="0x7777") as refused:
        cpu.execute(0x7777)
    assert "0x7777" in refused.value.sentence
    with pytest.raises(CpuFaulted, match="#GP"):
        cpu.raise_fault(RaiseKind.GENERAL_PROTECTION)
    assert cpu.state == "faulted"
    assert cpu.fault_record()["exception"] == "#GP"
    cpu.restart()
    cpu.none()
    with pytest.raises(LinuxRefused, match="no Linux runs on this machine"):
        cpu.convert()
    with pytest.raises(NoSuchCpu):
        sidecar.cpu("apic:77")


def test_from_an_event_loop(sidecar: Sidecar) -> None:
    async def use() -> None:
        cpus = [sidecar.async_cpu(cpu.number) for cpu in sidecar.commandable]
        for _ in range(20):
            await asyncio.gather(*(cpu.none() for cpu in cpus))
        task = asyncio.create_task(cpus[0].execute(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP)))
        await asyncio.sleep(0.05)
        with pytest.raises(CpuBusy):
            await cpus[0].none()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await cpus[0].none()

    asyncio.run(use())
