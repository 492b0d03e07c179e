"""The sidecar as a whole: its nodes and CPUs, by name, over one of the attachments.

Each attachment is imported by who opens it: under TCG a guest's Python loads slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from sidecar.client.attachment import Attachment
from sidecar.client.cpu import LINUX, Cpu
from sidecar.client.errors import NoDriver
from sidecar.client.linux import Linux
from sidecar.client.names import find
from sidecar.layout.abi import ABI_VERSION
from sidecar.layout.registry import abi_hash
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.decode import Decoded
from sidecar.protocol.machine import Node

if TYPE_CHECKING:
    from sidecar.client.async_cpu import AsyncCpu
    from sidecar.client.ends import Ends
    from sidecar.client.vmm.machine import Machine

Backing: TypeAlias = Literal["auto", "driver", "no-module"]
BACKINGS: tuple[Backing, ...] = ("auto", "driver", "no-module")


class Sidecar:
    """An open attachment; `with` closes it. The same Cpu object is handed out for the same CPU every time."""

    def __init__(self, attachment: Attachment) -> None:
        self.attachment = attachment
        self.found = attachment.found
        self._cpus: dict[int, Cpu] = {}
        self._ends: Ends | None = None

    @classmethod
    def open(cls, backing: Backing = "auto") -> Self:
        """The sidecar beside this Linux; `auto` takes the driver if it is loaded, else the way without one.

        Raises NoSidecar, NoDriver, AlreadyAttached, AbiMismatch, BadTable.
        """
        linux = Linux()
        if backing == "driver" or (backing == "auto" and linux.driver_is_loaded()):
            from sidecar.client.driver import DriverAttachment

            return cls(DriverAttachment.open(linux))
        from sidecar.client.no_module import NoModuleAttachment

        try:
            return cls(NoModuleAttachment.open(linux))
        except NoDriver as error:
            if backing == "no-module":
                raise
            raise NoDriver(f"the sidecar's driver is not loaded (modprobe sidecar), and without it {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives everything back; claims end."""
        self.attachment.close()

    @property
    def backing(self) -> str:
        """driver, no-module or host."""
        return self.attachment.name

    @property
    def nodes(self) -> Sequence[Node]:
        return self.found.nodes

    @property
    def numbers(self) -> Sequence[CpuNumbers]:
        """Every CPU of a sidecar node, those that Linux runs included."""
        return self.attachment.runner.cpus

    @property
    def cpus(self) -> tuple[Cpu, ...]:
        """The CPUs of the sidecar's nodes, by Linux number; a node's first one is Linux's."""
        return tuple(self.cpu(numbers.linux) for numbers in self.numbers)

    @property
    def started(self) -> tuple[Cpu, ...]:
        """The CPUs that the sidecar started at boot, whoever has them now."""
        return tuple(self.cpu(cpu.linux_number) for cpu in self.found.sidecar_cpus)

    @property
    def commandable(self) -> tuple[Cpu, ...]:
        """Those of them that Linux does not run at this moment."""
        return tuple(cpu for cpu in self.started if cpu.state != LINUX)

    def cpu(self, name: str | int) -> Cpu:
        """By Linux number, `apic:ID` or `node:index`. Raises NoSuchCpu with what there is."""
        number = find(name, self.numbers).linux
        if number not in self._cpus:
            self._cpus[number] = Cpu(self.attachment, number)
        return self._cpus[number]

    def async_cpu(self, name: str | int) -> AsyncCpu:
        """The same CPU for an event loop."""
        from sidecar.client.async_cpu import AsyncCpu

        if self._ends is None:
            self._ends = self.attachment.ends()
        return AsyncCpu(self.cpu(name), self._ends)

    def machine(self, *, memory: int) -> Machine:
        """A virtual machine with `memory` bytes from address 0 on, in whole pages. Raises NoDriver, VmError."""
        from sidecar.client.vmm.machine import Machine

        return Machine(self.attachment.virtual_machine(), memory=memory)

    def describe(self) -> Decoded:
        """Nodes and all CPUs of the machine as plain data."""
        inside = {cpu.number: cpu.describe() for cpu in self.cpus}
        fields = ("number", "base_cpu", "cpu_count", "numa_node", "memory_numa_node", "memory_bytes")
        return {
            "backing": self.backing,
            "abi_version": ABI_VERSION,
            "abi_hash": abi_hash(),
            "nodes": [{name: getattr(node, name) for name in fields} for node in self.nodes],
            "cpus": [
                inside.get(cpu.linux_number)
                or {"linux_number": cpu.linux_number, "apic_id": cpu.apic_id, "node": None, "index": None,
                    "state": LINUX}
                for cpu in self.found.cpus
            ],
        }
