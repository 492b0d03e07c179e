"""What SharedSession and SharedLinux have in common: one machine for many tests, each of which finds it prepared."""

import contextlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar

from sidecar.qemu.machine import MachineDied
from sidecar.qemu.waiting import WaitedInVain

Booted = TypeVar("Booted")


class SharedMachine(ABC, Generic[Booted]):
    """Boots at its first use, and anew when a test has left the machine unusable: when it cannot be prepared.

    Each boot has a folder of its own in `directory`.
    """

    unusable: ClassVar[tuple[type[Exception], ...]] = (MachineDied, WaitedInVain)
    """What is raised if a machine that has been used cannot be prepared; anything else is a mistake of ours."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boots = 0
        self._owned = contextlib.ExitStack()
        self._booted: Booted | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Ends the machine, if there is one."""
        self._booted = None
        self._owned.close()

    @abstractmethod
    def _boot(self, directory: Path) -> AbstractContextManager[Booted]:
        """A machine that keeps its files in `directory`."""

    def _prepared(self, prepare: Callable[[Booted], None]) -> Booted:
        """The machine after `prepare`. Raises what that raises of a machine that has just booted."""
        if self._booted is not None:
            try:
                prepare(self._booted)
                return self._booted
            except self.unusable:
                self.end()
        self._boots += 1
        directory = self._directory / str(self._boots)
        shutil.rmtree(directory, ignore_errors=True)
        self._booted = self._owned.enter_context(self._boot(directory))
        prepare(self._booted)
        return self._booted
