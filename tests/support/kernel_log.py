"""What Linux's kernel has said since a moment, and whether it complained."""

import itertools

from sidecar.qemu.linux_session import LinuxSession
from tests.support.linux_client import COMPLAINT

_numbers = itertools.count(1)


class KernelLog:
    """The kernel's log from here on, whatever several tests of one machine have put there before."""

    def __init__(self, session: LinuxSession) -> None:
        self._session, self._mark = session, f"test: mark {next(_numbers)}."
        session.guest.run(f"echo '{self._mark}' > /dev/kmsg").check()

    @property
    def text(self) -> str:
        return self._session.guest.run(f"dmesg | sed '1,/{self._mark}/d'").check().stdout

    def complaints(self) -> list[str]:
        """Warnings, oopses, stalls."""
        return [line for line in self.text.splitlines() if COMPLAINT.search(line)]
