"""An NMI between any two instructions: while a fault is reported, while a command ends, while a CPU goes or arrives."""

from pathlib import Path

import pytest

from tests.support import window_checks


@pytest.mark.parametrize("check", window_checks.CHECKS, ids=lambda check: check.__name__)
def test_an_nmi_at_every_instruction(run_directory: Path, check: window_checks.Check) -> None:
    check(run_directory, 1)
