"""Guests of the VMM library with several virtual processors, without Linux, served by threads and by an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from sidecar.client.vmm.answers import Answer, Stop
from sidecar.client.vmm.exits import (
    HaltExit,
    TripleFaultExit,
)
from sidecar.client.vmm.loop import Ended, How
from sidecar.client.vmm.vp import Vp
from sidecar.qemu.session import Session
from tests.support.vmm_machine import MIB, SPIN, GuestMachine, load, run_to_halt

COUNT = """
        mov     edx, 0xe9
        mov     ecx, 50
    .next:  mov     eax, edi
        out     dx, al
        dec     ecx
        jne     .next
"""


class Tally:
    """Counts what is written to it, by value."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}

    def read(self, offset: int, size: int) -> Answer:
        return None

    def write(self, offset: int, size: int, value: int) -> Answer:
        self.counts[value] = self.counts.get(value, 0) + 1
        return None


@pytest.fixture
def three(plain: Session) -> Iterator[tuple[GuestMachine, Tally]]:
    with GuestMachine(plain, memory=2 * MIB, cpus=(1, 2, 3)) as guest:
        tally = Tally()
        guest.machine.ports.add(range(0xE9, 0xEA), tally)
        load(guest, COUNT)
        for vp in guest.vps:
            vp.set(rdi=vp.index)
        yield guest, tally


def test_three_by_one_thread(three: tuple[GuestMachine, Tally]) -> None:
    guest, tally = three
    run_to_halt(guest)
    assert tally.counts == {0: 50, 1: 50, 2: 50}


def test_three_by_an_event_loop(three: tuple[GuestMachine, Tally]) -> None:
    guest, tally = three
    assert asyncio.run(guest.machine.run_async(seconds=60)) == Ended(How.HALTED)
    assert tally.counts == {0: 50, 1: 50, 2: 50}


def test_three_by_a_thread_each(three: tuple[GuestMachine, Tally]) -> None:
    guest, tally = three

    def serve(vp: Vp) -> None:
        while not isinstance(exit := vp.run(seconds=60), HaltExit):
            assert guest.machine.handle(vp, exit) is None

    threads = [threading.Thread(target=serve, args=(vp,)) for vp in guest.vps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert tally.counts == {0: 50, 1: 50, 2: 50}


def test_an_event_loop_that_is_cancelled_stands_still(plain: Session) -> None:
    with GuestMachine(plain, memory=2 * MIB, cpus=(1, 2)) as guest:
        load(guest, SPIN)

        async def part() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(guest.machine.run_async(), 0.2)

        asyncio.run(part())
        assert not any(vp.running for vp in guest.vps)
        assert all(vp.general(3) > 0 for vp in guest.vps)


def test_a_debug_exit_stops_all(plain: Session) -> None:
    with GuestMachine(plain, memory=2 * MIB, cpus=(1, 2)) as guest:
        load(guest, "test edi, edi\n je start_spin\n mov eax, 3\n out 0xf4, al\n start_spin: jmp start_spin")
        for vp in guest.vps:
            vp.set(rdi=vp.index)
        ended = guest.machine.run(seconds=60)
        assert isinstance(ended.stop, Stop)
        assert (ended.how, ended.stop.status) == (How.STOPPED, 7)
        assert not any(vp.running for vp in guest.vps)


def test_a_triple_fault_of_one_leaves_the_other(plain: Session) -> None:
    with GuestMachine(plain, memory=2 * MIB, cpus=(1, 2)) as guest:
        load(guest, "test edi, edi\n je .good\n ud2\n .good: mov ebx, 9")
        for vp in guest.vps:
            vp.set(rdi=vp.index)
        first, second = guest.vps
        assert isinstance(second.run(seconds=60), TripleFaultExit)
        assert isinstance(first.run(seconds=60), HaltExit)
        assert first.get("rbx") == (9,)
