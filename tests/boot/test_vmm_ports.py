"""Ports, CPUID and MSRs of guests of the VMM library, without Linux: strings of ports, and what a handler answers."""

from __future__ import annotations

from sidecar.client.vmm.answers import Answer
from sidecar.client.vmm.exits import (
    CpuidExit,
)
from tests.support.vmm_machine import GuestMachine, load, run_to_halt


class Stream:
    """A port that gives and takes a row of values."""

    def __init__(self, values: list[int]) -> None:
        self.values, self.written = values, list[tuple[int, int]]()

    def read(self, offset: int, size: int) -> Answer:
        return self.values.pop(0)

    def write(self, offset: int, size: int, value: int) -> Answer:
        self.written.append((size, value))
        return None


def test_strings_of_ports(guest: GuestMachine) -> None:
    """REP INSW into memory that crosses a page, and REP OUTSD and OUTSB back."""
    stream = Stream([0x1111 * n for n in range(1, 9)])
    guest.machine.ports.add(range(0x1F0, 0x1F4), stream)
    load(guest, """
        mov     edx, 0x1f0
        mov     edi, 0x180ff8
        mov     ecx, 8
        rep insw
        mov     esi, 0x180ff8
        mov     ecx, 3
        rep outsd
        outsb
    """)
    run_to_halt(guest)
    assert stream.written == [(4, 0x22221111), (4, 0x44443333), (4, 0x66665555), (1, 0x77)]
    assert guest.vp.get("rdi", "rsi", "rcx") == (0x181008, 0x181005, 0)


def test_strings_of_ports_backwards(guest: GuestMachine) -> None:
    stream = Stream([1, 2, 3])
    guest.machine.ports.add(range(0x60, 0x61), stream)
    load(guest, "std\n mov edi, 0x180002\n mov ecx, 3\n mov edx, 0x60\n rep insb")
    run_to_halt(guest)
    assert guest.machine.memory.read(0x180000, 3) == b"\3\2\1"


def test_cpuid_and_msrs(guest: GuestMachine) -> None:
    machine, vp = guest.machine, guest.vp
    vp.cpuid_exits = True
    written: list[tuple[int, int]] = []

    class Register:
        def read(self, offset: int, size: int) -> Answer:
            return 0x11223344_55667788

        def write(self, offset: int, size: int, value: int) -> Answer:
            written.append((offset, value))
            return None

    def answer(exit: CpuidExit) -> tuple[int, int, int, int]:
        return exit.leaf, exit.subleaf, 7, exit.default[0]

    machine.cpuid.add(range(0x40000000, 0x40000010), answer)
    machine.msrs.add(range(0x4B564D00, 0x4B564D10), Register())
    load(guest, """
        mov     eax, 0x40000001
        mov     ecx, 5
        cpuid
        mov     esi, eax
        mov     edi, ebx
        mov     r8d, ecx
        mov     ecx, 0x4b564d03
        rdmsr
        mov     r9d, eax
        mov     r10d, edx
        wrmsr
    """)
    run_to_halt(guest)
    assert vp.get("rsi", "rdi", "r8", "r9", "r10") == (0x40000001, 5, 7, 0x55667788, 0x11223344)
    assert written == [(3, 0x11223344_55667788)]
