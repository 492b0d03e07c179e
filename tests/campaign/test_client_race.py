"""A million commands from threads, event loops, processes and killed clients, on both kernels."""

from pathlib import Path

import pytest

from sidecar.qemu.linux.kernels import WHICH, Which
from tests.support.client_race import answered, race
from tests.support.linux_client import allow_no_module
from tests.support.stock_linux import StockLinux

CPUS = range(1, 8)
SECONDS = 3400.0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("which", WHICH)
def test_with_the_driver(stock_linux: StockLinux, which: Which, run_directory: Path) -> None:
    commands = 500_000
    with stock_linux.guest(run_directory, smp=len(CPUS) + 1, which=which) as session:
        session.load_driver()
        result = race(session, "driver", commands=commands, seconds=SECONDS, kill_every=2.0, cpus=CPUS)
        assert answered(result) >= commands


@pytest.mark.timeout(3600)
def test_without_a_driver(stock_linux: StockLinux, run_directory: Path) -> None:
    commands = 100_000
    with stock_linux.guest(run_directory, smp=len(CPUS) + 1) as session:
        allow_no_module(session)
        result = race(session, "no-module", commands=commands, seconds=SECONDS, kill_every=0, cpus=CPUS)
        assert answered(result) >= commands
