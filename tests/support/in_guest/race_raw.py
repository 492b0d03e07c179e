"""A client of the driver without the client library: device file, page and ioctls, as any program may use them."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import select
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sidecar.client.device import SHARED_BYTES
from sidecar.layout import CommandPage, HvRegisterAssoc, RaiseKind, SidecarCommand
from sidecar.layout.command import GetSetVpRegisterRequest
from sidecar.layout.ioctl import Ioctl
from sidecar.protocol.commands import REGISTER_NUMBERS, raise_request, register_request
from tests.support.in_guest.race_tally import Tally

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")
COMMAND, HAS_ERROR, DATA = int(CommandPage.command), int(CommandPage.has_error), int(CommandPage.request_data)
SEQUENCE, COMPLETED = int(CommandPage.sequence), int(CommandPage.completed_sequence)
VALUE = GetSetVpRegisterRequest.SIZE + int(HvRegisterAssoc.value)

REGISTER = register_request([(REGISTER_NUMBERS["HvX64RegisterDr3"], 0)])
WAIT = raise_request(RaiseKind.WAIT_FOR_STOP)
UNKNOWN = 0x8888
KINDS = {"none": 60, "registers": 20, "unknown": 10, "stopped": 5, "raced": 5}
AT_ONCE = 20
"""Commands between two looks at what the others do."""

END_MS = 60_000


class RawCpu:
    """A CPU that a file of its own has claimed; `with` claims and closes. Raises OSError as the driver's errno says."""

    def __init__(self, node: int, index: int, cpu: int) -> None:
        self.cpu, self.sequence = cpu, 0
        self._file = os.open(f"/dev/sidecar{node}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._ask(Ioctl.CLAIM)
            self.page = mmap.mmap(self._file, SHARED_BYTES, offset=index * SHARED_BYTES)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.page.close()  # a mapping would keep the file open
        os.close(self._file)

    def fill(self, command: int, data: bytes = b"") -> None:
        self.sequence += 1
        self.page[DATA : DATA + len(data)] = data
        U64.pack_into(self.page, SEQUENCE, self.sequence)
        U32.pack_into(self.page, COMMAND, command)

    def run(self) -> None:
        self._ask(Ioctl.RUN)

    def start(self) -> None:
        self._ask(Ioctl.START)

    def stop(self) -> bool:
        return bool(self._ask(Ioctl.STOP))

    def wait(self) -> None:
        """The end of what was started, which the file tells once."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        assert poll.poll(END_MS), f"CPU {self.cpu}: its run was not told to have ended"
        told = os.read(self._file, 64)
        assert told == U32.pack(self.cpu), f"CPU {self.cpu}: its end was told as {told!r}"
        assert not poll.poll(0), f"CPU {self.cpu}: its end is told twice"

    def check(self, *, error: bool = False) -> None:
        """The answer is to this request, and is an error or none."""
        (completed,) = U64.unpack_from(self.page, COMPLETED)
        assert completed == self.sequence, f"CPU {self.cpu} completed {completed}, expected {self.sequence}"
        assert self.page[HAS_ERROR] == error, f"CPU {self.cpu}: has_error is {self.page[HAS_ERROR]}"

    def value(self) -> int:
        """What GET answered."""
        return int(U64.unpack_from(self.page, DATA + VALUE)[0])

    def _ask(self, what: Ioctl) -> int:
        return fcntl.ioctl(self._file, what, self.cpu)


class RawWorker:
    """Commands on one CPU until all have `enough`; raises at the first wrong answer."""

    def __init__(self, cpu: RawCpu, tally: Tally, enough: Callable[[], bool]) -> None:
        self.cpu, self.tally, self.enough = cpu, tally, enough
        self.dice, self.sets = random.Random(), 0

    def work(self) -> None:
        while not self.enough():
            kinds = self.dice.choices(list(KINDS), list(KINDS.values()), k=AT_ONCE)
            count = AT_ONCE + kinds.count("registers")
            self.tally.add("begun", count)
            for kind in kinds:
                self.do(kind)
            self.tally.add("answered", count)
            self.tally.add("refused", kinds.count("unknown"))
            self.tally.add("stopped", kinds.count("stopped"))

    def do(self, kind: str) -> None:
        cpu = self.cpu
        if kind == "registers":
            self.registers()
        elif kind in ("stopped", "raced"):
            cpu.fill(SidecarCommand.RAISE if kind == "stopped" else SidecarCommand.NONE, WAIT)
            cpu.start()
            stopped = cpu.stop()
            assert stopped or kind == "raced", f"CPU {cpu.cpu}: a command that waits for STOP was over before"
            cpu.wait()
            cpu.check()
        else:
            cpu.fill(UNKNOWN if kind == "unknown" else SidecarCommand.NONE)
            cpu.run()
            cpu.check(error=kind == "unknown")

    def registers(self) -> None:
        cpu, data = self.cpu, bytearray(REGISTER)
        self.sets += 1
        U64.pack_into(data, VALUE, self.sets)
        for command, request in ((SidecarCommand.SET_VP_REGISTERS, data), (SidecarCommand.GET_VP_REGISTERS, REGISTER)):
            cpu.fill(command, bytes(request))
            cpu.run()
            cpu.check()
        assert cpu.value() == self.sets, f"CPU {cpu.cpu} has {cpu.value():#x}, expected {self.sets:#x}"
