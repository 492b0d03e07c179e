"""Just enough of gdb's remote protocol to stop a machine at an instruction and to let single CPUs go on.

    with Gdb(path) as gdb:                      # QEMU: -gdb unix:PATH,server=on,wait=off; connecting stops the machine
        gdb.break_at(address)
        gdb.resume()
        assert gdb.wait_stop(seconds=5) == 3    # CPU 3 is about to execute it
        gdb.resume(0)                           # the boot CPU alone

Ref: GDB manual, appendix E "Remote Serial Protocol"; QEMU's thread ids are CPU numbers plus one.
"""

import re
import select
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

ANSWER_SECONDS = 10.0
INTERRUPT, ACKNOWLEDGE = b"\x03", b"+"
CHECKSUM_BYTES = 2


class GdbError(Exception):
    """QEMU's stub answered otherwise than expected, or not at all."""


class Gdb:
    """The connection. While it lasts, breakpoints stop every CPU; when it ends, the machine runs on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = b""
        self._running = False

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(str(self._path))
        self._ask("vCont?")
        self._ask("?")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._socket:
            if kind is None:
                if self._running:
                    self.interrupt()
                self._expect_ok("D")

    def break_at(self, address: int) -> None:
        self._expect_ok(f"Z1,{address:x},1")

    def clear(self, address: int) -> None:
        self._expect_ok(f"z1,{address:x},1")

    def write_physical(self, pa: int, data: bytes) -> None:
        """Changes code: QEMU forgets what it has translated of it."""
        self._expect_ok("Qqemu.PhyMemMode:1")
        self._expect_ok(f"M{pa:x},{len(data):x}:{data.hex()}")
        self._expect_ok("Qqemu.PhyMemMode:0")

    def resume(self, *cpus: int) -> None:
        """Lets these CPUs run, all if none is named; the others stay where they are."""
        self._send("vCont" + ("".join(f";c:{cpu + 1:x}" for cpu in cpus) or ";c"))
        self._running = True

    def has_stopped(self, *, seconds: float) -> bool:
        """Whether something stops the machine within that time."""
        while not self._has_packet() and select.select([self._socket], [], [], seconds)[0]:
            self._read_more()
        return self._has_packet()

    def wait_stop(self, *, seconds: float) -> int:
        """The CPU whose breakpoint, or whose interruption, has stopped the machine. Raises GdbError."""
        self._socket.settimeout(seconds)
        try:
            answer = self._receive()
        finally:
            self._socket.settimeout(ANSWER_SECONDS)
        if not (match := re.match(r"T05.*thread:(?:p\w+\.)?(\w+);|T02.*thread:(?:p\w+\.)?(\w+);", answer)):
            raise GdbError(f"expected a stop, got {answer!r}")
        self._running = False
        return int(match.group(1) or match.group(2), 16) - 1

    def interrupt(self) -> None:
        """Stops all CPUs that run."""
        self._socket.sendall(INTERRUPT)
        self.wait_stop(seconds=ANSWER_SECONDS)

    def _expect_ok(self, command: str) -> None:
        if (answer := self._ask(command)) != "OK":
            raise GdbError(f"{command}: expected OK, got {answer!r}")

    def _ask(self, command: str) -> str:
        self._send(command)
        return self._receive()

    def _send(self, command: str) -> None:
        body = command.encode()
        self._socket.sendall(b"$%s#%02x" % (body, sum(body) % 256))

    def _receive(self) -> str:
        while not self._has_packet():
            self._read_more()
        body, _, self._buffer = self._buffer.partition(b"#")
        self._buffer = self._buffer[CHECKSUM_BYTES:]
        self._socket.sendall(ACKNOWLEDGE)
        return body.lstrip(b"$").decode()

    def _has_packet(self) -> bool:
        self._buffer = self._buffer.lstrip(ACKNOWLEDGE)
        return b"#" in self._buffer[:-CHECKSUM_BYTES]

    def _read_more(self) -> None:
        try:
            data = self._socket.recv(4096)
        except TimeoutError:
            raise GdbError(f"no answer; received {self._buffer!r}") from None
        if not data:
            raise GdbError("QEMU has ended")
        self._buffer += data
