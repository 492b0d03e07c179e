"""The host's side of the relay's ring, against a relay that is a thread."""

import contextlib
import mmap
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sidecar.layout.boot import RELAY_MAGIC, RELAY_RING, RelayFlags, RelayPage
from sidecar.protocol.backing import ResponseTarget
from sidecar.protocol.errors import ProtocolError
from sidecar.protocol.machine import Cpu, Discovered
from sidecar.protocol.views import View
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.relay_backing import RelayBacking

RELAY_PA = 0x3000
FOUND = Discovered(
    sdcr_pa=0, trampoline_pa=0x8000, image_pa=0, image_bytes=0, relay_pa=RELAY_PA, tsc_khz=1, missing_count=0,
    shim_entry_tsc=0, sidecar_entry_tsc=0, first_init_tsc=0, all_idle_tsc=0, hand_over_tsc=0, nodes=(),
    cpus=(Cpu(0, 0x10, None, None, 0, 1), Cpu(1, 0x11, None, None, 0, 0)),
)  # fmt: skip


class FakeRam:
    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, RELAY_PA + 4096))

    def view(self, pa: int, size: int) -> memoryview:
        return self._memory[pa : pa + size]


class FakeMachine:
    """RAM, a bell, and a thread that serves the ring whenever the bell rings, unless it is told to be asleep."""

    def __init__(self) -> None:
        self.ram, self.alive = FakeRam(), True
        self.relay, self._inside = socket.socketpair()
        self.page = View(RelayPage, self.ram.view(RELAY_PA, 4096))
        self.page.magic, self.page.flags = RELAY_MAGIC, RelayFlags.READY
        self.page.response_vector, self.page.bsp_apic_id = 0x31, 0x10
        self.awake = threading.Event()
        self.awake.set()
        self.sent: list[int] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def qmp(self, command: str) -> None:
        raise MachineDied(f"QEMU cannot answer {command}")

    def close(self) -> None:
        self.awake.set()
        self.relay.close()
        self._thread.join(10)
        self._inside.close()

    def _serve(self) -> None:
        while self._inside.recv(16):
            self.awake.wait(10)
            while self.page.tail != self.page.head:
                self.sent.append(self.page.ring[self.page.tail % RELAY_RING])
                self.page.tail = (self.page.tail + 1) % 2**32


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    fake = FakeMachine()
    yield fake
    fake.close()


def test_commands_are_sent_in_order(machine: FakeMachine) -> None:
    backing = RelayBacking(machine, FOUND)
    for number in range(1000):
        backing.send(number << 32 | 0x4020)
    backing.drain(5)
    assert machine.sent == [number << 32 | 0x4020 for number in range(1000)]


def test_head_and_tail_wrap(machine: FakeMachine) -> None:
    machine.page.head = machine.page.tail = 2**32 - 2
    backing = RelayBacking(machine, FOUND)
    for number in range(5):
        backing.send(number)
    backing.drain(5)
    assert (machine.sent, machine.page.head) == ([0, 1, 2, 3, 4], 3)


def test_a_full_ring_is_waited_for(machine: FakeMachine) -> None:
    backing = RelayBacking(machine, FOUND)
    machine.awake.clear()
    for number in range(RELAY_RING):
        backing.send(number)
    threading.Timer(0.05, machine.awake.set).start()
    backing.send(RELAY_RING)
    backing.drain(5)
    assert machine.sent == list(range(RELAY_RING + 1))


def test_a_relay_that_takes_nothing_is_an_error(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.qemu.relay_backing.FULL_SECONDS", 0.05)
    backing = RelayBacking(machine, FOUND)
    machine.awake.clear()
    backing.send(0)
    with pytest.raises(ProtocolError, match=r"did not send what is in its ring within 0.05 s: head 0x1, tail 0x0"):
        backing.drain(0.05)
    for number in range(1, RELAY_RING):
        backing.send(number)
    with pytest.raises(ProtocolError, match=r"within 0.05 s: head 0x100, tail 0x0, 0 wake-ups"):
        backing.send(RELAY_RING)


def test_many_threads_share_the_ring(machine: FakeMachine) -> None:
    backing = RelayBacking(machine, FOUND)

    def work(first: int) -> None:
        for number in range(first, first + 500):
            backing.send(number)
        backing.drain(5)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(machine.sent) == [1000 * n + m for n in range(4) for m in range(500)]


def test_a_bell_that_is_full_still_rings(machine: FakeMachine) -> None:
    backing = RelayBacking(machine, FOUND)
    machine.awake.clear()
    machine.relay.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            machine.relay.send(bytes(4096))
    backing.send(7)
    machine.awake.set()
    backing.drain(5)
    assert machine.sent == [7]


def test_who_is_to_be_notified(machine: FakeMachine) -> None:
    backing = RelayBacking(machine, FOUND)
    assert backing.response == ResponseTarget(apic_id=0x10, vector=0x31)
    assert backing.apic_ids == [0x10, 0x11]


def test_a_relay_that_is_not_ready_is_refused(machine: FakeMachine) -> None:
    machine.page.flags = 0
    with pytest.raises(ProtocolError, match=r"relay page at 0x3000 is not ready: magic 0x59414c45\w+, .* flags 0x0"):
        RelayBacking(machine, FOUND)
    with pytest.raises(ProtocolError, match="this machine has no relay"):
        RelayBacking(machine, replace(FOUND, relay_pa=0))


def test_a_dead_machine_is_told(machine: FakeMachine) -> None:
    backing = RelayBacking(machine, FOUND)
    backing.check()
    machine.alive = False
    with pytest.raises(MachineDied):
        backing.check()
