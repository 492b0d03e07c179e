"""Threads, event loops and processes command one machine, are stopped and killed: no answer is lost or repeated."""

from collections.abc import Iterator

import pytest

from sidecar.qemu.linux_session import LinuxSession
from tests.support.booted import fresh_directory
from tests.support.client_race import answered, race
from tests.support.linux_client import allow_no_module
from tests.support.stock_linux import StockLinux

CPUS = range(1, 7)
COMMANDS = 50_000
COMMANDS_WITHOUT_DRIVER = 5_000
SECONDS = 600.0
"""Far more than it takes on a host that does nothing else."""

KILL_EVERY = 3.0


@pytest.fixture(scope="module")
def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
    with stock_linux.guest(fresh_directory(request), smp=len(CPUS) + 1) as booted:
        yield booted


@pytest.mark.timeout(800)
def test_without_a_driver(session: LinuxSession) -> None:
    allow_no_module(session)
    result = race(
        session, "no-module", commands=COMMANDS_WITHOUT_DRIVER, seconds=SECONDS, kill_every=0, cpus=CPUS
    )
    assert answered(result) >= COMMANDS_WITHOUT_DRIVER


@pytest.mark.timeout(800)
def test_with_the_driver(session: LinuxSession) -> None:
    session.load_driver()
    result = race(session, "driver", commands=COMMANDS, seconds=SECONDS, kill_every=KILL_EVERY, cpus=CPUS)
    assert answered(result) >= COMMANDS
    assert result["kills"] >= 2
    assert any(result["cpus"][str(cpu)]["busy"] for cpu in result["contested"])
