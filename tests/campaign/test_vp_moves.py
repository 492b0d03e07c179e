"""What tests/boot/test_vmm_linux.py does a few times, often, on both kernels: a guest moves, and Linux has its CPUs."""

from pathlib import Path

import pytest

from sidecar.qemu.linux.kernels import WHICH, Which
from tests.support.linux_client import complaints
from tests.support.moving_guest import moves
from tests.support.stock_linux import StockLinux

ROUNDS = 60
SECONDS = 3400


@pytest.mark.timeout(SECONDS + 200)
@pytest.mark.parametrize("which", WHICH)
def test_a_virtual_processor_moves_and_linux_has_its_cpu(
    stock_linux: StockLinux, which: Which, run_directory: Path
) -> None:
    with stock_linux.guest(run_directory, smp=5, which=which) as session:
        session.load_driver()
        seen = moves(session, ROUNDS, seconds=SECONDS)
        assert seen["wrong"] == []
        assert seen["moved in"] == ["TimeLimitExit", "MemoryExit", "PortExit", "PortExit"] * ROUNDS
        assert seen["linux"] == [True] * ROUNDS
        assert len(seen["refused"]) == 2 * ROUNDS
        assert complaints(session) == []
