"""Guests of the VMM library on sidecar CPUs, without Linux: devices, ports, MSRs, interrupts, several at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sidecar.client.vmm.answers import Answer, Stop
from sidecar.client.vmm.exits import (
    CancelledExit,
    CpuidExit,
    ExceptionExit,
    HaltExit,
    MemoryExit,
    NotifiedExit,
    TimeLimitExit,
    TripleFaultExit,
)
from sidecar.client.vmm.loaders.modes import Mode
from sidecar.client.vmm.loop import Ended, How
from sidecar.client.vmm.memory import ROM
from sidecar.client.vmm.state import VpSnapshot
from sidecar.client.vmm.vp import Vp
from sidecar.layout.x86 import Vector
from sidecar.qemu.session import Session
from tests.support import cpus
from tests.support.vmm_guest import MemoryDevice
from tests.support.vmm_machine import GuestMachine, assembled

MIB = 1 << 20
DEVICE = 0xD0000000


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=4, directory=cpus.module_directory(request)) as session:
        yield session


@pytest.fixture
def guest(session: Session) -> Iterator[GuestMachine]:
    with GuestMachine(session, memory=2 * MIB) as guest:
        yield guest


def load(guest: GuestMachine, text: str) -> None:
    """64-bit code at 1 MiB."""
    guest.load(assembled(f"start:\n{text}\n hlt\n", MIB), Mode.LONG)


def run_to_halt(guest: GuestMachine) -> None:
    assert guest.machine.run(seconds=60) == Ended(How.HALTED)


# --- memory of devices -----------------------------------------------------------------------------------------------

EVERY_WIDTH = """
        mov     rdi, rbx
        mov     rax, 0x1122334455667788
        mov     byte ptr [rdi], al
        mov     word ptr [rdi + 2], ax
        mov     dword ptr [rdi + 4], eax
        mov     qword ptr [rdi + 8], rax
        movzx   ecx, byte ptr [rdi + 8]
        movsx   rdx, word ptr [rdi + 10]
        mov     esi, dword ptr [rdi + 12]
        mov     r8, qword ptr [rdi + 8]
        add     dword ptr [rdi + 4], 0x11111111
        setc    r9b
        xchg    qword ptr [rdi + 16], rax
        lock bts dword ptr [rdi + 24], 5
        setc    r10b
        bt      dword ptr [rdi + 24], 5
        setc    r11b
        mov     dword ptr [rdi + 28], 0x7fffffff
        inc     dword ptr [rdi + 28]
        seto    r12b
        cmp     byte ptr [rdi], 0x88
        sete    r13b
        lea     rdi, [rdi + 32]
        mov     ecx, 4
        mov     al, 0x5a
        rep stosb
        lea     rsi, [rbx + 8]
        mov     rdi, 0x180000
        mov     ecx, 8
        rep movsb
"""


def test_a_device_in_memory_by_every_width_and_form(guest: GuestMachine) -> None:
    """The same code does the same to a device and to memory."""
    device = MemoryDevice(bytes(64))
    guest.machine.devices.add(range(DEVICE, DEVICE + 64), device)
    load(guest, EVERY_WIDTH)
    guest.vp.set(rbx=DEVICE, r9=0, r10=0, r11=0, r12=0, r13=0)
    run_to_halt(guest)
    names = ("rax", "rcx", "rdx", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
    with_device = guest.vp.get(*names), bytes(device.data), guest.machine.memory.read(0x180000, 8)
    assert with_device[2] == (0x1122334455667788).to_bytes(8, "little")
    assert {size for _, _, size, _ in device.seen} == {1, 2, 4, 8}

    guest.machine.memory.fill(0x180000, 16)
    load(guest, EVERY_WIDTH)
    guest.vp.set(rbx=0x170000, r9=0, r10=0, r11=0, r12=0, r13=0)
    run_to_halt(guest)
    in_memory = guest.vp.get(*names), guest.machine.memory.read(0x170000, 64), guest.machine.memory.read(0x180000, 8)
    got: Any = list(with_device[0])
    got[3] = got[3] - DEVICE + 0x170000  # rsi
    assert (tuple(got), *with_device[1:]) == in_memory


def test_addresses_that_nobody_claims(guest: GuestMachine) -> None:
    load(guest, f"mov edi, {DEVICE}\n mov rax, qword ptr [rdi]\n mov dword ptr [rdi + 8], eax")
    run_to_halt(guest)
    assert guest.vp.get("rax") == (0xFFFFFFFF_FFFFFFFF,)
    assert guest.machine.unclaimed["address"] == {DEVICE: 1, DEVICE + 8: 1}


def test_memory_that_may_only_be_read(guest: GuestMachine) -> None:
    guest.machine.map(0x400000, 0x1000, ROM)[:4] = b"\1\2\3\4"
    seen: list[MemoryExit] = []
    load(guest, "mov edi, 0x400000\n mov eax, dword ptr [rdi]\n mov dword ptr [rdi], ecx\n mov edx, dword ptr [rdi]")
    vp = guest.vp
    while not isinstance(exit := vp.run(seconds=60), HaltExit):
        assert isinstance(exit, MemoryExit)
        seen.append(exit)
        guest.machine.handle(vp, exit)
    assert [(exit.gpa, exit.mapped, exit.write) for exit in seen] == [(0x400000, True, True)]
    assert vp.get("rax", "rdx") == (0x04030201, 0x04030201)


def test_memory_that_is_taken_away_under_a_running_guest(guest: GuestMachine) -> None:
    """From then on each access exits, and no page fault reaches the guest."""
    guest.machine.map(0x400000, 0x1000)
    load(guest, "mov edi, 0x400000\n again: inc dword ptr [rdi]\n jmp again")
    vp = guest.vp
    assert vp.start(seconds=60) is None
    region = guest.machine.memory.view(0x400000, 4)
    guest.machine.unmap(0x400000)
    exit = vp.finish()
    assert isinstance(exit, MemoryExit)
    assert (exit.gpa, exit.mapped) == (0x400000, False)
    before = bytes(region)
    assert isinstance(vp.run(seconds=60), MemoryExit)
    assert bytes(region) == before


# --- ports, CPUID, MSRs ----------------------------------------------------------------------------------------------


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


# --- exceptions and interrupts ---------------------------------------------------------------------------------------

WITH_IDT = """
        lidt    [AT_pseudo]
        {body}
        hlt
handler_6:
        inc     r12
        add     qword ptr [rsp], 2              # over the ud2
        iretq
handler_13:
        pop     r13                             # error code
        add     qword ptr [rsp], 2
        iretq
handler_32:
        inc     r14
        iretq
        .align  8
pseudo: .word   4095
        .quad   0x180000
"""


def load_with_handlers(guest: GuestMachine, body: str) -> None:
    """64-bit code with an IDT: handlers of #UD, #GP and vector 32 count in R12 and R14, and keep the code in R13."""
    text = "start:\n" + WITH_IDT.format(body=body)
    text = text.replace("[AT_pseudo]", "[rip + pseudo]")
    code = assembled(text, MIB)
    guest.load(code, Mode.LONG)
    for vector, label in ((6, "handler_6"), (13, "handler_13"), (32, "handler_32")):
        marked = text.replace("start:\n", f"start:\n mov eax, AT_{label}\n")
        address = int.from_bytes(assembled(marked, MIB)[1:5], "little") - 5
        low, high = address & 0xFFFF, address >> 16
        gate = low | 8 << 16 | 0x8E00 << 32 | high << 48
        guest.machine.memory.write(0x180000 + 16 * vector, gate.to_bytes(16, "little"))
    guest.vp.set(r12=0, r13=0, r14=0)


def test_exceptions_are_the_guests_own(guest: GuestMachine) -> None:
    load_with_handlers(guest, "ud2\n mov ecx, 0x12345\n rdmsr\n ud2")
    run_to_halt(guest)
    assert guest.vp.get("r12", "r13") == (2, 0)
    assert guest.machine.unclaimed["MSR"] == {0x12345: 1}


def test_exceptions_that_the_vmm_wants(guest: GuestMachine) -> None:
    load_with_handlers(guest, "ud2\n ud2")
    guest.vp.exception_exits = 1 << Vector.INVALID_OPCODE
    seen: list[int] = []

    def handler(vp: Vp, exit: ExceptionExit) -> Answer:
        seen.append(exit.vector)
        if len(seen) == 1:
            vp.advance_rip(2)
        else:
            vp.fault(exit.vector)
        return None

    guest.machine.on(ExceptionExit, handler)
    run_to_halt(guest)
    assert (seen, guest.vp.get("r12")) == ([6, 6], (1,))


def test_an_interrupt_ends_a_hlt(guest: GuestMachine) -> None:
    load_with_handlers(guest, "sti\n hlt\n cli")
    vp = guest.vp
    assert isinstance(vp.run(seconds=60), HaltExit)
    vp.interrupt(32)
    vp.advance_rip(1)
    assert isinstance(vp.run(seconds=60), HaltExit)
    assert vp.get("r14") == (1,)


def test_an_interrupt_waits_until_the_guest_takes_it(guest: GuestMachine) -> None:
    """Interrupts are off when it comes; the exit for the window is nobody's business."""
    load_with_handlers(guest, "in al, 0x10\n mov rbx, r14\n sti\n nop\n nop\n cli")
    guest.machine.ports.add(range(0x10, 0x11), Waker(guest))
    run_to_halt(guest)
    assert guest.vp.get("rbx", "r14") == (0, 1)


class Waker:
    """A port that interrupts who reads it."""

    def __init__(self, guest: GuestMachine) -> None:
        self.guest = guest

    def read(self, offset: int, size: int) -> Answer:
        self.guest.vp.interrupt(32)
        return 0

    def write(self, offset: int, size: int, value: int) -> Answer:
        return None


def test_a_triple_fault_ends_the_machine(guest: GuestMachine) -> None:
    load(guest, "ud2")
    ended = guest.machine.run(seconds=60)
    assert ended.stop is not None
    assert "ended in triple fault" in ended.stop.why


# --- runs that are ended from outside --------------------------------------------------------------------------------

SPIN = "again: inc rbx\n jmp again"


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


# --- several ---------------------------------------------------------------------------------------------------------

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
def three(session: Session) -> Iterator[tuple[GuestMachine, Tally]]:
    with GuestMachine(session, memory=2 * MIB, cpus=(1, 2, 3)) as guest:
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


def test_an_event_loop_that_is_cancelled_stands_still(session: Session) -> None:
    with GuestMachine(session, memory=2 * MIB, cpus=(1, 2)) as guest:
        load(guest, SPIN)

        async def part() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(guest.machine.run_async(), 0.2)

        asyncio.run(part())
        assert not any(vp.running for vp in guest.vps)
        assert all(vp.general(3) > 0 for vp in guest.vps)


# --- save and restore ------------------------------------------------------------------------------------------------


def test_a_virtual_processor_goes_on_on_another_cpu(session: Session) -> None:
    """Half of the work on CPU 1, the other half on CPU 2, with SSE state and a pending step over an instruction."""
    with GuestMachine(session, memory=2 * MIB) as guest:
        load(guest, """
            movq    xmm5, rbx
            mov     r15, rsp
            in      al, 0x10
            movq    rcx, xmm5
            mov     rdx, rsp
            mov     r9, cr3
            mov     r10, cr4
        """)
        vp = guest.vp
        vp.set(rbx=0x1234_5678_9ABC_DEF0, cr4=0x620, r14=0x77)
        exit = vp.run(seconds=60)
        guest.machine.handle(vp, exit)
        saved = VpSnapshot.unpack(vp.save().pack())
        guest.machine.remove_vp(vp)
        other = guest.machine.add_vp(2)
        other.restore(saved)
        again = other.save()
        tsc = "HvX64RegisterTsc"
        assert again.registers.pop(tsc) >= saved.registers.pop(tsc)
        assert again == saved
        assert guest.machine.run(seconds=60) == Ended(How.HALTED)
        assert other.get("rcx", "r14", "r10") == (0x1234_5678_9ABC_DEF0, 0x77, 0x620)
        assert other.get("rdx") == other.get("r15")
        assert other.get("r9") == other.get("cr3")


def test_avx_state_goes_along(session: Session) -> None:
    """The upper half of a register, which only the XSAVE image has."""
    with GuestMachine(session, memory=2 * MIB) as guest:
        load(guest, """
            mov     eax, 7
            xor     edx, edx
            xor     ecx, ecx
            xsetbv
            vmovdqu ymm3, ymmword ptr [rbx]
            in      al, 0x10
            vmovdqu ymmword ptr [rbx + 32], ymm3
        """)
        pattern = bytes(range(1, 33))
        guest.machine.memory.write(0x180000, pattern)
        vp = guest.vp
        vp.set(rbx=0x180000, cr4=0x40620)
        guest.machine.handle(vp, vp.run(seconds=60))
        saved = vp.save()
        assert pattern[16:] in saved.xsave
        guest.machine.remove_vp(vp)
        other = guest.machine.add_vp(3)
        other.restore(saved)
        run_to_halt(guest)
        assert guest.machine.memory.read(0x180020, 32) == pattern


def test_any_xsave_image_is_harmless(session: Session) -> None:
    """Also one whose header XRSTOR would fault for."""
    with GuestMachine(session, memory=2 * MIB) as guest:
        load(guest, "nop")
        vp = guest.vp
        snapshot = vp.save()
        for byte in (0xFF, 0x80, 0x5A):
            vp.restore(replace(snapshot, xsave=bytes([byte]) * 3584, fx_state=bytes([byte]) * 512))
            assert isinstance(vp.run(seconds=60), HaltExit)
            vp.restore(snapshot)


def test_a_debug_exit_stops_all(session: Session) -> None:
    with GuestMachine(session, memory=2 * MIB, cpus=(1, 2)) as guest:
        load(guest, "test edi, edi\n je start_spin\n mov eax, 3\n out 0xf4, al\n start_spin: jmp start_spin")
        for vp in guest.vps:
            vp.set(rdi=vp.index)
        ended = guest.machine.run(seconds=60)
        assert isinstance(ended.stop, Stop)
        assert (ended.how, ended.stop.status) == (How.STOPPED, 7)
        assert not any(vp.running for vp in guest.vps)


def test_a_triple_fault_of_one_leaves_the_other(session: Session) -> None:
    with GuestMachine(session, memory=2 * MIB, cpus=(1, 2)) as guest:
        load(guest, "test edi, edi\n je .good\n ud2\n .good: mov ebx, 9")
        for vp in guest.vps:
            vp.set(rdi=vp.index)
        first, second = guest.vps
        assert isinstance(second.run(seconds=60), TripleFaultExit)
        assert isinstance(first.run(seconds=60), HaltExit)
        assert first.get("rbx") == (9,)
