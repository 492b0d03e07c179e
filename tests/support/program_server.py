"""Programs in the guest without the start of a Python for every call, which is most of a call's time under TCG."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.waiting import WaitedInVain, wait_until

PROGRAMS = Path(__file__).resolve().parent / "in_guest"
SERVER = "program_server.py"
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a program ended with; `data` is its JSON."""

    status: int
    out: str
    error: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


class ProgramServer:
    """One Python in a guest that is a program, call after call: `module` has its main(arguments)."""

    def __init__(self, session: LinuxSession, module: str) -> None:
        self._session, self._module, self._calls = session, module, 0
        self._pipe = f"/tmp/{module}.pipe"
        session.guest.run(["rm", "-f", self._pipe]).check()
        session.guest.put(PROGRAMS / SERVER, f"/root/{SERVER}")
        self.command = session.guest.start(["python3", f"/root/{SERVER}", self._pipe, module])
        self._line(0, SECONDS)

    def call(self, arguments: tuple[str, ...], seconds: float) -> Said:
        """Raises WaitedInVain, and has killed the program then."""
        self._calls += 1
        self._session.guest.put(json.dumps([self._calls, *arguments]).encode() + b"\n", self._pipe)
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

        try:
            return wait_until(look, seconds=seconds, what=f"call {number} of {self._module}", interval=0.01)
        except WaitedInVain:
            self.command.kill()
            raise


_servers: WeakKeyDictionary[LinuxSession, dict[str, ProgramServer]] = WeakKeyDictionary()


def call(session: LinuxSession, module: str, *arguments: str, seconds: float = SECONDS) -> Said:
    """What the program does with these arguments. Raises WaitedInVain."""
    servers = _servers.setdefault(session, {})
    if module not in servers or not servers[module].command.running:
        servers[module] = ProgramServer(session, module)
    return servers[module].call(arguments, seconds)
