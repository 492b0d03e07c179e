"""A guest's agent without a guest: the program itself on this host, its serial port a pseudo-terminal."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.qemu.linux import own_files
from sidecar.qemu.linux.agent_client import Guest
from sidecar.qemu.machine import MachineDied

AGENT = own_files.GUEST / "agent.py"


class AgentMachine:
    """Stands in for a machine: `relay` leads to the agent; `end` ends it as a machine that dies does."""

    def __init__(self) -> None:
        self.relay, self._inside = socket.socketpair()
        self._port, port = os.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", AGENT, os.ttyname(port)],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
        )  # fmt: skip
        self._held = port
        self._wire = threading.Thread(target=self._carry, daemon=True)
        self._stop, self._stopped = os.pipe()
        self._wire.start()
        self.alive = True

    def check(self) -> None:
        if not self.alive:
            raise MachineDied("the machine has died")

    def wait_exit(self, *, seconds: float) -> int:
        return self._process.wait(seconds)

    def end(self) -> None:
        if not self.alive:
            return
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)
        os.write(self._stopped, b"x")
        self._wire.join(10)
        for file in (self._port, self._held, self._stop, self._stopped):
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self.relay.close()

    def _carry(self) -> None:
        """Bytes between socket and pseudo-terminal, until the end."""
        inside = self._inside.fileno()
        with self._inside:
            while True:
                ready, _, _ = select.select([inside, self._port, self._stop], [], [])
                if self._stop in ready:
                    return
                if self._port in ready:
                    self._inside.sendall(os.read(self._port, 1 << 16))
                if inside in ready:
                    data = memoryview(self._inside.recv(1 << 10))
                    while data:
                        data = data[os.write(self._port, data) :]


def agent_guest(machine: AgentMachine) -> Guest:
    guest = Guest(machine)
    guest.wait_ready(seconds=20)
    return guest


def processes_with(word: str) -> list[int]:
    """The processes whose command line has `word` in it."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and word.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found
