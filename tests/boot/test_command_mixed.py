"""10,000 mixed, sequence-numbered commands over four CPUs and four host threads, with STOP racing completion.

What a command is and what is checked: tests/support/mixed.py. The same with 100,000 commands is in tests/campaign.
"""

from pathlib import Path

from sidecar.qemu.session import Session
from tests.support import mixed

COMMANDS_PER_CPU = 2_500


def test_nothing_is_lost_and_nothing_is_done_twice(run_directory: Path) -> None:
    with Session(smp=5, tests=True, directory=run_directory) as session:
        mixed.on_four_cpus(session, COMMANDS_PER_CPU)
