"""A million commands from threads, event loops, processes and killed clients, on both kernels."""

from pathlib import Path

import pytest

from sidecar.qemu.linux.kernels import WHICH, Which
from tests.support.client_race import answered, race, second_linux_cpu
from tests.support.linux_client import allow_no_module
from tests.support.stock_linux import StockLinux

CPUS = range(1, 13)
LINUXS = 13
SECONDS = 7000.0
KILL_EVERY = 2.0


@pytest.mark.timeout(7400)
@pytest.mark.parametrize(("which", "commands"), [(WHICH[0], 1_000_000), (WHICH[1], 500_000)])
def test_with_the_driver(stock_linux: StockLinux, which: Which, commands: int, run_directory: Path) -> None:
    with stock_linux.guest(run_directory, smp=LINUXS + 1, which=which) as session:
        second_linux_cpu(session, LINUXS)
        result = race(session, "driver", commands=commands, seconds=SECONDS, kill_every=KILL_EVERY, cpus=CPUS)
        assert answered(result) >= commands
        assert result["kills"] >= 10


@pytest.mark.timeout(7400)
def test_without_a_driver(stock_linux: StockLinux, run_directory: Path) -> None:
    commands = 100_000
    with stock_linux.guest(run_directory, smp=LINUXS) as session:
        allow_no_module(session)
        result = race(session, "no-module", commands=commands, seconds=SECONDS, kill_every=0, cpus=CPUS)
        assert answered(result) >= commands
