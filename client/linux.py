"""What the running Linux shows of itself and does for us: the SDCR table, its CPUs, whether the driver is loaded.

Ref: Linux, Documentation/admin-guide/cputopology.rst and ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.client.errors import LinuxRefused, NoSidecar
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.discovery import parse_table
from sidecar.protocol.machine import Discovered

TABLE = "firmware/acpi/tables/SDCR"
DRIVER_MODULE = "sidecar"
DRIVER_SECONDS = 5.0


class Linux:
    """The kernel that this program runs on; tests give it another /sys."""

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self.sys = sys
        self._module = str(sys / "module" / DRIVER_MODULE)
        self._online = str(sys / "devices" / "system" / "cpu" / "cpu{}" / "online")

    @property
    def table_path(self) -> Path:
        return self.sys / TABLE

    def discover(self) -> Discovered:
        """The sidecar's nodes and CPUs by the SDCR table. Raises NoSidecar, BadTable, AbiMismatch."""
        try:
            data = self.table_path.read_bytes()
        except FileNotFoundError:
            raise NoSidecar(
                f"this Linux runs without a sidecar: there is no {self.table_path}; boot it by `sidecar boot`"
            ) from None
        except PermissionError:
            raise NoSidecar(f"{self.table_path} may be read by root only: run this as root") from None
        return parse_table(data, f"the SDCR table in {self.table_path}", 0)

    def driver_is_loaded(self) -> bool:
        return os.path.exists(self._module)

    def driver_seconds(self) -> float:
        """How long the driver waits for a command; what its source says if it does not tell."""
        try:
            return int((self.sys / "module" / DRIVER_MODULE / "parameters" / "timeout_ms").read_text()) / 1000
        except OSError:
            return DRIVER_SECONDS

    # --- CPUs ------------------------------------------------------------------------------------------------------

    def is_online(self, cpu: int) -> bool:
        """Does Linux run the CPU? Waits while Linux is taking it or letting it go."""
        try:
            with open(self._online.format(cpu), "rb", buffering=0) as file:
                return file.read(1) == b"1"
        except FileNotFoundError:
            return cpu == 0  # the boot CPU has no switch

    def set_online(self, cpu: CpuNumbers, wanted: bool) -> None:
        """Has Linux take the CPU or let it go. Raises LinuxRefused."""
        verb = "take" if wanted else "let go of"
        try:
            file = os.open(self._online.format(cpu.linux), os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, b"1" if wanted else b"0")
            finally:
                os.close(file)
        except FileNotFoundError:
            raise LinuxRefused(f"Linux has no switch for {cpu}: it is no CPU that Linux could {verb}") from None
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise LinuxRefused(f"Linux did not {verb} {cpu}: {reason}; dmesg may say why") from error
        if self.is_online(cpu.linux) != wanted:
            raise LinuxRefused(f"Linux did not {verb} {cpu}, and did not say why; dmesg may")
