"""Threads, event loops and processes command one machine, are stopped and killed: no answer is lost or repeated.

A million commands, with both kernels, are in tests/campaign.
"""

from collections.abc import Iterator

import pytest

from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.client_race import answered, race, second_linux_cpu
from tests.support.linux_client import allow_no_module
from tests.support.stock_linux import StockLinux

CPUS = range(1, 9)
LINUXS = 9
COMMANDS = 50_000
COMMANDS_WITHOUT_DRIVER = 2_000
SECONDS = 1000.0
"""Far more than it takes on a host that does nothing else."""

KILL_EVERY = 2.0
pytestmark = pytest.mark.timeout(1300)


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=LINUXS + 1) as booted:
        yield booted


def test_without_a_driver(session: LinuxSession) -> None:
    """Runs first: the driver has not been loaded yet."""
    allow_no_module(session)
    result = race(
        session, "no-module", commands=COMMANDS_WITHOUT_DRIVER, seconds=SECONDS, kill_every=0, cpus=CPUS
    )
    assert answered(result) >= COMMANDS_WITHOUT_DRIVER


def test_with_the_driver(session: LinuxSession) -> None:
    second_linux_cpu(session, LINUXS)
    result = race(session, "driver", commands=COMMANDS, seconds=SECONDS, kill_every=KILL_EVERY, cpus=CPUS)
    assert answered(result) >= COMMANDS
    assert result["kills"] >= 2
