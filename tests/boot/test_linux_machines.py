"""Machines of every size with Linux beside the sidecar; the kernel of the backports boots one of them.

Four CPUs and the stable kernel are in test_linux_cli.py; all sizes with both kernels are in tests/campaign.
"""

from pathlib import Path

import pytest

from tests.support.linux_machines import SIZES, Size, boots_and_answers
from tests.support.stock_linux import StockLinux


@pytest.mark.timeout(400)
@pytest.mark.parametrize("size", [size for size in SIZES if size.smp != 4], ids=str)
def test_every_sidecar_cpu_answers_the_guest(stock_linux: StockLinux, run_directory: Path, size: Size) -> None:
    boots_and_answers(stock_linux, "stable", size, run_directory)


@pytest.mark.timeout(400)
def test_the_kernel_of_the_backports_too(stock_linux: StockLinux, run_directory: Path) -> None:
    boots_and_answers(stock_linux, "backports", SIZES[1], run_directory)
