"""Runs guests on a sidecar CPU and tells of every exit: the one half of a comparison, kvm_run.c is the other.

    vp_run.py CPU CPUID ROM GUEST...

Writes what CPUID answers to a guest into the file CPUID, and prints the guests' exits, both as kvm_run.c has them.
Registers are those of VpSnapshot, under the names of the TLFS; `at` is where the guest stood when it exited.
"""

import json
import sys
from pathlib import Path

from sidecar.client import Sidecar
from sidecar.client.vmm.answers import Answer
from sidecar.client.vmm.exits import CpuidExit, Exit, HaltExit, MemoryExit, MsrExit, PortExit, WindowExit
from sidecar.client.vmm.machine import Machine
from sidecar.client.vmm.registers import Kind, Segment, register
from sidecar.client.vmm.vp import Vp
from sidecar.layout.ioctl import GuestRights
from sidecar.layout.x86 import Rflags

PAGE = 4096
ROM_ADDRESS = (1 << 32) - PAGE
MOST_EXITS = 1000
SECONDS = 30.0
INTERRUPT_PORT = 0xE1
"""A vector that is written here is an interrupt after this exit."""
WAKING_VECTOR = 0x20
"""What ends a HLT."""

LEAVES = [(leaf, 0) for leaf in (0, 1, 2, 7, *range(0x80000000, 0x80000009))] + [(0xD, n) for n in range(32)]
LEGACY = 3
"""In an XSAVE header: x87 and SSE, which are always given."""

CPUID = b"\x0f\xa2"
MASK_64 = (1 << 64) - 1


def answer(address: int, size: int, count: int) -> int:
    """What a read gets: of `size` bytes at `address`, the `count`th of this guest."""
    value = (address + 1) * 0x9E3779B97F4A7C15 + count * 0xBF58476D1CE4E5B9 & MASK_64
    value ^= value >> 29
    return value & (1 << 8 * size) - 1


class Recorder:
    """Stands at every port, address and MSR of one guest."""

    def __init__(self, machine: Machine, vp: Vp) -> None:
        self.machine, self.vp = machine, vp
        self.accesses: list[tuple[str, int, int, int]] = []
        self.vector = self._answered = 0
        machine.ports.add(range(1 << 16), Everything(self, "in", "out"))
        machine.devices.add(range(1 << 40), Everything(self, "read", "write"))
        machine.msrs.add(range(1 << 32), Everything(self, "rdmsr", "wrmsr"))

    def read(self, what: str, address: int, size: int) -> int:
        value = answer(address, size, self._answered)
        self._answered += 1
        self.accesses.append((what, address, size, value))
        return value

    def write(self, what: str, address: int, size: int, value: int) -> None:
        self.accesses.append((what, address, size, value))
        if (what, address) == ("out", INTERRUPT_PORT):
            self.vector = value & 0xFF

    def run(self) -> None:
        tell(self.vp, "reset", [], 0)
        for _ in range(MOST_EXITS):
            exit = self.vp.run(seconds=SECONDS)
            if not self._one(exit):
                return

    def _one(self, exit: Exit) -> bool:
        """Tells of it; does the guest go on?"""
        self.accesses = []
        if isinstance(exit, HaltExit):
            self.vp.advance_rip(exit.length)
        stop = self.machine.handle(self.vp, exit)
        tell(self.vp, exit.reason, self.accesses, exit.rip)
        if isinstance(exit, HaltExit):
            on = bool(exit.rflags & Rflags.IF)
            if on and not self.vector:
                self.vector = WAKING_VECTOR
            self._interrupt()
            return self.vp.events.wake(on=on)
        self._interrupt()
        return stop is None and isinstance(exit, (PortExit, MemoryExit, MsrExit, WindowExit))

    def _interrupt(self) -> None:
        if self.vector:
            self.vp.interrupt(self.vector)
            self.vector = 0


class Everything:
    """A device that is everywhere."""

    def __init__(self, recorder: Recorder, read: str, write: str) -> None:
        self._recorder, self._read, self._write = recorder, read, write

    def read(self, offset: int, size: int) -> Answer:
        return self._recorder.read(self._read, offset, size)

    def write(self, offset: int, size: int, value: int) -> Answer:
        self._recorder.write(self._write, offset, size, value)
        return None


def tell(vp: Vp, exit: str, accesses: list[tuple[str, int, int, int]], at: int) -> None:
    state = vp.save()
    values = {name: shown(name, value) for name, value in state.registers.items()}
    xsave = state.fx_state + bytes([state.xsave[0] | LEGACY if state.xsave else LEGACY]) + state.xsave[1:]
    print(json.dumps({"exit": exit, "accesses": accesses, "at": at, "xsave": xsave.hex(), **values}), flush=True)


def shown(name: str, value: int) -> object:
    """A segment is [base, limit, selector, attributes], a table [base, limit]."""
    entry = register(name)
    if entry.kind is Kind.SEGMENT:
        return [value & MASK_64, value >> 64 & 0xFFFFFFFF, value >> 96 & 0xFFFF, value >> 112]
    return [value >> 64, value >> 48 & 0xFFFF] if entry.kind is Kind.TABLE else value


def cpuid(sidecar: Sidecar, cpu: int) -> str:
    """A line for each leaf and subleaf: asked of a guest at CPUID, whose exit tells what the sidecar would answer."""
    lines = ""
    with sidecar.machine(memory=PAGE) as machine:
        vp = machine.add_vp(cpu)
        machine.memory.write(0, CPUID)
        vp.cpuid_exits = True
        vp.set(cs=Segment(0, 0xFFFF, 0, 0x9B), rip=0)
        for leaf, subleaf in LEAVES:
            vp.set(rax=leaf, rcx=subleaf)
            exit = vp.run(seconds=SECONDS)
            assert isinstance(exit, CpuidExit), exit
            lines += " ".join(f"{value:x}" for value in (leaf, subleaf, *exit.default)) + "\n"
    return lines


def run(sidecar: Sidecar, cpu: int, rom: bytes, path: Path) -> None:
    image = path.read_bytes()
    with sidecar.machine(memory=len(image)) as machine:
        machine.memory.write(0, image)
        machine.map(ROM_ADDRESS, PAGE, GuestRights.READ | GuestRights.EXECUTE)
        machine.memory.view(ROM_ADDRESS, PAGE)[:] = rom
        print(json.dumps({"guest": str(path)}))
        Recorder(machine, machine.add_vp(cpu)).run()


def main(number: str, answers: str, rom: str, *guests: str) -> None:
    with Sidecar.open() as sidecar:
        Path(answers).write_text(cpuid(sidecar, int(number)))
        for guest in guests:
            run(sidecar, int(number), Path(rom).read_bytes(), Path(guest))


if __name__ == "__main__":
    main(*sys.argv[1:])
