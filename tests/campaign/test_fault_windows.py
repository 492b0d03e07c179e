"""An NMI between any two instructions: while a fault is reported, while a command ends, while a CPU goes or arrives.

And a CPU that stands still in between.
"""

from pathlib import Path

import pytest

from tests.support import window_checks


@pytest.mark.parametrize("check", window_checks.CHECKS, ids=lambda check: check.__name__)
def test_an_nmi_at_every_instruction(run_directory: Path, check: window_checks.Check) -> None:
    check(run_directory, 1)


def test_an_nmi_at_every_instruction_that_sets_registers(run_directory: Path) -> None:
    window_checks.during_register_commands(run_directory)


def test_a_command_at_every_instruction_before_hlt(run_directory: Path) -> None:
    window_checks.asked_while_it_looks(run_directory, 1)


def test_a_cpu_held_in_the_middle_of_every_change_of_status(run_directory: Path) -> None:
    window_checks.held_in_a_transition(run_directory)
