"""Commands from an event loop on the CPUs that the arguments name. Prints what happened as JSON."""

import asyncio
import json
import sys

from sidecar.client import CpuFaulted, Sidecar
from sidecar.layout import RaiseKind, SidecarCommand
from sidecar.protocol.commands import raise_request

NAME = "HvX64RegisterDr2"
WAIT = raise_request(RaiseKind.WAIT_FOR_STOP)


async def use(sidecar: Sidecar, names: list[str]) -> dict[str, object]:
    result: dict[str, object] = {}
    cpus = [sidecar.async_cpu(name) for name in names]
    for _ in range(20):
        await asyncio.gather(*(cpu.none() for cpu in cpus))
    await asyncio.gather(*(cpu.set_registers({NAME: 0x101 * cpu.cpu.number}) for cpu in cpus))
    values = await asyncio.gather(*(cpu.get_registers([NAME]) for cpu in cpus))
    result["registers"] = [value[NAME] for value in values]
    task = asyncio.create_task(cpus[0].execute(SidecarCommand.RAISE, WAIT))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    result["cancelled"] = cpus[0].cpu.state
    try:
        await asyncio.wait_for(cpus[1].execute(SidecarCommand.RAISE, WAIT), 0.05)
    except TimeoutError:
        result["timed out"] = True
    try:
        await cpus[2].raise_fault(RaiseKind.GENERAL_PROTECTION)
    except CpuFaulted as error:
        result["fault"] = error.fault.mnemonic
    cpus[2].cpu.restart()
    await asyncio.gather(*(cpu.none() for cpu in cpus))
    result["after all"] = True
    return result


with Sidecar.open() as sidecar:
    print(json.dumps(asyncio.run(use(sidecar, sys.argv[1:]))))
