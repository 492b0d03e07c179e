"""The Cpu of a PageDriver: typed commands, and what only the driver's own role can see and do.

    cpu = Cpu(driver, 3)
    cpu.none()
    cpu.pages.diagnostic.boot.arrivals
    cpu.remove(); cpu.give_back()
"""

from __future__ import annotations

from sidecar.protocol.driver import PageDriver
from sidecar.protocol.requests import DATA_BYTES, REGISTER_NUMBERS, raise_request, register_request
from sidecar.protocol.slot import CpuPages, DriverState
from sidecar.protocol.typed import Claim, Run, Ticks, TypedCpu

__all__ = [
    "DATA_BYTES", "REGISTER_NUMBERS", "Claim", "Cpu", "Run", "Ticks", "TypedCpu", "raise_request", "register_request",
]


class Cpu(TypedCpu):
    """One CPU of a PageDriver, by its Linux number; see TypedCpu for the commands."""

    def __init__(self, driver: PageDriver, number: int) -> None:
        super().__init__(driver, number)
        self.driver = driver
        self.pages: CpuPages = driver.pages(number)

    def __repr__(self) -> str:
        return f"<{self.numbers}, {self.state.name}>"

    @property
    def state(self) -> DriverState:
        return self.driver.state(self.number)

    def remove(self) -> None:
        self.driver.remove(self.number, owner=self)

    def give_back(self) -> None:
        self.driver.give_back(self.number, owner=self)
