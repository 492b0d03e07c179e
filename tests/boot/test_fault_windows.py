"""An NMI between any two instructions: while a fault is reported, while a command ends, while a CPU goes or arrives.

Here at some of the instructions, in tests/campaign at all of them.
"""

from pathlib import Path

import pytest

from tests.support import window_checks

EVERY = 3


@pytest.mark.parametrize("check", window_checks.CHECKS, ids=lambda check: check.__name__)
def test_an_nmi_at_some_instructions(run_directory: Path, check: window_checks.Check) -> None:
    check(run_directory, EVERY)


def test_a_command_at_some_instructions_before_hlt(run_directory: Path) -> None:
    window_checks.asked_while_it_looks(run_directory, EVERY)


def test_a_removal_that_is_taken_back(run_directory: Path) -> None:
    window_checks.removal_taken_back(run_directory)
