"""A Linux guest in the tests of client and driver: used by sidecarctl and by programs, its log looked through."""

import json
import re
from typing import Any

from sidecar.qemu.linux.agent_client import GuestCommand, Result
from sidecar.qemu.linux_session import LinuxSession
from tests.support.program_server import PROGRAMS, SECONDS, Said, call

CTL = "sidecar.client.__main__"

COMPLAINT = re.compile(
    r"WARNING:|BUG:|Oops:|Call Trace|general protection fault|rcu.*stall|lockdep|No irq handler|unknown parameter"
)


def ctl(session: LinuxSession, *arguments: str, seconds: float = SECONDS) -> Said:
    """What sidecarctl does with these arguments; the program itself is called in tests/boot/test_linux_cli.py."""
    return call(session, CTL, *arguments, seconds=seconds)


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
