"""The sidecar's CPUs from a program in the guest: Linux runs beside, the program commands the others.

    with Sidecar.open() as sidecar:
        cpu = sidecar.cpu("0:2")                # also 2, "2", "apic:2"
        cpu.none()
        with cpu.claim():                       # nobody else until the end of the block
            cpu.set_registers({"HvX64RegisterDr0": 0x1000})
        await sidecar.async_cpu(3).get_registers(["HvX64RegisterDr0"])
        cpu.convert(); cpu.give_back()          # to Linux, and back

`Sidecar` (sidecar) names and holds the CPUs; `Cpu` (cpu) commands one, `AsyncCpu` (async_cpu) from an event loop. How a
command gets to its CPU is the `Attachment`'s business (attachment): through the driver's device files (device_runner),
without a driver through /dev/mem and the msr module (no_module), or from the host through guest memory (pages). What
Linux itself knows and does comes from `Linux` (linux). `sidecarctl` (__main__, cli) is all of this as a command.

`AsyncCpu` is imported when an event loop first asks for it, since asyncio is half of what this package would load.
Standard library and `construct` alone: this runs in a guest.
"""

from sidecar.client.cpu import Cpu
from sidecar.client.errors import AlreadyAttached, DriverAppeared, LinuxRefused, NoDriver, NoSidecar
from sidecar.client.sidecar import Sidecar
from sidecar.protocol.abi_check import AbiMismatch
from sidecar.protocol.errors import (
    CommandTimeout,
    CpuAway,
    CpuBusy,
    CpuFaulted,
    CpuLost,
    DriverError,
    NoSuchCpu,
    NothingRuns,
    ProtocolError,
    SidecarCommandError,
)

__all__ = [
    "AbiMismatch", "AlreadyAttached", "CommandTimeout", "Cpu", "CpuAway", "CpuBusy", "CpuFaulted",
    "CpuLost", "DriverAppeared", "DriverError", "LinuxRefused", "NoDriver", "NoSidecar", "NoSuchCpu", "NothingRuns",
    "ProtocolError", "Sidecar", "SidecarCommandError",
]
