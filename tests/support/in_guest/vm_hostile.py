"""Processes that make the driver's calls for virtual processors with random arguments, and are killed at any moment.

    vm_hostile.py ROUNDS SEED    prints how often each outcome was had, as JSON
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import select
import signal
import struct
import sys
import threading
import time
from collections import Counter

from sidecar.layout import CommandPage, SidecarCommand
from sidecar.layout.ioctl import Doorbell, DoorbellFd, Ioctl, MemoryMap, MemoryUnmap, VmIoctl, VpCreate, VpIoctl
from sidecar.layout.run import VpRun

PAGE = 4096
STRIDE = 2 * PAGE
CPUS = 4
PROCESSES = 3
THREADS = 2
RESET_PAGE = (1 << 32) - PAGE
START_SECONDS = 1.0
CODE = bytes.fromhex("ff060010ebfa")  # inc word ptr [0x1000]; jmp back


class Hostile:
    """One process's random life."""

    def __init__(self, seed: int, report: int) -> None:
        self.chance, self.report = random.Random(seed), report
        self.node = os.open("/dev/sidecar0", os.O_RDWR | os.O_NONBLOCK)
        self.memory = mmap.mmap(-1, 600 * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.memory[PAGE - 16 : PAGE - 16 + len(CODE)] = CODE
        self.vms = [fcntl.ioctl(self.node, VpIoctl.VM_CREATE, 0)]
        self.events = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.pages: dict[int, mmap.mmap] = {}

    def live(self) -> None:
        acts = (
            self.map, self.map, self.unmap, self.claim, self.create, self.destroy, self.start, self.start, self.ring,
            self.bind, self.signal, self.command, self.open_vm, self.close_vm, self.garbage, self.scribble,
        )  # fmt: skip
        while True:
            act = self.chance.choice(acts)
            try:
                act()
                said = "OK"
            except OSError as error:
                said = errno.errorcode[error.errno or 0]
            os.write(self.report, f"{act.__name__} {said}\n".encode())

    def cpu(self) -> int:
        return self.chance.randrange(CPUS + 2)

    def vm(self) -> int:
        return self.chance.choice([*self.vms] * 8 + [self.node, 999])

    def gpa(self) -> int:
        good = (0x1000, 0x1000, 0, 0x200000, RESET_PAGE, RESET_PAGE, 1 << 40, (1 << 48) - PAGE)
        return self.chance.choice((*good, 1 << 48, 3, (1 << 64) - PAGE))

    def size(self) -> int:
        return self.chance.choice((PAGE, PAGE, PAGE, 2 * PAGE, 512 * PAGE, 0, 8, 1 << 40, (1 << 64) - PAGE))

    def map(self) -> None:
        page = self.chance.choice((0, 0, 1, 5, 600, -1))
        rights = self.chance.choice((7, 7, 7, 3, 5, 1, 0, 9))
        at = self.address + page * PAGE
        wanted = MemoryMap.build(gpa=self.gpa(), size=self.size(), user_address=at, rights=rights)
        fcntl.ioctl(self.vm(), VmIoctl.MAP, wanted)

    def unmap(self) -> None:
        fcntl.ioctl(self.vm(), VmIoctl.UNMAP, MemoryUnmap.build(gpa=self.gpa(), size=self.size()))

    def claim(self) -> None:
        cpu = self.cpu()
        fcntl.ioctl(self.node, Ioctl.CLAIM, cpu)
        self.pages[cpu] = mmap.mmap(self.node, STRIDE, offset=cpu * STRIDE)

    def create(self) -> None:
        fcntl.ioctl(self.node, VpIoctl.VP_CREATE, VpCreate.build(cpu=self.cpu(), vm_fd=self.vm()))

    def destroy(self) -> None:
        fcntl.ioctl(self.node, VpIoctl.VP_DESTROY, self.cpu())

    def start(self) -> None:
        cpu = self.cpu()
        if cpu in self.pages:
            self.pages[cpu][:4] = struct.pack("<I", SidecarCommand.RUN_VP)
            limit = int(CommandPage.run) + int(VpRun.time_limit)
            self.pages[cpu][limit : limit + 8] = struct.pack("<Q", self.chance.choice((0, 100_000)))
        fcntl.ioctl(self.node, Ioctl.START, cpu)

    def command(self) -> None:
        what = self.chance.choice((Ioctl.STOP, Ioctl.STOP, Ioctl.STOP, Ioctl.RELEASE, Ioctl.RESTART, None))
        if what is None:
            os.read(self.node, 64)
        else:
            fcntl.ioctl(self.node, what, self.cpu())

    def ring(self) -> None:
        bits = self.chance.getrandbits(64)
        fcntl.ioctl(self.node, VpIoctl.DOORBELL, Doorbell.build(cpu=self.cpu(), bits=bits))

    def bind(self) -> None:
        event = self.chance.choice((*self.events, 0xFFFFFFFF, self.node))
        bit = self.chance.choice((0, 1, 63, 64))
        fcntl.ioctl(self.node, VpIoctl.DOORBELL_FD, DoorbellFd.build(cpu=self.cpu(), eventfd=event, bit=bit))

    def signal(self) -> None:
        os.eventfd_write(self.chance.choice(self.events), 1)

    def open_vm(self) -> None:
        if len(self.vms) < 4:
            self.vms.append(fcntl.ioctl(self.node, VpIoctl.VM_CREATE, 0))

    def close_vm(self) -> None:
        if len(self.vms) > 1:
            os.close(self.vms.pop(self.chance.randrange(1, len(self.vms))))

    def garbage(self) -> None:
        request = self.chance.choice((*VpIoctl, *VmIoctl))
        fcntl.ioctl(self.chance.choice((self.node, self.vm())), request, self.chance.randbytes(32))

    def scribble(self) -> None:
        """Over the command page, while whatever may be running."""
        for page in list(self.pages.values()):
            at = self.chance.randrange(4, PAGE)
            page[at : at + 8] = self.chance.randbytes(8)


def attack(seed: int, report: int) -> None:
    """Never returns. The threads share their files, memory and CPUs."""
    one = Hostile(seed, report)
    for _ in range(THREADS - 1):
        threading.Thread(target=one.live, daemon=True).start()
    one.live()


def listen(told: int, until: float, heard: bytearray) -> None:
    while (left := until - time.monotonic()) > 0:
        if select.select([told], [], [], left)[0]:
            heard += os.read(told, 1 << 16)


def main(rounds: int, seed: int) -> Counter[str]:
    chance, heard = random.Random(seed), bytearray()
    for _ in range(rounds):
        told, report = os.pipe()
        children = []
        for _ in range(PROCESSES):
            child = os.fork()
            if child == 0:
                attack(chance.getrandbits(32), report)
            chance.getrandbits(32)
            children.append(child)
        os.close(report)
        listen(told, time.monotonic() + START_SECONDS + chance.random(), heard)
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
        os.close(told)
    return Counter(line for line in heard.decode().splitlines() if " " in line)


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
