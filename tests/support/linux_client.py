"""A Linux guest in the tests of client and driver: used by sidecarctl and by programs, its log looked through."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sidecar.qemu.linux.agent_client import GuestCommand, Result
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import wait_until

PROGRAMS = Path(__file__).resolve().parent / "in_guest"
SECONDS = 60.0
CTL_PIPE = "/tmp/ctl"

COMPLAINT = re.compile(r"WARNING:|BUG:|Oops:|Call Trace|general protection fault|rcu.*stall|lockdep|No irq handler")


@dataclass(frozen=True, slots=True)
class Said:
    """What sidecarctl ended with; `data` is its JSON."""

    status: int
    out: str
    error: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class CtlServer:
    """One Python in a guest that is sidecarctl, call after call (in_guest/ctl_server.py)."""

    def __init__(self, session: LinuxSession) -> None:
        self._session, self._calls = session, 0
        session.guest.run(["rm", "-f", CTL_PIPE]).check()
        self.command = start_program(session, "ctl_server.py", CTL_PIPE)
        self._line(0, SECONDS)

    def call(self, arguments: tuple[str, ...], seconds: float) -> Said:
        self._calls += 1
        self._session.guest.put(json.dumps([self._calls, *arguments]).encode() + b"\n", CTL_PIPE)
        number, status, out, error = json.loads(self._line(self._calls, seconds))
        assert number == self._calls
        return Said(status, out, error)

    def _line(self, number: int, seconds: float) -> bytes:
        """A line of what it has printed; it ends only when the machine does."""

        def look() -> bytes | None:
            self._session.machine.check()
            lines = self.command.stdout.split(b"\n")
            assert self.command.running, self.command.stderr
            return lines[number] if number < len(lines) - 1 else None

        return wait_until(look, seconds=seconds, what=f"call {number} of sidecarctl", interval=0.01)


_servers: WeakKeyDictionary[LinuxSession, CtlServer] = WeakKeyDictionary()


def ctl(session: LinuxSession, *arguments: str, seconds: float = SECONDS) -> Said:
    """What sidecarctl does with these arguments; the program itself is called in tests/boot/test_linux_cli.py."""
    server = _servers.get(session)
    if server is None or not server.command.running:
        server = _servers[session] = CtlServer(session)
    return server.call(arguments, seconds)


def ctl_json(session: LinuxSession, *arguments: str) -> Any:
    """The data of a command that succeeds."""
    said = ctl(session, *arguments, "--json")
    assert said.status == 0, said.error
    return said.data


def start_program(session: LinuxSession, name: str, *arguments: str) -> GuestCommand:
    """A program of tests/support/in_guest, running in the guest."""
    path = f"/root/{name}"
    session.guest.put(PROGRAMS / name, path)
    return session.guest.start(["python3", path, *arguments])


def program(session: LinuxSession, name: str, *arguments: str, seconds: float = SECONDS) -> Any:
    """What a program of tests/support/in_guest prints, as JSON; it must succeed."""
    result = start_program(session, name, *arguments).wait(seconds)
    assert result.status == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def allow_no_module(session: LinuxSession) -> Result:
    """Loads the stock module that a client without a driver needs."""
    return session.guest.run("modprobe msr allow_writes=on").check()


def complaints(session: LinuxSession) -> list[str]:
    """What the kernel's log should not have."""
    return [line for line in session.guest.log().splitlines() if COMPLAINT.search(line)]
