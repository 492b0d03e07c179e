"""A guest that works on for ever while it is moved from CPU to CPU; tests/support/in_guest/moving_vp.py moves it.

A round: half of a number goes to a device, then work is done until somebody sets GO, then the other half goes there,
the whole number is read back from the device's memory, an interrupt is taken, and all results are stored.
"""

from __future__ import annotations

import json
from typing import Any

from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_client import program
from tests.support.vmm_machine import assembled

CODE = 1 << 20
NAMES = {
    "DATA": 0x200000, "IDT": 0x180000, "DEVICE": 0xD0000000, "HALF_PORT": 0x10, "DONE_PORT": 0x30, "VECTOR": 0x40,
    "GO": 0, "COUNT": 8, "PRODUCT": 16, "SUM": 24, "WHOLE": 32, "EXCEPTIONS": 40, "INTERRUPTS": 48, "LANES": 64,
    "STEPS": 96, "FACTOR": 6364136223846793005, "ADDEND": 12345, "CR4": 0x40620,
}  # fmt: skip
"""Addresses, ports, a vector; offsets in DATA; x -> FACTOR * x + ADDEND; CR4: PAE, OSFXSR, OSXMMEXCPT, OSXSAVE."""

TEXT = """
    start:
            lea     rax, [rip + exception]
            mov     ecx, IDT + 16 * 6
            mov     word ptr [rcx], ax
            mov     dword ptr [rcx + 2], 0x8E000008
            shr     eax, 16
            mov     word ptr [rcx + 6], ax
            lea     rax, [rip + interrupt]
            mov     ecx, IDT + 16 * VECTOR
            mov     word ptr [rcx], ax
            mov     dword ptr [rcx + 2], 0x8E000008
            shr     eax, 16
            mov     word ptr [rcx + 6], ax
            mov     eax, 7                          # x87, SSE, AVX
            xor     edx, edx
            xor     ecx, ecx
            xsetbv
            mov     ebx, DATA
            vmovdqu ymm1, ymmword ptr [rbx + LANES]
            vmovdqu ymm3, ymmword ptr [rbx + STEPS]
            mov     r8d, 1
            mov     r9, FACTOR
    .round: mov     eax, r8d
            out     HALF_PORT, eax
            xor     ecx, ecx
    .work:  vaddpd  ymm1, ymm1, ymm3
            imul    r8, r9
            add     r8, ADDEND
            inc     rcx
            add     qword ptr [rbx + SUM], rcx
            cmp     qword ptr [rbx + GO], 0
            je      .work
            mov     qword ptr [rbx + GO], 0
            mov     rax, r8
            shr     rax, 32
            out     HALF_PORT, eax
            mov     esi, DEVICE
            mov     rdx, qword ptr [rsi]
            sti
            nop
            nop
            cli
            mov     qword ptr [rbx + WHOLE], rdx
            mov     qword ptr [rbx + COUNT], rcx
            mov     qword ptr [rbx + PRODUCT], r8
            vmovdqu ymmword ptr [rbx + LANES], ymm1
            out     DONE_PORT, al
            jmp     .round
    exception:
            inc     qword ptr [rbx + EXCEPTIONS]
            iretq
    interrupt:
            inc     qword ptr [rbx + INTERRUPTS]
            iretq
"""


def moves(session: LinuxSession, rounds: int, *, seconds: float) -> Any:
    """What the program has seen."""
    guest = {"code": assembled(TEXT, CODE, NAMES).hex(), **NAMES}
    return program(session, "moving_vp.py", str(rounds), json.dumps(guest), seconds=seconds)
