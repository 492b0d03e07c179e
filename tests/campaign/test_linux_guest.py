"""The kernel of the backports without the sidecar."""

from pathlib import Path

import pytest

from tests.support import linux_guest
from tests.support.stock_linux import StockLinux


@pytest.mark.timeout(600)
def test_the_guest_on_the_kernel_of_the_backports(stock_linux: StockLinux, run_directory: Path) -> None:
    with linux_guest.plain(stock_linux, "backports", run_directory) as session:
        linux_guest.check_kernel(session)
        linux_guest.check_modules(session)
