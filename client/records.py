"""What the driver shows of its CPUs in sysfs: status, diagnostic page, log; readable without a claim.

    /sys/class/sidecar/sidecarN/cpuM/status        the status byte's name
    /sys/class/sidecar/sidecarN/cpuM/diagnostic    the DiagnosticPage, binary
    /sys/class/sidecar/sidecarN/cpuM/log           the LogRing, binary
    /sys/class/sidecar/sidecarN/cpuM/vp            1 if it has a virtual processor
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sidecar.layout.control import CpuStatus
from sidecar.layout.schema import PAGE_SIZE
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import ProtocolError


class Records(Protocol):
    """What is to be known of a CPU, by Linux number, without running anything on it."""

    def status(self, cpu: int) -> int: ...
    def diagnostic(self, cpu: int) -> bytes: ...
    def log(self, cpu: int) -> bytes: ...
    def has_vp(self, cpu: int) -> bool: ...


class SysfsRecords:
    """Records of the loaded driver. Raises ProtocolError if it shows something else."""

    def __init__(self, sys: Path, cpus: Sequence[CpuNumbers]) -> None:
        base = sys / "class" / "sidecar"
        self._folders = {cpu.linux: base / f"sidecar{cpu.node}" / f"cpu{cpu.linux}" for cpu in cpus}

    def status(self, cpu: int) -> int:
        name = self._read(cpu, "status").decode().strip()
        try:
            return CpuStatus[name.upper()]
        except KeyError:
            raise ProtocolError(f"{self._folders[cpu] / 'status'} says {name!r}, which is no status") from None

    def diagnostic(self, cpu: int) -> bytes:
        return self._page(cpu, "diagnostic")

    def log(self, cpu: int) -> bytes:
        return self._page(cpu, "log")

    def has_vp(self, cpu: int) -> bool:
        return self._read(cpu, "vp").strip() == b"1"

    def _page(self, cpu: int, name: str) -> bytes:
        data = self._read(cpu, name)
        if len(data) != PAGE_SIZE:
            raise ProtocolError(f"{self._folders[cpu] / name} has {len(data)} bytes, expected {PAGE_SIZE}")
        return data

    def _read(self, cpu: int, name: str) -> bytes:
        path = self._folders[cpu] / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise ProtocolError(f"{path} cannot be read ({error.strerror}): is the driver still loaded?") from error
