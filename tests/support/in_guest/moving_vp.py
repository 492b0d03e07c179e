"""A virtual processor that goes from CPU to CPU, each of which Linux has while it is away.

    moving_vp.py ROUNDS GUEST    GUEST: JSON of tests/support/moving_guest.py; prints what was seen, as JSON

In each round the guest leaves a first CPU in the middle of its work: SSE and AVX state, a device that has half of a
number, an exception and an interrupt that are not delivered yet, bits of the doorbell. A process of Linux runs on that
CPU while the guest goes on on a second one, moves to a third in an access to a device, and ends its work. Then Linux
lets the CPU go, and the guest moves back there.
"""

import hashlib
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

from sidecar.client import Sidecar
from sidecar.client.errors import LinuxRefused
from sidecar.client.vmm.exits import CancelledExit, Exit, MemoryExit, NotifiedExit, PortExit, TimeLimitExit
from sidecar.client.vmm.loaders.modes import Mode
from sidecar.client.vmm.loaders.raw import load_raw
from sidecar.client.vmm.machine import Machine
from sidecar.client.vmm.registers import Table
from sidecar.client.vmm.vp import Vp

ROUNDS, GUEST = int(sys.argv[1]), json.loads(sys.argv[2])
DATA = GUEST["DATA"]
MEMORY = 4 << 20
SECONDS = 120.0
FIRST = (1.0, -2.0, 3.0, 1024.0)
STEPS = (1.0, 3.0, -5.0, 0.25)
PROCESSOR = 38
"""Ref: proc(5), /proc/pid/stat, field 39."""


class Halves:
    """A device that takes a number in two halves."""

    def __init__(self) -> None:
        self.low: int | None = None
        self.whole = 0

    def write(self, offset: int, size: int, value: int) -> None:
        if self.low is None:
            self.low = value
        else:
            self.whole, self.low = self.low | value << 32, None

    def read(self, offset: int, size: int) -> int:
        return self.whole


class Model:
    """What the guest has to have computed."""

    def __init__(self) -> None:
        self.product, self.total, self.sum = 1, 0, 0

    def work(self, count: int) -> dict[str, Any]:
        """After `count` more steps."""
        low, factor = self.product & 0xFFFFFFFF, GUEST["FACTOR"]
        power = pow(factor, count, (factor - 1) << 64)
        self.product = (power * self.product + GUEST["ADDEND"] * ((power - 1) // (factor - 1))) % (1 << 64)
        self.total += count
        self.sum = (self.sum + count * (count + 1) // 2) % (1 << 64)
        lanes = [first + self.total * step for first, step in zip(FIRST, STEPS, strict=True)]
        return {"PRODUCT": self.product, "SUM": self.sum, "WHOLE": low | self.product >> 32 << 32, "LANES": lanes}


class Busy:
    """A process that computes on one CPU of Linux until it is told to end; it says how much, and what came out."""

    def __init__(self, cpu: int) -> None:
        told, self._tell = os.pipe()
        self._said, says = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._tell)
            os.sched_setaffinity(0, {cpu})
            os.set_blocking(told, False)
            count, digest = 0, b""
            while count == 0 or not ended(told):
                digest, count = hashlib.sha256(digest).digest(), count + 1
            where = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[PROCESSOR - 2])
            os.write(says, json.dumps([count, digest.hex(), where]).encode())
            os._exit(0)
        os.close(told)
        os.close(says)

    def end(self) -> tuple[bool, int]:
        """Was it right, and where did it run?"""
        os.close(self._tell)
        count, found, where = json.loads(os.read(self._said, 4096))
        os.close(self._said)
        os.waitpid(self._process, 0)
        digest = b""
        for _ in range(count):
            digest = hashlib.sha256(digest).digest()
        return digest.hex() == found, where


def ended(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


class Mover:
    def __init__(self, sidecar: Sidecar, machine: Machine) -> None:
        self.sidecar, self.machine = sidecar, machine
        self.device, self.model = Halves(), Model()
        machine.ports.add(range(GUEST["HALF_PORT"], GUEST["HALF_PORT"] + 4), self.device)
        machine.devices.add(range(GUEST["DEVICE"], GUEST["DEVICE"] + 8), self.device)
        self.cpus = [cpu.number for cpu in sidecar.commandable]
        self.vp = self._load(self.cpus[0])
        self.seen: dict[str, list[Any]] = {"refused": [], "moved in": [], "linux": [], "wrong": []}

    def _load(self, cpu: int) -> Vp:
        vp = self.machine.add_vp(cpu)
        load_raw(self.machine.memory, vp, bytes.fromhex(GUEST["code"]), Mode.LONG)
        vp.set(cr4=GUEST["CR4"], idtr=Table(GUEST["IDT"], 0xFFF))
        self.machine.memory.write(DATA + GUEST["LANES"], struct.pack("<8d", *FIRST, *STEPS))
        return vp

    def until(self, *kinds: type[Exit]) -> Exit:
        """Runs the guest and handles its exits, but the first of these kinds."""
        while True:
            exit = self.vp.run(seconds=SECONDS)
            if isinstance(exit, kinds):
                return exit
            stop = self.machine.handle(self.vp, exit)
            if isinstance(exit, TimeLimitExit) or stop is not None:
                raise RuntimeError(f"{self.vp}: {exit}, {stop}")

    def move(self, cpu: int, when: Exit) -> None:
        self.machine.move_vp(self.vp, cpu)
        self.seen["moved in"].append(type(when).__name__)

    def round(self, number: int) -> None:
        first, second, third = (self.cpus[(number + place) % len(self.cpus)] for place in range(3))
        self.machine.handle(self.vp, self.until(PortExit))  # the device has half of a number
        in_work = self.vp.run(seconds=0.01)
        self.refuse(first)
        self.vp.notify(1 << number % 64)
        self.vp.fault(6)
        self.vp.interrupt(GUEST["VECTOR"])
        self.move(second, in_work)
        self.sidecar.cpu(first).convert()
        busy = Busy(first)
        bits = self.vp.run(seconds=SECONDS)
        self.check("bits", bits, NotifiedExit(bits.rip, 1 << number % 64))
        self.check("still at work", type(self.vp.run(seconds=0.05)), TimeLimitExit)
        self.machine.memory.write(DATA + GUEST["GO"], b"\1")
        access = self.until(MemoryExit)
        self.move(third, access)
        self.machine.handle(self.vp, access)
        done = self.until(PortExit)
        self.machine.handle(self.vp, done)
        self.results(number + 1)
        right, where = busy.end()
        self.seen["linux"].append(where == first)
        self.check("a process of Linux", right, True)
        self.sidecar.cpu(first).give_back()
        self.move(first, done)
        self.move(second, done)  # where the next round begins

    def refuse(self, cpu: int) -> None:
        """Linux does not get a CPU with a virtual processor, whether it runs or not, and neither is disturbed."""
        for running in (False, True):
            if running and self.vp.start(seconds=SECONDS) is not None:
                raise RuntimeError(f"{self.vp} does not run")
            try:
                self.sidecar.cpu(cpu).convert()
            except LinuxRefused as error:
                self.seen["refused"].append(str(error))
            if running:
                self.vp.stop()
                self.check("a stop", type(self.vp.finish()), CancelledExit)

    def results(self, rounds: int) -> None:
        got = self.word("COUNT")
        expected = {**self.model.work(got), "EXCEPTIONS": rounds, "INTERRUPTS": rounds}
        for name, value in expected.items():
            self.check(name, self.lanes() if name == "LANES" else self.word(name), value)
        self.check("work", got > 0, True)

    def word(self, name: str) -> int:
        return int.from_bytes(self.machine.memory.read(DATA + GUEST[name], 8), "little")

    def lanes(self) -> list[float]:
        return list(struct.unpack("<4d", self.machine.memory.read(DATA + GUEST["LANES"], 32)))

    def check(self, what: str, got: object, expected: object) -> None:
        if got != expected:
            self.seen["wrong"].append(f"{what} on {self.vp}: {got!r}, expected {expected!r}")


def main() -> None:
    with Sidecar.open() as sidecar, sidecar.machine(memory=MEMORY) as machine:
        mover = Mover(sidecar, machine)
        for number in range(ROUNDS):
            mover.round(number)
        print(json.dumps(mover.seen))


main()
