"""The guest's console under our own terminal: a shell on its first serial port, until it ends.

    interact(session)        needs a session that was made `interactive`

Keys go to the guest as they are, Ctrl-C too; Ctrl-] comes back here.
"""

import contextlib
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator

from sidecar.qemu.linux.agent_client import GuestCommand
from sidecar.qemu.linux.console import Console
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.machine import MachineDied

ESCAPE = b"\x1d"  # Ctrl-]
END_OF_INPUT = b"\x04"  # Ctrl-D
LOOK_SECONDS = 0.1
QUIET_LEVEL = "4"  # errors and worse of the kernel still appear

SHELL = "dmesg -n {level}; stty rows {rows} cols {columns} sane </dev/ttyS0; exec sh -l </dev/ttyS0 >/dev/ttyS0 2>&1"


def interact(session: LinuxSession) -> int:
    """Runs a shell in the guest on our terminal until it ends, or the guest, or Ctrl-] is typed.

    Returns the shell's exit status, 0 without one. Raises MachineDied for a guest that panics, GuestError after kexec.
    """
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    console = session.terminal
    if console is None:
        raise ValueError("this session is not interactive")
    size = shutil.get_terminal_size()
    with raw(source), console.shown(lambda data: write_all(sink, data)):
        shell = session.guest.start(SHELL.format(level=QUIET_LEVEL, rows=size.lines, columns=size.columns))
        pass_keys(console, shell, source)
    try:
        return 0 if shell.running else shell.wait(1).status
    except MachineDied:
        if session.machine.farewell is None:
            raise
        return 0  # by `poweroff -f` or `reboot -f`


def pass_keys(console: Console, shell: GuestCommand, source: int) -> None:
    """Until the shell has ended or Ctrl-] was typed; the end of `source`, where it is no terminal, is Ctrl-D."""
    sources = [source]
    while True:
        over = not shell.running  # asked first: its last words are then shown while we wait for keys
        ready, _, _ = select.select(sources, [], [], LOOK_SECONDS)
        if over:
            return
        if not ready:
            continue
        keys = os.read(source, 1024)
        before, escaped, _ = keys.partition(ESCAPE)
        if not keys:
            sources.clear()
        console.send(before if keys else END_OF_INPUT)
        if escaped:
            return


def write_all(file: int, data: bytes) -> None:
    """Every byte to a file descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


@contextlib.contextmanager
def raw(file: int) -> Iterator[None]:
    """A terminal that passes every key on and shows none by itself; anything else stays as it is."""
    if not os.isatty(file):
        yield
        return
    before = termios.tcgetattr(file)
    tty.setraw(file)
    try:
        yield
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
