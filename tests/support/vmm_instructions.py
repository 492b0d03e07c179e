"""Instructions for the emulator's tests, and the exit that one of them makes at a device's address."""

from __future__ import annotations

import keystone

from sidecar.client.vmm.exits import MemoryExit
from sidecar.client.vmm.mmio.decoder import Mode
from sidecar.client.vmm.registers import Segment
from sidecar.layout.hv import HvX64SegmentAttribute
from sidecar.layout.hv_messages import HvExecutionState

CODE, RAM, DEVICE, PAGES = 0x1000, 0x4000, 0x8000, 0x2000
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
KEYSTONE = {Mode.BITS_64: keystone.KS_MODE_64, Mode.BITS_32: keystone.KS_MODE_32}

KNOWN = {"movsd": "a5"} | {
    f"rep {name}d": f"f3{code}" for name, code in
    (("movs", "a5"), ("stos", "ab"), ("lods", "ad"), ("scas", "af"), ("cmps", "a7"))
}  # fmt: skip
"""What the assembler takes for something else."""


def assembled(text: str, mode: Mode) -> bytes:
    if text in KNOWN:
        return bytes.fromhex(KNOWN[text])
    code, count = keystone.Ks(keystone.KS_ARCH_X86, KEYSTONE[mode]).asm(text, CODE, as_bytes=True)
    assert count in (1, 2), text
    assert isinstance(code, bytes)
    return code


def memory_exit(code: bytes, mode: Mode, gpa: int = DEVICE + 0x800, rip: int = CODE) -> MemoryExit:
    long, default = HvX64SegmentAttribute.LONG, HvX64SegmentAttribute.DEFAULT
    attributes = {Mode.BITS_64: long, Mode.BITS_32: default, Mode.BITS_16: 0}[mode]
    state = HvExecutionState.EFER_LMA if mode is Mode.BITS_64 else 0
    return MemoryExit(rip, 2, Segment(0, 0xFFFFFFFF, 8, attributes), 0, 0, state, 0, gpa, None, False, code)
