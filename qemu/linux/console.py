"""The console of an interactive machine: a socket that somebody must read all the time.

QEMU sends single bytes and waits when the socket is full, which it is after a few hundred of them: the guest would
stand still in its boot. So a thread reads from the start, and throws away what nobody wants to see; the log file of the
machine has it all.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Sink = Callable[[bytes], None]


class Console:
    """Our end of the guest's first serial port."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._sink: Sink | None = None
        threading.Thread(target=self._read, name="guest-console", daemon=True).start()

    @contextlib.contextmanager
    def shown(self, sink: Sink) -> Iterator[None]:
        """Gives `sink` what comes within the block, on the reading thread."""
        self._sink = sink
        try:
            yield
        finally:
            self._sink = None

    def send(self, keys: bytes) -> None:
        """Keys for the guest; nobody gets them if the machine has ended."""
        with contextlib.suppress(OSError):
            self._end.sendall(keys)

    def _read(self) -> None:
        while True:
            try:
                data = self._end.recv(1 << 16)
            except OSError:
                return
            sink = self._sink
            if not data:
                return
            if sink is not None:
                sink(data)
