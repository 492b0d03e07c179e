"""Machines of every size with Linux beside the sidecar, with both kernels."""

from pathlib import Path

import pytest

from sidecar.qemu.linux.kernels import WHICH, Which
from tests.support.linux_machines import SIZES, Size, boots_and_answers
from tests.support.stock_linux import StockLinux


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_sidecar_cpu_answers_the_guest(
    stock_linux: StockLinux, run_directory: Path, size: Size, which: Which
) -> None:
    boots_and_answers(stock_linux, which, size, run_directory)
