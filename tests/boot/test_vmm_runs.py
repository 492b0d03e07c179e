"""Runs of guests of the VMM library that are ended from outside, without Linux."""

from __future__ import annotations

from sidecar.client.vmm.exits import (
    CancelledExit,
    NotifiedExit,
    TimeLimitExit,
)
from tests.support.vmm_machine import MIB, SPIN, GuestMachine, load


def test_stop_and_time_limit_leave_the_guest_where_it_stands(guest: GuestMachine) -> None:
    load(guest, SPIN)
    vp = guest.vp
    vp.set(rbx=0)
    assert isinstance(vp.run(seconds=0.05), TimeLimitExit)
    first = vp.general(3)
    assert vp.start(seconds=60) is None
    assert vp.stop()
    assert isinstance(vp.finish(), CancelledExit)
    assert vp.general(3) >= first > 0
    assert vp.get("rip")[0] in (MIB, MIB + 3)


def test_notifications(guest: GuestMachine) -> None:
    load(guest, SPIN)
    vp = guest.vp
    vp.set(rbx=0)
    vp.notify(0x5)
    exit = vp.run(seconds=60)
    assert (exit, vp.guest_entries, vp.general(3)) == (NotifiedExit(vp.rip, 5), 0, 0)
    assert vp.start(seconds=60) is None
    vp.notify(1 << 63)
    vp.notify(1)
    bits = 0
    while bits != 1 << 63 | 1:
        exit = vp.finish()
        assert isinstance(exit, NotifiedExit)
        assert not exit.bits & bits
        bits |= exit.bits
        if bits != 1 << 63 | 1:
            vp.start(seconds=60)
    assert isinstance(vp.run(seconds=0.01), TimeLimitExit)
