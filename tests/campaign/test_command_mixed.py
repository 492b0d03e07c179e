"""100,000 mixed, sequence-numbered commands over four CPUs and four host threads, with STOP racing completion."""

from pathlib import Path

import pytest

from sidecar.qemu.session import Session
from tests.support import mixed

COMMANDS_PER_CPU = 25_000


@pytest.mark.parametrize(("smp", "numa"), [(5, 1), (10, 2)], ids=["one node", "two nodes"])
def test_nothing_is_lost_and_nothing_is_done_twice(run_directory: Path, smp: int, numa: int) -> None:
    with Session(smp=smp, numa=numa, tests=True, directory=run_directory) as session:
        mixed.on_four_cpus(session, COMMANDS_PER_CPU)
