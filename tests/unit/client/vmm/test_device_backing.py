"""Guests through the driver: what is asked of it, what its refusals say, and how several runs are waited for."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.client.device_runner import DeviceRunner
from sidecar.client.vmm.device_backing import LARGE_PAGE, DeviceVm, address_of
from sidecar.client.vmm.errors import VmError
from sidecar.client.vmm.machine import Machine
from sidecar.client.vmm.waiting import DeviceWaiter, PolledWaiter
from sidecar.layout.command import CommandPage, RaiseKind, SidecarCommand
from sidecar.layout.ioctl import VmIoctl, VpIoctl
from sidecar.protocol.requests import raise_request
from sidecar.protocol.typed import Run, TypedCpu
from tests.support.guest import Guest
from tests.support.simulated_sidecar import SimulatedSidecar

SPIN = raise_request(RaiseKind.WAIT_FOR_STOP)


class Driver:
    """Notes each call; `refuses` are calls that fail, with their errno."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int | bytes]] = []
        self.refuses: dict[int, int] = {}

    def __call__(self, file: int, request: int, argument: int | bytes) -> int | bytes:
        self.calls.append((file, request, argument))
        if request in self.refuses:
            raise OSError(self.refuses[request], os.strerror(self.refuses[request]))
        return os.eventfd(0) if request == VpIoctl.VM_CREATE else 0

    def arguments(self, request: int) -> list[int | bytes]:
        return [argument for _, asked, argument in self.calls if asked == request]


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[DeviceRunner]:
    with SimulatedSidecar((3, 2)) as simulated, Guest(simulated, tmp_path).with_driver() as sidecar:
        runner = sidecar.attachment.runner
        assert isinstance(runner, DeviceRunner)
        yield runner


def vm_over(runner: DeviceRunner, driver: Driver) -> DeviceVm:
    return DeviceVm(runner, tsc_khz=1, slice_seconds=1.0, ends=lambda: pytest.fail("no event loop"), call=driver)


def test_what_is_asked_of_the_driver(runner: DeviceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(TypedCpu, "get_registers", lambda self, names: dict.fromkeys(names, 0))
    with Machine(vm_over(runner, driver), memory=0x400000) as machine:
        (vm,) = [file for file, request, _ in driver.calls if request == VmIoctl.MAP]
        (mapped,) = driver.arguments(VmIoctl.MAP)
        assert isinstance(mapped, bytes)
        gpa, size, address, rights = struct.unpack("<QQQI4x", mapped)
        assert (gpa, size, rights, address % LARGE_PAGE) == (0, 0x400000, 7, 0)
        machine.memory.write(0x1234, b"seen")
        assert ctypes.string_at(address + 0x1234, 4) == b"seen"
        machine.map(0x800000, 0x1000)
        machine.unmap(0x800000)
        assert driver.arguments(VmIoctl.UNMAP) == [struct.pack("<QQ", 0x800000, 0x1000)]
        vp = machine.add_vp(4)
        vp.notify(0x81)
        assert driver.arguments(VpIoctl.VP_CREATE) == [struct.pack("<II", 4, vm)]
        assert driver.arguments(VpIoctl.DOORBELL) == [struct.pack("<IIQ", 4, 0, 0x81)]
        files = {file for file, request, _ in driver.calls if request == VpIoctl.VP_CREATE}
        assert files == {runner.notices[1].node.fileno()}
    assert driver.arguments(VpIoctl.VP_DESTROY) == [4]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(vm)


@pytest.mark.parametrize(
    ("request_", "number", "words"),
    [
        (VpIoctl.VM_CREATE, errno.ENOTTY, "a guest: the driver refused VM_CREATE: this driver knows no virtual"),
        (VmIoctl.MAP, errno.ENOMEM, "0x1000 bytes at 0x0: the driver refused MAP: there is not enough memory"),
        (VmIoctl.MAP, errno.EFAULT, "the driver refused MAP: Bad address"),
        (VpIoctl.VP_CREATE, errno.EOPNOTSUPP, "index 1\\): the driver refused VP_CREATE: the processor has no SVM"),
    ],
)
def test_refusals(runner: DeviceRunner, request_: int, number: int, words: str) -> None:
    driver = Driver()
    driver.refuses[request_] = number
    with pytest.raises(VmError, match=words):
        Machine(vm_over(runner, driver), memory=0x1000).add_vp(1)
    TypedCpu(runner, 1).claim()  # nobody holds it


def test_addresses() -> None:
    memory = memoryview(bytearray(16))
    assert address_of(memory[4:]) == address_of(memory) + 4


# --- waiting ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(runner: DeviceRunner) -> Iterator[dict[int, Run]]:
    """CPUs that wait for STOP, on two nodes."""
    started = {number: TypedCpu(runner, number).start(SidecarCommand.RAISE, SPIN) for number in (1, 2, 4)}
    yield started
    for run in started.values():
        run.stop()
        if not run._over:
            run.wait()


def test_who_ended_is_told(runner: DeviceRunner, runs: dict[int, Run]) -> None:
    waiter = DeviceWaiter(runner)
    assert waiter.wait(runs, 0.01) == []
    runs[2].stop()
    assert waiter.wait(runs, 60) == [2]
    runs[2].wait()
    runs[1].stop()
    runs[4].stop()
    ended: list[int] = []
    while len(ended) < 2:
        ended += waiter.wait([cpu for cpu in (1, 4) if cpu not in ended], 60)
    assert sorted(ended) == [1, 4]
    waiter.close()


def test_an_end_that_another_thread_has_read(runner: DeviceRunner, runs: dict[int, Run]) -> None:
    """It waits for its own CPU, and reads the file for all."""
    waiter = DeviceWaiter(runner)
    other = threading.Thread(target=lambda: runs[1].wait(seconds=60))
    other.start()
    time.sleep(0.05)
    runs[2].stop()
    assert waiter.wait([2], 60) == [2]
    runs[1].stop()
    other.join(60)
    waiter.close()


@pytest.mark.parametrize("kind", [DeviceWaiter, PolledWaiter])
def test_a_wake_ends_the_wait(
    runner: DeviceRunner, runs: dict[int, Run], kind: type[DeviceWaiter] | type[PolledWaiter]
) -> None:
    waiter = kind(runner)
    waiter.wake()
    began = time.monotonic()
    assert waiter.wait(runs, 60) == []
    timer = threading.Timer(0.05, waiter.wake)
    timer.start()
    assert waiter.wait(runs, 60) == []
    assert time.monotonic() - began < 30
    timer.join()
    runs[2].stop()
    assert waiter.wait(runs, 60) == [2]
    waiter.close()


def test_page_size() -> None:
    assert CommandPage.SIZE == 4096
