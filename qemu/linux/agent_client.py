"""Commands in the guest, from the host: the other end of `guest/agent.py`, over the guest's second serial port.

    guest = Guest(machine)
    guest.wait_ready(seconds=30)
    guest.run("uname -r")                        -> Result(status=0, stdout="6.1.0-56-cloud-amd64\\n", stderr="")
    command = guest.start(["sleep", "100"]);  command.kill();  command.wait(5).status     -> -9
    guest.put(Path("tool.py"), "/root/tool.py")
    guest.log()                                  what dmesg prints

A string is run by the guest's /bin/sh, a list as it is. Every wait is bounded; a command that does not end in time is
killed and raises WaitedInVain. A guest that dies raises MachineDied with the console's last lines; one that stands
still, as after a panic, is asked whether it is there, and raises GuestError when it has been silent for too long.
"""

import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sidecar.qemu.waiting import WaitedInVain

RUN_SECONDS = 60.0
LOOK_SECONDS = 0.2
KILL_SECONDS = 10.0
QUIET_SECONDS = 20.0
"""So long may the agent have nothing to say before it is asked."""

SILENT_SECONDS = 100.0
"""So long it may take to answer: a busy guest on a busy host is slow, a dead one says nothing at all."""

PUT_BYTES = 16 << 10
PUT_SECONDS = 30.0
"""For one piece of a file."""

Stream = str
OnOutput = Callable[[Stream, bytes], None]


class GuestError(Exception):
    """The agent cannot do what was asked, or is gone; one sentence says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended: its exit status, negative for the signal that ended it, and what it printed."""

    status: int
    stdout: str
    stderr: str

    def check(self) -> "Result":
        """Itself. Raises GuestError for any status but 0."""
        if self.status != 0:
            said = self.stderr.strip() or self.stdout.strip()[-400:] or "nothing was printed"
            raise GuestError(f"the guest's command ended with status {self.status}: {said}")
        return self


class GuestCommand:
    """A command that was started. `on_output` gets each piece of its output, on the thread that receives it."""

    def __init__(self, guest: "Guest", number: int, what: str, on_output: OnOutput | None) -> None:
        self._guest, self._number, self._on_output = guest, number, on_output
        self.what = what
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._over = threading.Event()
        self._status: int | None = None
        self._error: str | None = None

    @property
    def stdout(self) -> bytes:
        """What has come so far."""
        return bytes(self._output["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self._output["stderr"])

    @property
    def running(self) -> bool:
        return not self._over.is_set()

    def wait(self, seconds: float = RUN_SECONDS) -> Result:
        """The result. Raises WaitedInVain, leaving the command running; GuestError, MachineDied."""
        waited = 0.0
        while not self._over.wait(min(LOOK_SECONDS, max(seconds - waited, 0))):
            self._guest.machine.check()
            self._guest.look()
            waited += LOOK_SECONDS
            if waited >= seconds:
                error = WaitedInVain(seconds, f"the guest's command {self.what!r} to end")
                error.add_note(f"it has printed: {self.stdout[-400:]!r}, and as errors: {self.stderr[-400:]!r}")
                raise error
        if self._status is None:
            raise self._guest.loss(self._error or "the agent did not say how the command ended")
        return Result(self._status, _text(self.stdout), _text(self.stderr))

    def kill(self) -> None:
        """Ends the command and what it has started."""
        self._guest.send({"op": "kill", "id": self._number})

    def take(self, message: dict[str, Any]) -> bool:
        """A message of the agent's about this command; true if it was the last."""
        for stream, output in self._output.items():
            if stream in message:
                data = base64.b64decode(message[stream])
                output += data
                if self._on_output is not None:
                    self._on_output(stream, data)
        if "exit" in message or "error" in message:
            self.end(message.get("exit"), message.get("error"))
        return self._over.is_set()

    def end(self, status: int | None, error: str | None) -> None:
        self._status, self._error = status, error
        self._over.set()


class AgentsMachine(Protocol):
    """What the agent's host end needs of a machine; `qemu.machine.Machine` is one."""

    @property
    def relay(self) -> socket.socket: ...
    def check(self) -> None: ...
    def wait_exit(self, *, seconds: float) -> int: ...


class Guest:
    """The guest's agent. One thread receives; every method may be called by any thread."""

    def __init__(self, machine: AgentsMachine) -> None:
        self.machine = machine
        self._lock = threading.Lock()
        self._commands: dict[int, GuestCommand] = {}
        self._last_number = 0
        self._ready = threading.Event()
        self._gone: str | None = None
        self._heard = time.monotonic()
        self._asked: float | None = None
        threading.Thread(target=self._receive, name="guest-agent", daemon=True).start()

    @property
    def ready(self) -> bool:
        """Has the agent started?"""
        return self._ready.is_set()

    def wait_ready(self, *, seconds: float) -> None:
        """Until the agent has started. Raises WaitedInVain, MachineDied."""
        waited = 0.0
        while not self._ready.wait(LOOK_SECONDS):
            self.machine.check()
            waited += LOOK_SECONDS
            if waited >= seconds:
                raise WaitedInVain(seconds, "the guest's agent to start")

    def run(
        self, command: str | Sequence[str], timeout: float = RUN_SECONDS, on_output: OnOutput | None = None
    ) -> Result:
        """Runs a command to its end. Raises WaitedInVain, and has killed it then; GuestError, MachineDied."""
        running = self.start(command, on_output)
        try:
            return running.wait(timeout)
        except WaitedInVain:
            running.kill()
            with contextlib.suppress(WaitedInVain):
                running.wait(KILL_SECONDS)
            raise

    def start(self, command: str | Sequence[str], on_output: OnOutput | None = None) -> GuestCommand:
        """Starts a command and returns at once."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        what = command if isinstance(command, str) else " ".join(argv)
        return self._request({"op": "run", "argv": argv}, what, on_output)

    def put(self, source: Path | bytes, path: str, *, mode: int | None = None) -> None:
        """Writes a file in the guest, in pieces. Raises GuestError, WaitedInVain, MachineDied."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        if mode is None:
            mode = 0o644 if isinstance(source, bytes) else source.stat().st_mode & 0o777
        for offset in range(0, max(len(data), 1), PUT_BYTES):
            piece = base64.b64encode(data[offset : offset + PUT_BYTES]).decode()
            message = {"op": "put", "path": path, "data": piece, "append": offset > 0, "mode": mode}
            self._request(message, f"write {path}", None).wait(PUT_SECONDS)

    def read(self, path: str, timeout: float = RUN_SECONDS) -> bytes:
        """The content of a file in the guest. Raises GuestError, WaitedInVain, MachineDied."""
        command = self.start(["cat", path])
        command.wait(timeout).check()
        return command.stdout

    def log(self) -> str:
        """The kernel's log."""
        return self.run(["dmesg"]).check().stdout

    def power_off(self, *, seconds: float = 30.0) -> None:
        """Ends the machine in an orderly way. Raises WaitedInVain if it does not end."""
        self.send({"op": "run", "id": 0, "argv": ["poweroff", "-f"]})
        self.machine.wait_exit(seconds=seconds)

    # --- messages --------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Asks an agent that has been quiet whether it is there. Raises GuestError if it was asked and is silent."""
        now = time.monotonic()
        with self._lock:
            if self._asked is not None and self._heard < self._asked:
                if now - self._asked < SILENT_SECONDS:
                    return
                raise GuestError(f"the guest's agent does not answer any more: it was asked {SILENT_SECONDS:g} s ago")
            if now - self._heard < QUIET_SECONDS:
                return
            self._asked = now
        self.send({"op": "look", "id": 0})

    def send(self, message: dict[str, Any]) -> None:
        """One message to the agent. Raises GuestError, MachineDied."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                self.machine.relay.sendall(line)
        except OSError as error:
            raise self.loss(f"the guest's serial port is closed ({error.strerror})") from error

    def loss(self, reason: str) -> GuestError:
        """The error to raise for a command that is lost. Raises MachineDied itself if the machine has ended."""
        if self._gone is not None:
            with contextlib.suppress(WaitedInVain):
                self.machine.wait_exit(seconds=KILL_SECONDS)
        self.machine.check()
        return GuestError(reason)

    def _request(self, message: dict[str, Any], what: str, on_output: OnOutput | None) -> GuestCommand:
        with self._lock:
            self._last_number += 1
            number = self._last_number
            command = self._commands[number] = GuestCommand(self, number, what, on_output)
            gone = self._gone
        if gone is not None:
            raise self.loss(gone)
        self.send({"id": number, **message})
        return command

    def _receive(self) -> None:
        """The life of the receiving thread: until the socket is closed."""
        rest = b""
        while True:
            try:
                data = self.machine.relay.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                self._end_all("the machine has ended", gone=True)
                return
            self._heard = time.monotonic()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            if self.ready:  # before that, whatever came from the firmware
                self._end_all(f"the agent sent what is no message: {line[:80]!r}")
            return
        if "hello" in message:
            self._end_all("the guest's agent has started anew, and the command is gone")
            self._ready.set()
            return
        with self._lock:
            command = self._commands.get(message.get("id", 0))
        if command is not None and command.take(message):
            with self._lock:
                del self._commands[message["id"]]

    def _end_all(self, reason: str, *, gone: bool = False) -> None:
        with self._lock:
            if gone:
                self._gone = reason
            commands, self._commands = list(self._commands.values()), {}
        for command in commands:
            command.end(None, reason)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
