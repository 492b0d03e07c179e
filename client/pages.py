"""The attachment of whoever sees the machine's memory: a PageDriver, and pages read where they are.

As it stands it is the host's, who has no Linux beside the sidecar; `no_module` adds Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.client.errors import LinuxRefused, NoDriver
from sidecar.protocol.driver import PageDriver
from sidecar.protocol.machine import Discovered

if TYPE_CHECKING:
    from sidecar.client.ends import Ends
    from sidecar.client.vmm.backing import VmBacking


class PagesAttachment:
    """An Attachment over a PageDriver, which stays the caller's."""

    name = "host"

    def __init__(self, driver: PageDriver, found: Discovered) -> None:
        self._driver, self.found = driver, found

    @property
    def runner(self) -> PageDriver:
        return self._driver

    def ends(self) -> Ends:
        from sidecar.client.ends import PolledEnds

        return PolledEnds(self._driver)

    def status(self, cpu: int) -> int:
        return self._driver.status(cpu)

    def diagnostic(self, cpu: int) -> bytes:
        return self._driver.diagnostic_page(cpu)

    def log(self, cpu: int) -> bytes:
        return self._driver.log_page(cpu)

    def is_online(self, cpu: int) -> bool:
        """The first CPU of a node has no other owner."""
        return self._driver.numbers(cpu).index == 0

    def convert(self, cpu: int, owner: object) -> None:
        raise LinuxRefused(f"{self._driver.numbers(cpu)} cannot be converted: no Linux runs on this machine")

    def give_back(self, cpu: int, owner: object) -> None:
        raise LinuxRefused(f"{self._driver.numbers(cpu)} cannot be given back: no Linux runs on this machine")

    def virtual_machine(self) -> VmBacking:
        raise NoDriver("a virtual machine needs the driver: it pins the guest's memory (modprobe sidecar)")

    def close(self) -> None:
        """The driver is the caller's."""
