"""Guests for virtual processors: programs of a few instructions, in the mode they want, on a machine without Linux.

    vp.memory[CODE:] = program("mov eax, 5\\n hlt")
    start_long(vp)
    outcome = vp.run()

Guest memory is flat from 0 on; the last 64 KiB below 4 GiB show its first, so that the reset vector is at 0xFFF0.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from sidecar.builder.asm import Routine, assemble
from sidecar.layout import NAMES
from sidecar.layout.hv_messages import HvMessageType
from sidecar.layout.run import RunEnd
from sidecar.layout.x86 import Cr0, Cr4, Efer, Pte
from sidecar.protocol.vp_run import Message, Outcome
from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support import cpus

PML4, PDPT, PD = 0x1000, 0x2000, 0x3000
GDT, IDT = 0x4000, 0x5000
STACK = 0x7000
"""Grows down from here."""
CODE, DATA = 0x8000, 0xA000
MEMORY_BYTES = 0x10000
RESET_VECTOR, RESET_BASE = 0xFFF0, 0xFFFF0000
DESCRIPTORS = (0, 0x00209B0000000000, 0x00CF93000000FFFF, 0x00CF9B000000FFFF)
"""Null, 64-bit code, data, 32-bit code."""
CODE64, DATA_SEGMENT, CODE32 = 0x08, 0x10, 0x18
TLFS_CODE64, TLFS_DATA, TLFS_CODE32 = 0x209B, 0xC093, 0xC09B
"""HvX64SegmentRegister.attributes of the three."""


def program(text: str, *, bits: int = 64, at: int = CODE) -> bytes:
    """The machine code of a guest that will lie at `at`."""
    source = f"\nguest:\n            .code{bits}\n{text}\n"
    linked = assemble([Routine("guest", source)], names=NAMES).link({".text": at}, allow_absolute=True)
    return linked.sections[".text"]


@contextmanager
def virtual_processor(session: Session, number: int = 1, *, memory_bytes: int = MEMORY_BYTES) -> Iterator[HostedVp]:
    """A virtual processor on a CPU of the session, in its reset state, with the usual tables in its memory."""
    with HostedVp(session, number, memory_bytes=memory_bytes) as vp:
        vp.tables.map(RESET_BASE, vp.memory_pa, MEMORY_BYTES)
        write_tables(vp)
        yield vp


def write_tables(vp: HostedVp) -> None:
    """Identity-mapping page tables for 1 GiB, the GDT, and an IDT whose gates lead to HLT instructions at `trap(n)`."""
    leaf = Pte.PRESENT | Pte.WRITE | Pte.USER
    struct.pack_into("<Q", vp.memory, PML4, PDPT | leaf)
    struct.pack_into("<Q", vp.memory, PDPT, PD | leaf)
    struct.pack_into("<512Q", vp.memory, PD, *(n << 21 | leaf | Pte.LARGE for n in range(512)))
    struct.pack_into(f"<{len(DESCRIPTORS)}Q", vp.memory, GDT, *DESCRIPTORS)
    for vector in range(256):
        struct.pack_into("<HHBBHII", vp.memory, IDT + 16 * vector, trap(vector), CODE64, 0, 0x8E, 0, 0, 0)
        vp.memory[trap(vector)] = 0xF4


TRAPS = 0xB000


def trap(vector: int) -> int:
    """Where the gate of a vector leads: to a HLT."""
    return TRAPS + vector


def prepare(vp: HostedVp) -> None:
    """Makes the CPU set the virtual processor up, without entering the guest."""
    vp.ring(1)
    outcome = vp.run()
    assert (outcome.end, outcome.guest_entries, outcome.notifications) == (RunEnd.NOTIFIED, 0, 1)


def load(vp: HostedVp, text: str, *, bits: int = 64, at: int = CODE) -> None:
    """Puts a program into the guest's memory."""
    code = program(text, bits=bits, at=at)
    vp.memory[at : at + len(code)] = code


def start_real(vp: HostedVp, text: str) -> None:
    """A real-mode program at CODE, reached from the reset vector."""
    load(vp, text, bits=16)
    vp.memory[RESET_VECTOR : RESET_VECTOR + 5] = b"\xea" + struct.pack("<HH", CODE, 0)


def start_long(vp: HostedVp, text: str, *, at: int = CODE) -> None:
    """A 64-bit program, started in 64-bit mode with the tables of write_tables, interrupts off."""
    load(vp, text, at=at)
    prepare(vp)
    vmcb = vp.vmcb
    vmcb.cr0 = Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.PG
    vmcb.cr3 = PML4
    vmcb.cr4 = Cr4.PAE | Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE
    vmcb.efer = Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE | Efer.SVME
    vmcb.gdtr.base, vmcb.gdtr.limit = GDT, 8 * len(DESCRIPTORS) - 1
    vmcb.idtr.base, vmcb.idtr.limit = IDT, 256 * 16 - 1
    vmcb.cs.selector, vmcb.cs.attributes, vmcb.cs.limit, vmcb.cs.base = CODE64, 0x29B, 0xFFFFFFFF, 0
    for name in ("ds", "es", "ss", "fs", "gs"):
        segment = getattr(vmcb, name)
        segment.selector, segment.attributes, segment.limit, segment.base = DATA_SEGMENT, 0xC93, 0xFFFFFFFF, 0
    vmcb.rip, vmcb.rsp, vmcb.rflags = at, STACK, 2


def message(outcome: Outcome, kind: HvMessageType) -> Message:
    """The message of a run that ended with this intercept."""
    assert outcome.end is RunEnd.INTERCEPT
    assert outcome.message is not None
    assert outcome.message.type is kind, f"{outcome.message.type.name}: {outcome.message.body}"
    return outcome.message


def halted(outcome: Outcome) -> Outcome:
    """The run ended at a HLT; the outcome again."""
    message(outcome, HvMessageType.X64_HALT)
    return outcome


def asleep(vp: HostedVp) -> HostedVp:
    """The same, once its CPU sleeps: a request's interrupt then comes before the guest runs, and ends no entry."""
    wait_until(
        lambda: vp.session.machine.registers(vp.cpu.number).halted,
        seconds=cpus.SECONDS, what=f"CPU {vp.cpu.number} to sleep",
    )  # fmt: skip
    return vp


def halted_at(outcome: Outcome, rip: int) -> Outcome:
    assert halted(outcome).rip == rip, f"HLT at {outcome.rip:#x}, expected {rip:#x}"
    return outcome


def quad(vp: HostedVp, at: int) -> int:
    """Eight bytes of the guest's memory."""
    return int.from_bytes(vp.memory[at : at + 8], "little")


def wait_until_more(counter: memoryview, than: int) -> None:
    """Until the guest has counted on."""
    wait_until(lambda: counter[0] > than, seconds=cpus.SECONDS, what="the guest to count")


COUNT = f"mov edi, {DATA}\n again: inc qword ptr [rdi]\n jmp again"
"""A guest that counts at DATA for ever."""


def wait_for_guest(vp: HostedVp, at: int, old: int = 0) -> None:
    """Until the guest has stored something else than `old`."""
    wait_until(lambda: quad(vp, at) != old, seconds=cpus.SECONDS, what=f"the guest to store at {at:#x}")
