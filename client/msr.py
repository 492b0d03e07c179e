"""A CPU's model-specific registers through Linux's stock `msr` module: how a program without a driver interrupts.

Ref: Linux, arch/x86/kernel/msr.c; SDM vol. 3A, 11.12.9 "ICR Operation in x2APIC Mode".
"""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.client.errors import NoDriver
from sidecar.layout.x86 import ApicBase, Msr

REMEDY = "modprobe msr allow_writes=on"


class MsrFile:
    """The registers of CPU 0, which Linux never lets go. Raises NoDriver with the remedy."""

    def __init__(self, sys: Path = Path("/sys"), path: Path = Path("/dev/cpu/0/msr")) -> None:
        _require_writes(sys / "module" / "msr" / "parameters" / "allow_writes")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NoDriver(
                f"{path} cannot be opened ({os.strerror(error.errno or 0)}): run as root after `{REMEDY}`"
            ) from error

    def read(self, register: Msr) -> int:
        return int.from_bytes(os.pread(self._file, 8, register), "little")

    def write(self, register: Msr, value: int) -> None:
        os.pwrite(self._file, value.to_bytes(8, "little"), register)

    def require_x2apic(self) -> None:
        """Raises NoDriver unless CPU 0's local APIC is in x2APIC mode: its ICR is no MSR otherwise."""
        if not self.read(Msr.APIC_BASE) & ApicBase.EXTD:
            raise NoDriver(
                "this Linux runs its local APICs in xAPIC mode, and cannot address the sidecar's CPUs: boot the "
                "machine with an IOMMU that remaps interrupts (QEMU: -device intel-iommu,intremap=on,eim=on and "
                "-machine q35,kernel-irqchip=split), and without `nox2apic`"
            )

    def close(self) -> None:
        os.close(self._file)


def _require_writes(parameter: Path) -> None:
    try:
        allowed = parameter.read_text().strip()
    except OSError as error:
        raise NoDriver(f"Linux's module msr is not loaded ({parameter} cannot be read): `{REMEDY}`") from error
    if allowed != "on":
        raise NoDriver(f"Linux's module msr does not allow writes: `echo on > {parameter}`, or `{REMEDY}` at first")
