"""What the driver's role stands on: somebody who maps the machine's memory and sends interrupts on its behalf.

Two parties can be that: the host, which maps QEMU's guest RAM and asks the shim's relay, and a program in an unmodified
guest with /dev/mem and the msr module. A simulated sidecar in the tests is a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class CpuNumbers:
    """The four numbers of a CPU, always shown side by side."""

    linux: int
    apic_id: int
    node: int
    index: int

    def __str__(self) -> str:
        return f"CPU {self.linux} (APIC id {self.apic_id:#x}, node {self.node}, index {self.index})"


@dataclass(frozen=True, slots=True)
class ResponseTarget:
    """Whom the CPUs notify: an x2APIC id and a vector on it."""

    apic_id: int
    vector: int

    @property
    def pair(self) -> int:
        """response_cpu and response_vector as the one aligned u64 they are written as."""
        return self.apic_id | self.vector << 32


class NodePages(Protocol):
    """Where a node's pages are, and which CPUs it has."""

    @property
    def control_pa(self) -> int: ...
    @property
    def shared_pa(self) -> int: ...
    @property
    def private_pa(self) -> int: ...
    @property
    def base_cpu(self) -> int: ...
    @property
    def cpu_count(self) -> int: ...


class Backing(Protocol):
    """Memory and interrupts of one machine. `send` and `drain` may be called by any number of threads."""

    @property
    def nodes(self) -> Sequence[NodePages]:
        """The sidecar's nodes, by node number."""
        ...

    @property
    def apic_ids(self) -> Sequence[int]:
        """The x2APIC id of every CPU of the machine, by Linux number."""
        ...

    @property
    def trampoline_pa(self) -> int:
        """The page that a STARTUP interrupt names."""
        ...

    @property
    def response(self) -> ResponseTarget:
        """Whom the CPUs shall notify."""
        ...

    def view(self, pa: int, size: int) -> memoryview:
        """The memory itself, writable, at physical address `pa`."""
        ...

    def send(self, icr: int) -> None:
        """Sends one x2APIC interrupt command, (destination << 32) | Icr kind | vector, after all sent before it."""
        ...

    def drain(self, seconds: float) -> None:
        """Returns when everything sent has left for the CPUs. Raises ProtocolError if that takes longer."""
        ...

    def check(self) -> None:
        """Raises if the machine can no longer answer; called during long waits."""
        ...
