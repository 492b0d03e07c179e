"""Memory of guests of the VMM library, without Linux: that of devices, none, read-only, taken away while they run."""

from __future__ import annotations

from typing import Any

from sidecar.client.vmm.exits import (
    HaltExit,
    MemoryExit,
)
from sidecar.client.vmm.memory import ROM
from tests.support.vmm_guest import MemoryDevice
from tests.support.vmm_machine import GuestMachine, load, run_to_halt

DEVICE = 0xD0000000
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
        mov     eax, 7
        mul     dword ptr [rdi + 8]
        mov     r14, rax
        push    qword ptr [rdi + 8]
        pop     qword ptr [rdi + 40]
        div     dword ptr [rdi + 44]
        mov     r15, rdx
        cmpxchg8b [rdi + 48]
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
