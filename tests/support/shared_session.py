"""One machine without Linux for many tests, each of which finds its CPUs idle."""

from pathlib import Path

from sidecar.protocol.errors import DriverError
from sidecar.qemu.session import Session
from tests.support.cpus import tidy
from tests.support.shared_machine import SharedMachine


class SharedSession(SharedMachine[Session]):
    """Of `smp` CPUs; `tests` lets the RAISE command raise faults."""

    unusable = (*SharedMachine.unusable, AssertionError, DriverError)

    def __init__(self, directory: Path, *, smp: int, tests: bool = False) -> None:
        super().__init__(directory)
        self._smp, self._tests = smp, tests

    def ready(self) -> Session:
        """The machine with all of its CPUs idle."""
        return self._prepared(tidy)

    def _boot(self, directory: Path) -> Session:
        return Session(smp=self._smp, tests=self._tests, directory=directory)
