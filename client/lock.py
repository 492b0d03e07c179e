"""One client at a time commands without a driver: a lock that Linux takes back when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from sidecar.client.errors import AlreadyAttached

PATIENCE_SECONDS = 5.0
LOOK_SECONDS = 0.02


class MachineLock:
    """An flock(2) on a file that all clients know: the SDCR table, so that no directory must be agreed on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def take(self, *, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until the holder has ended. Raises AlreadyAttached."""
        file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(LOOK_SECONDS)
                    continue
                os.close(file)
                raise AlreadyAttached(
                    f"another client commands the sidecar without a driver, still after {seconds:g} s; "
                    "only one can at a time"
                ) from None
            self._file = file
            return

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
