"""The machines that test modules share, each booted once, by its first test.

With Linux: that of the driver's tests, ended after the last of them. SIDECAR_KERNEL=backports runs all of them on the
newer kernel; `make campaign` does. Without: that of the tests of virtual processors.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from sidecar.qemu.hosted_vp import HostedVp
from sidecar.qemu.linux.kernels import WHICH, Which
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support import guests
from tests.support.booted import RUN_DIRECTORIES
from tests.support.cpus import tidy
from tests.support.kernel_log import KernelLog
from tests.support.linux_vmm import SECONDS, Vmm, pins
from tests.support.shared_linux import SharedLinux
from tests.support.shared_session import SharedSession
from tests.support.stock_linux import StockLinux
from tests.support.vmm_machine import MIB, GuestMachine

SHARED = pytest.StashKey[SharedLinux]()


@pytest.fixture(scope="session")
def which() -> Which:
    """The kernel that is tested in full."""
    wanted = os.environ.get("SIDECAR_KERNEL", "stable")
    for one in WHICH:
        if one == wanted:
            return one
    raise pytest.UsageError(f"SIDECAR_KERNEL is {wanted!r}; expected one of: {', '.join(WHICH)}")


@pytest.fixture(scope="session")
def shared_linux(stock_linux: StockLinux, which: Which, pytestconfig: pytest.Config) -> Iterator[SharedLinux]:
    with SharedLinux(stock_linux, which, RUN_DIRECTORIES / "boot" / "shared-linux") as shared:
        pytestconfig.stash[SHARED] = shared
        yield shared


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Ends the machine after the last test that takes it: those that come later have the host for themselves."""
    yield
    shared = item.config.stash.get(SHARED, None)
    items = item.session.items
    if shared is not None and not any(takes_it(later) for later in items[items.index(item) + 1 :]):
        shared.end()


def takes_it(item: pytest.Item) -> bool:
    return "shared_linux" in getattr(item, "fixturenames", ())


@pytest.fixture
def driven(shared_linux: SharedLinux) -> Iterator[LinuxSession]:
    """The shared machine with the driver loaded and all CPUs but the first for commands; the kernel stays content."""
    session = shared_linux.driven()
    log = KernelLog(session)
    yield session
    assert log.complaints() == []


@pytest.fixture
def bare(shared_linux: SharedLinux) -> Iterator[LinuxSession]:
    """The shared machine without the driver."""
    session = shared_linux.bare()
    log = KernelLog(session)
    yield session
    assert log.complaints() == []


@pytest.fixture
def vmm(driven: LinuxSession) -> Iterator[Vmm]:
    """A process in the shared machine that has /dev/sidecar0 open and CPU 1 claimed; no page stays pinned after it."""
    before = pins(driven)
    with Vmm(driven) as running:
        running.claim(1)
        yield running
    wait_until(lambda: pins(driven) == before, seconds=SECONDS, what="every page to be unpinned", interval=0.1)


# --- without Linux ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def shared_hosted(shared_directory: Path) -> Iterator[SharedSession]:
    with SharedSession(shared_directory / "hosted", smp=3) as shared:
        yield shared


@pytest.fixture
def hosted(shared_hosted: SharedSession) -> Iterator[Session]:
    """A machine of three CPUs for virtual processors; the two of the sidecar are idle."""
    session = shared_hosted.ready()
    yield session
    tidy(session)


@pytest.fixture
def vp(hosted: Session) -> Iterator[HostedVp]:
    """A new virtual processor on CPU 1, in its reset state."""
    with guests.virtual_processor(hosted) as vp:
        yield vp


@pytest.fixture
def guest(plain: Session) -> Iterator[GuestMachine]:
    """A guest of the VMM library, of 2 MiB, with one virtual processor on CPU 1 of a machine without Linux."""
    with GuestMachine(plain, memory=2 * MIB) as guest:
        yield guest
