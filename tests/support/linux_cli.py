"""`sidecar boot --shell` on a terminal of the test's."""

import os
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

SHELL = (sys.executable, "-m", "sidecar", "boot", "--shell")
BOOT_SECONDS = 200.0
SECONDS = 60.0
PROMPT = b"sidecar:~# "


class Shell:
    """The command under a pseudo-terminal; `with` waits for the guest's prompt, and ends it whatever happens."""

    def __init__(self, command: tuple[str, ...], *arguments: str) -> None:
        self._command = [*command, *arguments]

    def __enter__(self) -> Self:
        self._ours, its = os.openpty()
        self._process = subprocess.Popen(self._command, stdin=its, stdout=its, stderr=its, start_new_session=True)
        os.close(its)
        try:
            self.read_until(PROMPT, BOOT_SECONDS)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read_until(self, sought: bytes, seconds: float = SECONDS) -> bytes:
        """What is read from now on, once it has `sought` in it."""
        got = b""
        deadline = time.monotonic() + seconds
        while sought not in got and time.monotonic() < deadline:
            got += self._read()
        assert sought in got, f"waited {seconds:g} s for {sought!r}, got {got[-800:]!r}"
        return got

    def wait(self) -> int:
        """The exit status."""
        deadline = time.monotonic() + SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            self._read()  # or its last words would not fit
        return self._process.wait(1)

    def _read(self) -> bytes:
        """What comes within a moment; nothing at the terminal's end."""
        try:
            return os.read(self._ours, 1 << 16) if select.select([self._ours], [], [], 0.2)[0] else b""
        except OSError:  # nobody has the other end any more
            time.sleep(0.2)
            return b""

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)
