"""The guest's console under our own terminal: a shell on its first serial port, until it ends.

    interact(session)        needs a session that was made `interactive`

Keys go to the guest as they are, Ctrl-C too; Ctrl-] comes back here.
"""

import contextlib
import os
import select
import shutil
import socket
import sys
import termios
import tty
from collections.abc import Iterator

from sidecar.qemu.linux.agent_client import GuestCommand
from sidecar.qemu.linux_session import LinuxSession

ESCAPE = b"\x1d"  # Ctrl-]
END_OF_INPUT = b"\x04"  # Ctrl-D
LOOK_SECONDS = 0.1
QUIET_LEVEL = "4"  # warnings and worse of the kernel still appear

SHELL = "dmesg -n {level}; stty rows {rows} cols {columns} sane </dev/ttyS0; exec sh -l </dev/ttyS0 >/dev/ttyS0 2>&1"


def interact(session: LinuxSession) -> int:
    """Runs a shell in the guest on our terminal; its exit status, or 0 after Ctrl-]. Raises MachineDied."""
    terminal = session.machine.terminal
    if terminal is None:
        raise ValueError("this session is not interactive")
    forget_boot(terminal)
    size = shutil.get_terminal_size()
    shell = session.guest.start(SHELL.format(level=QUIET_LEVEL, rows=size.lines, columns=size.columns))
    with raw(sys.stdin.fileno()):
        relay(terminal, shell, source=sys.stdin.fileno(), sink=sys.stdout.fileno())
    if shell.running:
        session.machine.check()
        return 0
    return shell.wait(1).status


def forget_boot(terminal: socket.socket) -> None:
    """What the console has said so far is in its log file."""
    with contextlib.suppress(BlockingIOError):
        while terminal.recv(1 << 16, socket.MSG_DONTWAIT):
            continue


def relay(terminal: socket.socket, shell: GuestCommand, *, source: int, sink: int) -> None:
    """Passes bytes both ways until the shell has ended, the machine has, or Ctrl-] was typed."""
    sources: list[int | socket.socket] = [terminal, source]
    while True:
        over = not shell.running  # asked first: its last words are then on their way
        ready, _, _ = select.select(sources, [], [], LOOK_SECONDS)
        if terminal in ready:
            data = terminal.recv(1 << 16)
            os.write(sink, data)
            if not data:
                return
        if source in ready:
            keys = os.read(source, 1024)
            before, escaped, _ = keys.partition(ESCAPE)
            if not keys:
                sources.remove(source)
            terminal.sendall(before if keys else END_OF_INPUT)
            if escaped:
                return
        if over and not ready:
            return


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
