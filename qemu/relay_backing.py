"""The driver's role from the host: memory through the mapped guest RAM, interrupts through the shim's relay.

The host cannot send an interrupt into the machine, so it asks the boot CPU: it writes x2APIC ICR values into the ring
of the RelayPage and rings the bell, a byte on the guest's second UART, whose interrupt wakes the relay from its HLT.
The relay sends the values in order and advances `tail`; the CPUs' responses come to it too, and it counts them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from typing import Any, Protocol

from sidecar.layout.boot import RELAY_MAGIC, RELAY_RING, RelayFlags, RelayPage
from sidecar.layout.schema import PAGE_SIZE
from sidecar.protocol.atomics import AtomicU32, AtomicU64
from sidecar.protocol.backing import NodePages, ResponseTarget
from sidecar.protocol.errors import ProtocolError
from sidecar.protocol.machine import Discovered
from sidecar.protocol.views import View
from sidecar.protocol.waiting import poll

FULL_SECONDS = 5.0
MASK_32 = 0xFFFFFFFF


class Mapped(Protocol):
    """RAM that can be mapped."""

    def view(self, pa: int, size: int) -> memoryview: ...


class RelayedMachine(Protocol):
    """What the backing needs of a machine; `qemu.machine.Machine` is one."""

    @property
    def ram(self) -> Mapped: ...
    @property
    def relay(self) -> socket.socket: ...
    @property
    def alive(self) -> bool: ...
    def qmp(self, command: str) -> Any: ...


class RelayBacking:
    """A `protocol.backing.Backing` over a machine whose relay is ready. Raises ProtocolError if it is not."""

    def __init__(self, machine: RelayedMachine, found: Discovered) -> None:
        if not found.relay_pa:
            raise ProtocolError("this machine has no relay: it is not in host-driven mode")
        self.machine, self.found = machine, found
        memory = machine.ram.view(found.relay_pa, PAGE_SIZE)
        self.relay = View(RelayPage, memory)
        if self.relay.magic != RELAY_MAGIC or not self.relay.flags & RelayFlags.READY:
            raise ProtocolError(
                f"the relay page at {found.relay_pa:#x} is not ready: magic {int(self.relay.magic):#x}, "
                f"expected {RELAY_MAGIC:#x}; flags {int(self.relay.flags):#x}"
            )
        self._head = AtomicU32(memory, int(RelayPage.head))
        self._tail = AtomicU32(memory, int(RelayPage.tail))
        ring = int(RelayPage.ring)
        self._ring = [AtomicU64(memory, ring + index * RelayPage.ring.STRIDE) for index in range(RELAY_RING)]
        self._lock = threading.Lock()

    @property
    def nodes(self) -> Sequence[NodePages]:
        return self.found.nodes

    @property
    def apic_ids(self) -> Sequence[int]:
        return [cpu.apic_id for cpu in self.found.cpus]

    @property
    def trampoline_pa(self) -> int:
        return self.found.trampoline_pa

    @property
    def response(self) -> ResponseTarget:
        return ResponseTarget(int(self.relay.bsp_apic_id), int(self.relay.response_vector))

    def view(self, pa: int, size: int) -> memoryview:
        return self.machine.ram.view(pa, size)

    def send(self, icr: int) -> None:
        """Queues one interrupt command. Raises ProtocolError if the relay takes nothing out of a full ring."""
        with self._lock:
            head = self._head.load()
            if not poll(lambda: self._used(head) < RELAY_RING, FULL_SECONDS, self.check):
                raise self._stuck(head, FULL_SECONDS)
            self._ring[head % RELAY_RING].store(icr)
            self._head.store(head + 1 & MASK_32)
        self._ring_the_bell()

    def drain(self, seconds: float) -> None:
        head = self._head.load()
        # Another thread's later commands may have gone too: the tail has reached our head, or passed it.
        if not poll(lambda: (self._tail.load() - head) & MASK_32 < 1 << 31, seconds, self.check):
            raise self._stuck(head, seconds)

    def check(self) -> None:
        """Raises MachineDied if QEMU has ended."""
        if not self.machine.alive:
            self.machine.qmp("query-status")  # says how it ended

    def _used(self, head: int) -> int:
        return head - self._tail.load() & MASK_32

    def _ring_the_bell(self) -> None:
        try:
            self.machine.relay.send(b"\0", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return  # no more bytes fit: those that wait there wake the relay
        except OSError:
            self.check()
            raise

    def _stuck(self, head: int, seconds: float) -> ProtocolError:
        return ProtocolError(
            f"the relay did not send what is in its ring within {seconds:g} s: head {head:#x}, "
            f"tail {self._tail.load():#x}, {int(self.relay.wakeups)} wake-ups"
        )
