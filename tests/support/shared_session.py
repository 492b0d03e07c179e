"""One machine without Linux for many tests, each of which finds its CPUs idle."""

import contextlib
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.protocol.errors import DriverError
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import WaitedInVain
from tests.support.cpus import tidy


class SharedSession:
    """Boots at its first use, and anew when a test has left the machine unusable.

    `tests` lets the RAISE command raise faults.
    """

    def __init__(self, directory: Path, *, smp: int, tests: bool = False) -> None:
        self._directory, self._smp, self._tests = directory, smp, tests
        self._boots = 0
        self._owned = contextlib.ExitStack()
        self._session: Session | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ready(self) -> Session:
        """The machine with all of its CPUs idle."""
        if self._session is not None:
            try:
                tidy(self._session)
                return self._session
            except (AssertionError, DriverError, MachineDied, WaitedInVain):
                self._end()
        self._boots += 1
        directory = self._directory / str(self._boots)
        shutil.rmtree(directory, ignore_errors=True)
        booting = Session(smp=self._smp, tests=self._tests, directory=directory)
        self._session = self._owned.enter_context(booting)
        return self._session

    def _end(self) -> None:
        self._session = None
        self._owned.close()
