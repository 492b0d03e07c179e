"""A guest around a simulated sidecar: the /sys that its Linux would show, and its ways to the CPUs."""

from __future__ import annotations

from pathlib import Path

from sidecar.client.driver import DriverAttachment
from sidecar.client.linux import Linux
from sidecar.client.no_module import NoModuleAttachment, NoModuleBacking
from sidecar.client.sidecar import Sidecar
from sidecar.layout import CpuMapEntry, CpuPolicy, required_memory
from sidecar.layout.acpi import SdcrNode
from sidecar.layout.x86 import ApicBase, Msr
from sidecar.protocol.backing import CpuNumbers
from tests.support import synthetic
from tests.support.simulated_cpu import APIC_BASE
from tests.support.simulated_device import SimulatedKernel
from tests.support.simulated_sidecar import TRAMPOLINE_PA, SimulatedSidecar


class SimulatedMsr:
    """CPU 0's registers: an ICR write goes to the simulated CPUs."""

    def __init__(self, sidecar: SimulatedSidecar) -> None:
        self._sidecar = sidecar

    def read(self, register: Msr) -> int:
        return ApicBase.EN | ApicBase.EXTD

    def write(self, register: Msr, value: int) -> None:
        assert register is Msr.X2APIC_ICR
        self._sidecar.send(value)

    def close(self) -> None:
        """Nothing is open."""


class HookedLinux(Linux):
    """A Linux whose CPU hotplug calls the simulated driver."""

    def __init__(self, sys: Path, kernel: SimulatedKernel) -> None:
        super().__init__(sys)
        self._kernel = kernel

    def set_online(self, cpu: CpuNumbers, wanted: bool) -> None:
        if wanted:
            self._kernel.driver.remove(cpu.linux)
        super().set_online(cpu, wanted)
        if not wanted:
            self._kernel.driver.give_back(cpu.linux)
            self._kernel.returned.add(cpu.linux)


class Guest:
    """`sys` is a directory that looks like /sys; the first CPU of every node is online."""

    def __init__(self, sidecar: SimulatedSidecar, sys: Path) -> None:
        self.sidecar, self.sys, self.linux = sidecar, sys, Linux(sys)
        self.kernel = SimulatedKernel(sidecar)
        tables = sys / "firmware" / "acpi" / "tables"
        tables.mkdir(parents=True)
        (tables / "SDCR").write_bytes(table(sidecar))
        for number, cpu in sidecar.cpus.items():
            folder = sys / "devices" / "system" / "cpu" / f"cpu{number}"
            folder.mkdir(parents=True)
            (folder / "online").write_text("1\n" if cpu.index == 0 else "0\n")

    def set_online(self, cpu: int, online: bool) -> None:
        """Somebody else than the client switches the CPU."""
        (self.sys / "devices" / "system" / "cpu" / f"cpu{cpu}" / "online").write_text("1\n" if online else "0\n")

    def load_driver(self) -> None:
        (self.sys / "module" / "sidecar").mkdir(parents=True)

    def without_module(self) -> Sidecar:
        """A client of its own that commands without a driver."""
        return Sidecar(NoModuleAttachment(self.backing(), self.linux))

    def with_driver(self) -> Sidecar:
        """A client of its own, with files of its own."""
        linux = HookedLinux(self.sys, self.kernel)
        found = linux.discover()
        files = [self.kernel.open(node.number) for node in found.nodes]
        return Sidecar(DriverAttachment(found, files, self.kernel, linux))

    def backing(self) -> NoModuleBacking:
        return NoModuleBacking(self.linux.discover(), self.sidecar, SimulatedMsr(self.sidecar), self.linux)


def table(sidecar: SimulatedSidecar) -> bytes:
    """The SDCR table of a simulated sidecar."""
    nodes = b"".join(
        SdcrNode.build(
            control_pa=node.control_pa, shared_pa=node.shared_pa, private_pa=node.private_pa,
            memory_bytes=required_memory(node.cpu_count), base_cpu=node.base_cpu, cpu_count=node.cpu_count,
            numa_node=number, memory_numa_node=number,
        )
        for number, node in enumerate(sidecar.nodes)
    )
    of_node = [number for number, node in enumerate(sidecar.nodes) for _ in range(node.cpu_count)]
    cpus = b"".join(
        CpuMapEntry.build(
            apic_id=APIC_BASE + number, linux_number=number, node=of_node[number], numa_node=of_node[number],
            policy=CpuPolicy.SIDECAR if cpu.index else CpuPolicy.LINUX,
        )
        for number, cpu in sidecar.cpus.items()
    )
    return synthetic.sdcr(nodes=nodes, cpus=cpus, trampoline_pa=TRAMPOLINE_PA)
