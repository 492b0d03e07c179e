"""Pages that change while a CPU works with them: nothing hangs, nothing faults that must not, no neighbour cares.

The same checks with many more examples are in tests/campaign; what they check is in tests/support/malformed_races.py.
"""

import hypothesis
from hypothesis import strategies

from sidecar.layout import CpuStatus
from sidecar.qemu.session import Session
from tests.support import malformed, malformed_races


@hypothesis.settings(max_examples=40)
@hypothesis.given(choices=malformed_races.requests)
def test_a_register_request_that_changes(plain: Session, choices: list[malformed.Request]) -> None:
    malformed_races.check_registers(plain, plain.cpus[1], choices)


def test_values_that_flicker_between_good_and_bad(plain: Session) -> None:
    malformed_races.check_flickering_values(plain, plain.cpus[1])


@hypothesis.settings(max_examples=30)
@hypothesis.given(choices=malformed_races.pages)
def test_a_command_page_that_changes(plain: Session, choices: list[malformed.Page]) -> None:
    malformed_races.check_page(plain, plain.cpus[1], choices)


@hypothesis.settings(max_examples=30)
@hypothesis.given(choices=malformed_races.raises)
def test_a_raise_that_changes(machine: Session, choices: list[tuple[int, int]]) -> None:
    malformed_races.check_raise(machine, machine.cpus[1], choices)


@hypothesis.settings(max_examples=50)
@hypothesis.given(choices=malformed_races.statuses, busy=strategies.booleans())
def test_a_status_that_changes(machine: Session, choices: list[int], busy: bool) -> None:
    malformed_races.check_status(machine, machine.cpus[1], choices, busy=busy)


def test_run_and_stop_flicker(machine: Session) -> None:
    """The CPU executes command after command, and is itself again when that is over."""
    for _ in range(20):
        choices = [CpuStatus.IDLE, CpuStatus.RUN, CpuStatus.STOP, CpuStatus.IDLE]
        malformed_races.check_status(machine, machine.cpus[1], choices, busy=False)


@hypothesis.settings(max_examples=20)
@hypothesis.given(choices=malformed_races.targets)
def test_a_response_target_that_changes(machine: Session, choices: list[tuple[int, int]]) -> None:
    malformed_races.check_control(machine, machine.cpus[1], choices)
