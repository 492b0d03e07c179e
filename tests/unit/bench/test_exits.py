"""What is reckoned from rounds of exits, and the guest that makes them."""

import struct

import pytest

from sidecar.bench import exit_guest
from sidecar.bench.dispatch import Taken
from sidecar.bench.exits import CPUID, KVM, LOOPS, SLEEPING, TO_VMM, TRIED, Tried, instructions_of, one_of, ratios
from sidecar.bench.trace import Counted, count
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.x86 import Pte

BEGIN, END = 0x100, 0x200


def test_one_exit_of_many() -> None:
    rounds, alone = Taken(1000, 1010, 1030, 1050, 2000), Taken(10, 20, 30, 40, 50)
    assert one_of(rounds, alone, 100) == Taken(9.7, 9.8, 10.0, 10.2, 19.7)


def test_instructions_of_what_the_vmm_does_not_see_are_those_of_the_cpu_with_the_guest() -> None:
    counted: dict[Tried, list[Counted]] = {
        (TO_VMM, SLEEPING): [Counted(4500, 600), Counted(1700, 600)],
        (CPUID, SLEEPING): [Counted(9000, 915), Counted(100, 930)],
        (TO_VMM, KVM): [Counted(3400, 0), Counted(6300, 0)],
        (CPUID, KVM): [Counted(9000, 0), Counted(6000, 77)],
    }
    assert instructions_of(counted) == {
        (TO_VMM, SLEEPING): 2300, (CPUID, SLEEPING): 315, (TO_VMM, KVM): 3400, (CPUID, KVM): 2600,
    }  # fmt: skip


def test_ratios_are_of_the_same_round() -> None:
    flat = {tried: [Taken(1, 1, 10, 1, 1), Taken(1, 1, 40, 1, 1), Taken(1, 1, 20, 1, 1)] for tried in TRIED}
    flat[TO_VMM, SLEEPING] = [Taken(1, 1, 5, 1, 1), Taken(1, 1, 60, 1, 1), Taken(1, 1, 20, 1, 1)]
    figures = {figure.name: figure for figure in ratios(flat, dict.fromkeys(TRIED, 7) | {(CPUID, SLEEPING): 14})}
    sleeping = figures["to the VMM, sidecar, C, sleeping, by KVM's, in time"]
    assert (sleeping.value, sleeping.samples, sleeping.aim) == ("1.00", (0.5, 1.5, 1.0), None)
    aims = {name: figure.aim.limit for name, figure in figures.items() if figure.aim}
    assert aims["to the VMM, sidecar, C, polled, by KVM's, in time"] == 0.8
    assert aims["CPUID, sidecar, C, sleeping, by KVM's, in time"] == 0.5
    assert figures["CPUID, sidecar, C, sleeping, by KVM's, in guest instructions"].value == "2.00"
    assert not any("Python" in name or "KVM, C" in name for name in figures)


def test_a_cpu_that_never_waits_is_counted_whole() -> None:
    loop = [(1, address) for address in (50, 51)] * 40
    noted = [(0, BEGIN), *((0, 10) for _ in range(40)), *loop, (0, END), (0, BEGIN)]
    assert count(noted, begin=BEGIN, end=END, here=0, there=1) == [Counted(1, 2)]
    assert count(noted, begin=BEGIN, end=END, here=0, there=1, works=(1,)) == [Counted(1, 80)]
    assert count(noted, begin=BEGIN, end=END, here=0, there=1, works=(0,)) == [Counted(40, 2)]


def test_the_guest_begins_at_the_reset_vector() -> None:
    pml4, pdpt, code = (exit_guest.image()[at : at + PAGE_SIZE] for at in range(0, 3 * PAGE_SIZE, PAGE_SIZE))
    assert struct.unpack_from("<Q", pml4)[0] & ~0xFFF == exit_guest.PDPT == exit_guest.PML4 + PAGE_SIZE
    last = struct.unpack_from("<Q", pdpt, 3 * 8)[0]
    assert last & Pte.LARGE
    assert last & ~0xFFF == exit_guest.CODE & -exit_guest.GIB
    opcode, distance = struct.unpack_from("<Bh", code, exit_guest.RESET_VECTOR)
    assert opcode == exit_guest.JMP_REL16
    assert exit_guest.RESET_VECTOR + 3 + distance == exit_guest.START
    assert exit_guest.CODE + PAGE_SIZE == 1 << 32
    offset, selector = struct.unpack_from("<IH", code, exit_guest.FAR)
    assert code[offset - exit_guest.CODE :].startswith(bytes.fromhex("ba 5f 00 00 00 ee"))  # mov edx, 0x5f; out dx, al
    assert selector == exit_guest.CODE_SELECTOR
    assert LOOPS > 1


@pytest.mark.parametrize("tried", TRIED)
def test_the_exit_to_the_vmm_comes_before_what_it_is_taken_off(tried: Tried) -> None:
    exit, way = tried
    assert not exit.loops or TRIED.index((TO_VMM, way)) < TRIED.index(tried)
