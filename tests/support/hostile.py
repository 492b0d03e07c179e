"""What hostile guests are made of: memory full of code that matters, start states of every mode, canaries around it."""

import random
import re
import struct
from collections.abc import Iterator

from sidecar.builder.asm.errors import AssemblyError
from sidecar.layout import PAGE_SIZE, CpuStatus
from sidecar.layout.run import RunEnd, RunFlags
from sidecar.layout.x86 import Msr
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.vp_events import exception, external_interrupt, when_interruptible
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from tests.support import guests

MEMORY_BYTES = 0x20000
CANARY_BYTES = 4 * PAGE_SIZE

_LINES = """
    cpuid | rdmsr | wrmsr | rdtsc | rdtscp | rdpmc | hlt | pause | sti | cli | ud2 | int3 | icebp | clts | wbinvd | invd
    in al, dx | in eax, dx | out dx, al | out dx, eax | in al, 0x21 | out 0x20, al | rep insb | rep outsd | insd | outsb
    mov cr0, rax | mov cr3, rax | mov cr4, rax | mov cr8, rax | mov cr2, rax | mov rax, cr0 | mov rax, cr4
    mov rax, cr8 | mov dr0, rax | mov dr6, rax | mov rax, dr7
    lgdt [rsi] | lidt [rsi] | sgdt [rdi] | sidt [rdi] | lldt ax | ltr ax | smsw ax | lmsw ax | str ax
    vmrun rax | vmload rax | vmsave rax | vmmcall | stgi | clgi | skinit eax | invlpga rax, ecx | monitor | mwait
    invlpg [rdi] | swapgs | syscall | sysretq | sysenter | iretq | retfq | ret
    xsetbv | xgetbv | xsave64 [rdi] | xrstor64 [rsi] | fxsave64 [rdi] | fxrstor64 [rsi] | fninit | ldmxcsr [rsi]
    mov ds, eax | mov es, eax | mov ss, eax | mov fs, eax | mov gs, eax | push rax | pop rax | pushfq | popfq
    mov qword ptr [rdi], rax | mov rax, qword ptr [rsi] | rep stosb | rep movsq | lock xadd qword ptr [rdi], rax
    xor eax, eax | inc rax | dec rcx | not rax | bswap rax | xchg rax, rcx | xchg rax, rdx | xchg rax, rsi
    xchg rax, rdi | jmp rax | call rax | jmp rsi | div rcx | rdrand rax | clflush [rdi] | mfence | serialize
    vzeroall | stac | clac
    addps xmm0, xmm1 | vaddps ymm0, ymm1, ymm2 | fld1 | movdqu xmmword ptr [rdi], xmm0 | wrfsbase rax | rdgsbase rax
"""
INTERESTING = (
    0, 1, 2, 8, 0x10, 0x18, 0x2B, 0x33, 0x20, 0x80000011, 0x60000010, 0xE0000011, 0x100000, 0x200000, 0x1000, 0x8000,
    0xFEE00000, 0xFEC00000, 0xFFFFFFFF, 1 << 31, 1 << 63, (1 << 64) - 1, 0x7FFFFFFFFFFF, 0x800000000000, 0x0406F0, 7,
)
MSRS = (*(int(msr) for msr in Msr), 0x8B, 0xC0010015, 0xC0010117, 0xC0010114, 0x1A0, 0x277, 0x40000000, 0x830, 0x80B)


def _pieces() -> list[bytes]:
    found = []
    for line in _LINES.replace("\n", "|").split("|"):
        if text := line.strip():
            try:
                found.append(guests.program(text))
            except AssemblyError as error:
                raise AssertionError(f"{text}: {error}") from error
    return found


PIECES = _pieces()


class Canary:
    """Random pages on both sides of the guest's memory and of the virtual processor's pages."""

    def __init__(self, vp: HostedVp, rng: random.Random) -> None:
        self._ram, self._pages = vp.free.ram, []
        for _ in range(2):
            pa = vp.free.take(CANARY_BYTES)
            data = rng.randbytes(CANARY_BYTES)
            self._ram.write(pa, data)
            self._pages.append((pa, data))

    def check(self) -> None:
        for pa, data in self._pages:
            assert self._ram.read(pa, len(data)) == data, f"the canary at {pa:#x} has changed"


def code(rng: random.Random, size: int) -> bytes:
    """Pieces, constants in registers, short jumps and bytes at random."""
    parts: list[bytes] = []
    length = 0
    while length < size:
        kind = rng.random()
        if kind < 0.55:
            part = rng.choice(PIECES)
        elif kind < 0.75:
            register, value = rng.randrange(8), rng.choice(INTERESTING)
            part = bytes((0x48, 0xB8 + register)) + struct.pack("<Q", value & (1 << 64) - 1)
        elif kind < 0.85:
            part = b"\xb9" + struct.pack("<I", rng.choice(MSRS))
        elif kind < 0.92:
            part = bytes((rng.choice((0xEB, 0x74, 0x75, 0xE2)), rng.randrange(256)))
        elif kind < 0.95:
            part = bytes((0xCD, rng.randrange(256)))
        else:
            part = rng.randbytes(rng.randrange(1, 8))
        parts.append(part)
        length += len(part)
    return b"".join(parts)[:size]


_REG_6_OR_7 = rb"[\x30-\x3f\x70-\x7f\xb0-\xbf\xf0-\xff]"
_REG_5_OR_7 = rb"[\x28-\x2f\x38-\x3f\x68-\x6f\x78-\x7f\xa8-\xaf\xb8-\xbf\xe8-\xef\xf8-\xff]"
MOV_TO_NO_SEGMENT = re.compile(rb"\x8e" + _REG_6_OR_7)
MOV_TO_DR7 = re.compile(rb"\x0f\x23(?=" + _REG_5_OR_7 + rb")")


def sparing_qemu(memory: bytes) -> bytes:
    """Without the two instructions with which any guest ends QEMU 10.0 itself (docs/decisions.md).

    MOV to segment register 6 or 7 (8E) becomes one to ES; MOV to DR7, or DR5, its other name, becomes MOV from it.
    """
    memory = MOV_TO_NO_SEGMENT.sub(lambda found: bytes((0x8E, found[0][1] & 0xC7)), memory)
    return MOV_TO_DR7.sub(b"\x0f\x21", memory)


def ends_qemu(memory: bytes) -> bool:
    """Has a guest made one of the two for itself meanwhile, in its stack or in code that it changed?"""
    return any(one.search(memory) for one in (MOV_TO_NO_SEGMENT, MOV_TO_DR7))


def fill(vp: HostedVp, rng: random.Random) -> None:
    """The guest's memory: sometimes with sound tables, sometimes with tables of random entries."""
    vp.memory[guests.CODE : guests.CODE + 0x2000] = code(rng, 0x2000)
    vp.memory[0x10000:MEMORY_BYTES] = code(rng, MEMORY_BYTES - 0x10000)
    if rng.random() < 0.3:
        start = rng.choice((0, guests.PML4, guests.PDPT, guests.PD, guests.GDT, guests.IDT))
        entries = [rng.choice(INTERESTING) | rng.getrandbits(12) for _ in range(512)]
        vp.memory[start : start + PAGE_SIZE] = struct.pack("<512Q", *entries)
    vp.memory[:MEMORY_BYTES] = sparing_qemu(bytes(vp.memory[:MEMORY_BYTES]))


MODES: tuple[dict[str, int], ...] = (
    {},
    {"Cr0": 0x11},
    {"Cr0": 0x80000011, "Cr3": guests.PML4, "Cr4": 0x10},
    {"Cr0": 0x80000011, "Cr3": guests.PML4, "Cr4": 0x20},
    {"Cr0": 0x80050033, "Cr3": guests.PML4, "Cr4": 0x40620, "Efer": 0xD01},
)
"""Real mode, protected mode, 32-bit and PAE paging, long mode."""


def set_state(vp: HostedVp, rng: random.Random) -> None:
    """A mode and registers at random, those that are refused left as they are."""
    mode = dict(rng.choice(MODES))
    long = "Efer" in mode
    if rng.random() < 0.3:
        mode[rng.choice(("Cr0", "Cr3", "Cr4", "Efer"))] = rng.choice(INTERESTING) ^ rng.getrandbits(8)
    mode |= {"Rip": rng.choice((guests.CODE, 0x10000, rng.randrange(guests.CODE, MEMORY_BYTES))), "Rsp": guests.STACK}
    mode |= {"Rflags": 2 | rng.getrandbits(22) & 0x247FD7, "Cr8": rng.randrange(16)}
    for name in ("Es", "Ss", "Ds", "Fs", "Gs"):
        mode[name] = 0xC093_0010_FFFFFFFF << 64
    mode["Cs"] = (0xA09B_0008_FFFFFFFF if long else 0xC09B_0018_FFFFFFFF) << 64
    mode |= {"Gdtr": guests.GDT << 64 | 0x1F << 48, "Idtr": guests.IDT << 64 | 0xFFF << 48}
    if rng.random() < 0.3:
        mode[rng.choice(("Cs", "Ss", "Ds", "Tr", "Ldtr", "Gdtr", "Idtr"))] = rng.getrandbits(128)
    for name, value in mode.items():
        try:
            vp.cpu.set_registers({f"HvX64Register{name}": value})
        except SidecarCommandError:
            continue


RUNS = 12
"""Runs of one guest."""


def attack(machine: Session, vp: HostedVp, rng: random.Random) -> Iterator[RunEnd]:
    """One guest, to its end; yields how each run ended."""
    canary = Canary(vp, rng)
    fill(vp, rng)
    guests.prepare(vp)
    set_state(vp, rng)
    advance = 0
    for _ in range(RUNS):
        give_something(vp, rng)
        if rng.random() < 0.2:
            vp.ring(1)
        outcome = vp.run(
            time_limit=machine.found.tsc_khz * rng.choice((1, 2, 5)),
            flags=rng.choice((0, RunFlags.CPUID_EXITS)),
            exception_intercepts=rng.choice((0, 0, rng.getrandbits(32), 0xFFFFFFFF)),
            advance_rip=advance,
            rax=rng.getrandbits(64),
        )
        yield outcome.end
        advance = rng.choice((0, 1, 2, 15))
        if outcome.message is not None and hasattr(outcome.message.body, "header"):
            advance = outcome.message.instruction_length or advance
        if rng.random() < 0.1:
            set_state(vp, rng)
    canary.check()
    assert machine.cpus[1].status == CpuStatus.IDLE


def give_something(vp: HostedVp, rng: random.Random) -> None:
    """An event or a wish for a window, sometimes."""
    choice = rng.random()
    registers = {}
    if choice < 0.15:
        registers = {"HvRegisterPendingEvent0": external_interrupt(rng.randrange(32, 256))}
    elif choice < 0.25:
        vector = rng.choice((0, 1, 3, 4, 6, 8, 13, 14))
        code = rng.getrandbits(16) if vector in (8, 13, 14) else None
        registers = {"HvRegisterPendingEvent0": exception(vector, code, parameter=rng.getrandbits(64))}
    elif choice < 0.4:
        registers = {"HvX64RegisterDeliverabilityNotifications": when_interruptible(rng.randrange(16))}
    if registers:
        vp.cpu.set_registers(registers)
