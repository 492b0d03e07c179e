"""The emulator of instructions against Unicorn, which executes the same bytes with memory in the device's place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import unicorn as untyped_unicorn
from unicorn import x86_const

from sidecar.client.vmm.memory import ALL, GuestMemory, Region
from sidecar.client.vmm.mmio.arithmetic import STATUS, Flag
from sidecar.client.vmm.mmio.decoder import Mode
from sidecar.client.vmm.mmio.emulator import emulate
from sidecar.client.vmm.ranges import Ranges
from tests.support.vmm_guest import FakeGuest, MemoryDevice
from tests.support.vmm_instructions import CODE, DEVICE, NAMES, PAGES, RAM, assembled, memory_exit

unicorn: Any = untyped_unicorn

SEEDS = 6
NUMBERS = [getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in NAMES]
VECTORS = [getattr(x86_const, f"UC_X86_REG_XMM{n}") for n in range(16)]
MODES = {Mode.BITS_64: unicorn.UC_MODE_64, Mode.BITS_32: unicorn.UC_MODE_32}
EVERY = int(STATUS)
BUT_AF = EVERY & ~Flag.AF
BUT_OF = BUT_AF & ~Flag.OF
ONLY_CF = int(Flag.CF | Flag.ZF)
PRODUCT = int(Flag.CF | Flag.OF)
ROTATED = EVERY & ~Flag.OF

SIZES = {
    "byte": ("al", "cl", "bl", "ah"), "word": ("ax", "cx"), "dword": ("eax", "ecx"), "qword": ("rax", "rcx", "r13"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One instruction; `flags` are those that the manual defines; `count` is rcx for a repeat prefix."""

    text: str
    flags: int = EVERY
    count: int | None = None
    mode: Mode = Mode.BITS_64


def two_operands() -> Iterator[Case]:
    for name in ("add", "adc", "sub", "sbb", "and", "or", "xor", "cmp"):
        flags = BUT_AF if name in ("and", "or", "xor") else EVERY
        for width, registers in SIZES.items():
            for register in registers:
                yield Case(f"{name} {width} ptr [rdi], {register}", flags)
                if register != "ah":
                    yield Case(f"{name} {register}, {width} ptr [rdi + 8*rdx + 16]", flags)
            yield Case(f"{name} {width} ptr [rbx - 4], 0x7f", flags)
            yield Case(f"{name} {width} ptr [rbx - 4], -0x80", flags)
        if name != "cmp":
            yield Case(f"lock {name} dword ptr [rdi], 0x12345678", flags)
    for width, registers in SIZES.items():
        yield Case(f"test {width} ptr [rdi], {registers[0]}", BUT_AF)
        yield Case(f"test {width} ptr [rdi], 0x41", BUT_AF)


def moves() -> Iterator[Case]:
    for width, registers in SIZES.items():
        for register in registers:
            yield Case(f"mov {width} ptr [rdi], {register}")
            yield Case(f"mov {register}, {width} ptr [rdi]")
            yield Case(f"xchg {width} ptr [rdi], {register}")
            yield Case(f"xadd {width} ptr [rdi], {register}")
            yield Case(f"cmpxchg {width} ptr [rdi], {register}")
        yield Case(f"mov {width} ptr [r12 + rdx*2], 0x42")
        for name in ("inc", "dec", "neg", "not"):
            yield Case(f"{name} {width} ptr [rdi]")
        for name in ("shl", "shr", "sar"):
            yield Case(f"{name} {width} ptr [rdi], 1", BUT_AF)
            yield Case(f"{name} {width} ptr [rdi], 5", BUT_OF)
            yield Case(f"{name} {width} ptr [rdi], cl", BUT_OF)
        for name in ("rol", "ror"):
            yield Case(f"{name} {width} ptr [rdi], 1")
            yield Case(f"{name} {width} ptr [rdi], cl", ROTATED)
    for target in ("ax", "ecx", "r9"):
        for width in ("byte", "word"):
            if (target, width) != ("ax", "word"):
                yield Case(f"movzx {target}, {width} ptr [rdi]")
                yield Case(f"movsx {target}, {width} ptr [rdi]")
    for target, width in (("ax", "word"), ("ecx", "dword"), ("r9", "qword")):
        yield Case(f"movbe {target}, {width} ptr [rdi]")
    yield Case("movsxd rcx, dword ptr [rdi]")
    yield Case("movnti qword ptr [rdi], rcx")
    yield Case("mov dword ptr [rip + 0x7000], ecx")
    yield Case("mov dword ptr [edi], ecx")
    for suffix in ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"):
        yield Case(f"set{suffix} byte ptr [rdi]")
        yield Case(f"cmov{suffix} ecx, dword ptr [rdi]")
    for name in ("bt", "bts", "btr", "btc"):
        for width, register in (("word", "r8w"), ("dword", "r8d"), ("qword", "r8")):
            yield Case(f"{name} {width} ptr [rdi], {register}", ONLY_CF)
            yield Case(f"{name} {width} ptr [rdi], 13", ONLY_CF)


def vectors() -> Iterator[Case]:
    for name in ("movups", "movaps", "movdqu", "movdqa", "movupd", "movapd"):
        yield Case(f"{name} xmmword ptr [rdi], xmm3")
        yield Case(f"{name} xmm11, xmmword ptr [rdi]")
    for name, width in (("movd", "dword"), ("movq", "qword"), ("movss", "dword"), ("movsd", "qword")):
        yield Case(f"{name} {width} ptr [rdi], xmm3")
        yield Case(f"{name} xmm11, {width} ptr [rdi]")
    yield Case("movntdq xmmword ptr [rdi], xmm3")


def implicit() -> Iterator[Case]:
    for width in SIZES:
        yield Case(f"mul {width} ptr [rdi]", PRODUCT)
        yield Case(f"imul {width} ptr [rdi]", PRODUCT)
        if width != "byte":
            yield Case(f"div {width} ptr [rdi]", 0)
    for register, width in (("cx", "word"), ("ecx", "dword"), ("r13", "qword")):
        yield Case(f"imul {register}, {width} ptr [rdi]", PRODUCT)
        for number in (3, -5, 0x1234):
            yield Case(f"imul {register}, {width} ptr [rdi], {number}", PRODUCT)
    yield Case("cmpxchg8b qword ptr [rdi]")
    yield Case("lock cmpxchg8b qword ptr [rdi]")
    yield Case("cmpxchg16b xmmword ptr [rdi]")
    for width in ("word", "qword"):
        yield Case(f"push {width} ptr [rdi]")
        yield Case(f"pop {width} ptr [rdi]")


def strings() -> Iterator[Case]:
    for name in ("movs", "stos", "lods", "scas", "cmps"):
        for suffix in "bwdq":
            yield Case(f"{name}{suffix}")
            for prefix in ("rep", "repne") if name in ("scas", "cmps") else ("rep",):
                yield from (Case(f"{prefix} {name}{suffix}", count=count) for count in (0, 1, 5))


def in_32_bits() -> Iterator[Case]:
    for text in ("mov dword ptr [edi], ecx", "mov al, byte ptr [edi]", "add word ptr [edi + 2*edx], cx",
                 "mov eax, dword ptr [0x8010]", "xor byte ptr [ebx], 3", "movzx ecx, byte ptr [edi]", "stosb",
                 "inc dword ptr [edi]", "mov word ptr [di], cx"):  # fmt: skip
        yield Case(text, BUT_AF, mode=Mode.BITS_32)
    yield Case("rep movsb", count=3, mode=Mode.BITS_32)
    for text in ("push dword ptr [edi]", "pop dword ptr [edi]", "push word ptr [edi]", "cmpxchg8b qword ptr [edi]"):
        yield Case(text, mode=Mode.BITS_32)


def every_case() -> list[Case]:
    return [*two_operands(), *moves(), *implicit(), *vectors(), *strings(), *in_32_bits()]


class Judge:
    """Unicorn with three pieces of memory: code, RAM, and the device's place."""

    def __init__(self, mode: Mode) -> None:
        self._uc = unicorn.Uc(unicorn.UC_ARCH_X86, MODES[mode])
        self._uc.mem_map(CODE, 0x1000)
        self._uc.mem_map(RAM, PAGES)
        self._uc.mem_map(DEVICE, PAGES)
        wide = mode is Mode.BITS_64
        short = [getattr(x86_const, f"UC_X86_REG_E{name[1:].upper()}") for name in NAMES[:8]]
        self._registers, self._vectors = NUMBERS if wide else short, VECTORS if wide else VECTORS[:8]
        self._rip = x86_const.UC_X86_REG_RIP if wide else x86_const.UC_X86_REG_EIP

    def run(self, code: bytes, guest: FakeGuest, ram: bytes, device: bytes) -> tuple[FakeGuest, bytes, bytes]:
        uc = self._uc
        for address, data in ((CODE, code), (RAM, ram), (DEVICE, device)):
            uc.mem_write(address, data)
        for number, value in zip(self._registers, guest.general_registers, strict=False):
            uc.reg_write(number, value)
        for number, value in zip(self._vectors, guest.vectors, strict=False):
            uc.reg_write(number, value)
        uc.reg_write(x86_const.UC_X86_REG_EFLAGS, guest.rflags)
        uc.emu_start(CODE, CODE + len(code), count=64)
        registers = [uc.reg_read(number) for number in self._registers]
        registers += guest.general_registers[len(registers) :]
        vectors = [uc.reg_read(number) for number in self._vectors]
        flags = uc.reg_read(x86_const.UC_X86_REG_EFLAGS)
        after = FakeGuest(registers, flags, vectors=vectors + guest.vectors[len(vectors) :])
        assert uc.reg_read(self._rip) == CODE + len(code)
        return after, bytes(uc.mem_read(RAM, PAGES)), bytes(uc.mem_read(DEVICE, PAGES))


JUDGES: dict[Mode, Judge] = {}


def judge(mode: Mode) -> Judge:
    return JUDGES.setdefault(mode, Judge(mode))


def start_state(case: Case, chance: random.Random) -> FakeGuest:
    """Registers point at the device, or, for the source of a string move, at RAM."""
    wide = 1 << (64 if case.mode is Mode.BITS_64 else 32)
    guest = FakeGuest([chance.choice((chance.randrange(wide), chance.randrange(256))) for _ in range(16)])
    guest.general_registers[2] = chance.randrange(32)
    guest.general_registers[7] = DEVICE + 0x800
    guest.general_registers[3] = guest.general_registers[12] = DEVICE + 0x400
    guest.general_registers[6] = RAM + 0x800
    guest.general_registers[4] = RAM + 0x1000
    guest.general_registers[8] = chance.randrange(-4000, 4000) & wide - 1
    guest.rflags = 2 | chance.getrandbits(12) & (EVERY | (Flag.DF if case.count is not None else 0))
    guest.vectors = [chance.getrandbits(128) for _ in range(16)]
    if case.count is not None:
        guest.general_registers[1] = case.count
    return guest


def emulated(code: bytes, mode: Mode, guest: FakeGuest, ram: bytes, device: MemoryDevice) -> bytes:
    """What RAM holds afterwards."""
    memory, devices = GuestMemory(), Ranges[Any]("address")
    data = bytearray(ram)
    memory.add(Region(RAM, memoryview(data), ALL))
    devices.add(range(DEVICE, DEVICE + PAGES), device)
    assert emulate(guest, memory_exit(code, mode), devices, memory) is None
    return bytes(data)


@pytest.mark.parametrize("case", every_case(), ids=lambda case: f"{case.text} {case.count or ''} {case.mode * 8}")
def test_as_a_cpu_does_it(case: Case) -> None:
    code = assembled(case.text, case.mode)
    for seed in range(SEEDS):
        chance = random.Random(f"{case} {seed}")
        ram, device = chance.randbytes(PAGES), MemoryDevice(chance.randbytes(PAGES))
        if case.count and seed % 2:  # comparisons shall find something equal, too
            ram, device = bytes(PAGES), MemoryDevice(bytes(PAGES))
        guest = start_state(case, chance)
        expected, expected_ram, expected_device = judge(case.mode).run(code, guest, ram, bytes(device.data))
        after = emulated(code, case.mode, guest, ram, device)
        got = dict(zip(NAMES, guest.general_registers, strict=True))
        assert got == dict(zip(NAMES, expected.general_registers, strict=True))
        assert Flag(guest.rflags & case.flags) == Flag(expected.rflags & case.flags)
        assert guest.vectors == expected.vectors
        assert after == expected_ram
        assert device.data == expected_device
        assert (guest.advanced, guest.raised) == (len(code), None)
        assert all(size in (1, 2, 4, 8) for _, _, size, _ in device.seen)
