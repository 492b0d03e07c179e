"""Virtual processors of the VMM library that are saved and restored, on another CPU, with their AVX state."""

from __future__ import annotations

from dataclasses import replace

from sidecar.client.vmm.exits import (
    HaltExit,
)
from sidecar.client.vmm.loop import Ended, How
from sidecar.client.vmm.state import VpSnapshot
from sidecar.qemu.session import Session
from tests.support.vmm_machine import MIB, GuestMachine, load, run_to_halt


def test_a_virtual_processor_goes_on_on_another_cpu(plain: Session) -> None:
    """Half of the work on CPU 1, the other half on CPU 2, with SSE state and a pending step over an instruction."""
    with GuestMachine(plain, memory=2 * MIB) as guest:
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


def test_avx_state_goes_along(plain: Session) -> None:
    """The upper half of a register, which only the XSAVE image has."""
    with GuestMachine(plain, memory=2 * MIB) as guest:
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


def test_any_xsave_image_is_harmless(plain: Session) -> None:
    """Also one whose header XRSTOR would fault for."""
    with GuestMachine(plain, memory=2 * MIB) as guest:
        load(guest, "nop")
        vp = guest.vp
        snapshot = vp.save()
        for byte in (0xFF, 0x80, 0x5A):
            vp.restore(replace(snapshot, xsave=bytes([byte]) * 3584, fx_state=bytes([byte]) * 512))
            assert isinstance(vp.run(seconds=60), HaltExit)
            vp.restore(snapshot)
