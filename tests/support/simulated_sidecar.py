"""A sidecar of simulated CPUs, as a Backing that the tests give to a PageDriver."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from sidecar.layout import (
    ABI_VERSION,
    REQUEST_VECTOR,
    ControlPage,
    PrivatePage,
    abi_hash,
    private_pa,
    required_memory,
    shared_pa,
)
from sidecar.layout.x86 import Icr
from sidecar.protocol.backing import ResponseTarget
from tests.support.simulated_cpu import APIC_BASE, SimulatedCpu, SimulatedNode

TRAMPOLINE_PA = 0x8000
NODES_PA = 0x10000
RESPONSE = ResponseTarget(apic_id=0x77, vector=0x55)


class SimulatedSidecar:
    """Nodes of simulated CPUs, `cpus_per_node` of each, as a Backing; `with` starts and ends the threads.

    `sent` is every interrupt command in order.
    """

    def __init__(self, cpus_per_node: Sequence[int] = (4,)) -> None:
        self.nodes: list[SimulatedNode] = []
        pa, base = NODES_PA, 0
        for count in cpus_per_node:
            shared, private = shared_pa(pa, 0), private_pa(pa, count, 0, PrivatePage.PML4)
            self.nodes.append(SimulatedNode(pa, shared, private, base, count))
            pa, base = pa + required_memory(count), base + count
        self._memory = memoryview(mmap.mmap(-1, pa))
        self.cpus: dict[int, SimulatedCpu] = {}
        for number, node in enumerate(self.nodes):
            self._fill_control(number, node)
            for index in range(node.cpu_count):
                self.cpus[node.base_cpu + index] = SimulatedCpu(self._memory, node, index)
        self.apic_ids = [APIC_BASE + linux for linux in range(base)]
        self.trampoline_pa, self.response = TRAMPOLINE_PA, RESPONSE
        self.sent: list[int] = []

    def __enter__(self) -> Self:
        for cpu in self.cpus.values():
            if cpu.index:
                cpu.boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for cpu in self.cpus.values():
            cpu.end()

    def view(self, pa: int, size: int) -> memoryview:
        return self._memory[pa : pa + size]

    def send(self, icr: int) -> None:
        self.sent.append(icr)
        kind = icr & 0xFF00
        if kind == Icr.STARTUP:
            assert icr & 0xFF == TRAMPOLINE_PA >> 12
        if kind == Icr.FIXED:
            assert icr & 0xFF == REQUEST_VECTOR
        self.cpus[(icr >> 32) - APIC_BASE].interrupt(kind)

    def drain(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while any(cpu.init_pending for cpu in self.cpus.values() if cpu.index) and time.monotonic() < deadline:
            time.sleep(0.0005)

    def check(self) -> None:
        """Threads do not die of themselves."""

    def kinds_sent(self, linux: int) -> list[Icr]:
        """The interrupts that one CPU was sent."""
        return [Icr(icr & 0xFF00) for icr in self.sent if icr >> 32 == APIC_BASE + linux]

    def _fill_control(self, number: int, node: SimulatedNode) -> None:
        values = {
            "index": number,
            "base_cpu": node.base_cpu,
            "cpu_count": node.cpu_count,
            "request_vector": REQUEST_VECTOR,
            "abi_version": ABI_VERSION,
        }
        for name, value in values.items():
            struct.pack_into("<I", self._memory, node.control_pa + ControlPage.field(name).offset, value)
        struct.pack_into("<Q", self._memory, node.control_pa + ControlPage.abi_hash, abi_hash())
