"""Commanding the sidecar through its driver: device files for commands, sysfs for what the CPUs tell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sidecar.client.device import SHARED_BYTES, DeviceFile, DeviceNode
from sidecar.client.device_runner import DeviceRunner
from sidecar.client.errors import LinuxRefused, NoDriver
from sidecar.client.linux import Linux
from sidecar.client.records import Records, SysfsRecords
from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import CpuAway, ProtocolError
from sidecar.protocol.machine import Discovered

if TYPE_CHECKING:
    from sidecar.client.ends import Ends
    from sidecar.client.vmm.backing import VmBacking

LONGEST_SLICE = 1.0
"""Seconds of a virtual processor's run."""

REMEDY = "load it (modprobe sidecar); if it is loaded, dmesg says what it refused"


class DriverAttachment:
    """An Attachment over open device files, one per node; close() closes them, and thereby ends all claims."""

    name = "driver"

    def __init__(self, found: Discovered, files: Sequence[DeviceNode], records: Records, linux: Linux) -> None:
        self.found, self._files, self._records, self._linux = found, files, records, linux
        for file in files:
            _require_same(file, found)
        self.runner = DeviceRunner(files, numbers_of(found), records, driver_seconds=linux.driver_seconds())

    @classmethod
    def open(cls, linux: Linux, devices: Path = Path("/dev")) -> Self:
        """Raises NoSidecar, NoDriver, AbiMismatch, ProtocolError."""
        found = linux.discover()
        files: list[DeviceFile] = []
        try:
            for node in found.nodes:
                files.append(_open(devices / f"sidecar{node.number}", node.number))
            return cls(found, files, SysfsRecords(linux.sys, numbers_of(found)), linux)
        except BaseException:
            for file in files:
                file.close()
            raise

    def ends(self) -> Ends:
        from sidecar.client.ends import DeviceEnds

        return DeviceEnds(self.runner)

    def status(self, cpu: int) -> int:
        return self._records.status(cpu)

    def diagnostic(self, cpu: int) -> bytes:
        return self._records.diagnostic(cpu)

    def log(self, cpu: int) -> bytes:
        return self._records.log(cpu)

    def is_online(self, cpu: int) -> bool:
        return self._linux.is_online(cpu)

    def convert(self, cpu: int, owner: object) -> None:
        """The driver removes the CPU from the sidecar before Linux starts it."""
        numbers = self.runner.numbers(cpu)
        try:
            self._linux.set_online(numbers, True)
        except LinuxRefused as error:
            if self._records.has_vp(cpu):
                raise LinuxRefused(
                    f"Linux did not take {numbers}: it has a virtual processor; its VMM moves or removes it first"
                ) from error
            raise

    def give_back(self, cpu: int, owner: object) -> None:
        """The driver restarts the CPU after Linux has let it go."""
        numbers = self.runner.numbers(cpu)
        if numbers.index == 0:
            raise CpuAway(f"{numbers} is the first of its node: Linux keeps it")
        self._linux.set_online(numbers, False)

    def virtual_machine(self) -> VmBacking:
        from sidecar.client.vmm.device_backing import DeviceVm

        patience = self._linux.driver_seconds()
        return DeviceVm(
            self.runner, tsc_khz=self.found.tsc_khz, slice_seconds=min(LONGEST_SLICE, patience / 4), ends=self.ends
        )

    def close(self) -> None:
        self.runner.close()
        for file in self._files:
            file.close()


def numbers_of(found: Discovered) -> list[CpuNumbers]:
    """The CPUs of sidecar nodes, those that Linux runs included."""
    return [
        CpuNumbers(cpu.linux_number, cpu.apic_id, cpu.node, cpu.index)
        for cpu in found.cpus if cpu.node is not None and cpu.index is not None
    ]


def _open(path: Path, node: int) -> DeviceFile:
    try:
        return DeviceFile(path, node)
    except PermissionError:
        raise NoDriver(f"{path} may be opened by root only: run this as root") from None
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise NoDriver(f"the sidecar's driver is not there: {path} cannot be opened ({why}); {REMEDY}") from error


def _require_same(file: DeviceNode, found: Discovered) -> None:
    """The driver's node must be the table's. Raises ProtocolError."""
    node, info = found.nodes[file.number], file.info()
    for name, got, expected in (
        ("base_cpu", info.base_cpu, node.base_cpu),
        ("cpu_count", info.cpu_count, node.cpu_count),
        ("per_cpu_shmem", info.per_cpu_shmem, SHARED_BYTES),
    ):
        if got != expected:
            raise ProtocolError(f"the driver's node {file.number}: {name} is {got:#x}, expected {expected:#x}")
