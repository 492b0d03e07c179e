"""Malformed pages by the thousand; what is checked is in malformed*.py of tests/support."""

import hypothesis
from hypothesis import strategies

from sidecar.qemu.session import Session
from tests.support import malformed, malformed_control, malformed_races


@hypothesis.settings(max_examples=5000)
@hypothesis.given(page=malformed.pages)
def test_any_command_page(plain: Session, page: malformed.Page) -> None:
    malformed.check_command_page(plain, plain.cpus[2], bytes(page))


@hypothesis.settings(max_examples=3000)
@hypothesis.given(kind=malformed.raise_kinds, argument=malformed.raise_arguments)
def test_any_raise(machine: Session, kind: int, argument: int) -> None:
    malformed.check_raise(machine, machine.cpus[2], kind, argument)


@hypothesis.settings(max_examples=2000)
@hypothesis.given(statuses=strategies.lists(malformed.status_bytes, min_size=1, max_size=10))
def test_any_statuses_during_a_command(machine: Session, statuses: list[int]) -> None:
    malformed_control.check_status_during_a_command(machine, machine.cpus[2], statuses)


@hypothesis.settings(max_examples=3000)
@hypothesis.given(target=malformed.response_targets)
def test_any_response_target(machine: Session, target: tuple[int, int]) -> None:
    malformed_control.check_response_target(machine, machine.cpus[2], *target)


@hypothesis.settings(max_examples=500)
@hypothesis.given(seed=malformed.u32)
def test_garbage_on_the_control_page(machine: Session, seed: int) -> None:
    malformed_control.check_control_page(machine, machine.cpus[2], seed)


@hypothesis.settings(max_examples=1000)
@hypothesis.given(choices=malformed_races.requests)
def test_a_register_request_that_changes(plain: Session, choices: list[malformed.Request]) -> None:
    malformed_races.check_registers(plain, plain.cpus[1], choices)


@hypothesis.settings(max_examples=1000)
@hypothesis.given(choices=malformed_races.pages)
def test_a_command_page_that_changes(plain: Session, choices: list[malformed.Page]) -> None:
    malformed_races.check_page(plain, plain.cpus[1], choices)


@hypothesis.settings(max_examples=500)
@hypothesis.given(choices=malformed_races.raises)
def test_a_raise_that_changes(machine: Session, choices: list[tuple[int, int]]) -> None:
    malformed_races.check_raise(machine, machine.cpus[1], choices)


@hypothesis.settings(max_examples=1000)
@hypothesis.given(choices=malformed_races.statuses, busy=strategies.booleans())
def test_a_status_that_changes(machine: Session, choices: list[int], busy: bool) -> None:
    malformed_races.check_status(machine, machine.cpus[1], choices, busy=busy)


@hypothesis.settings(max_examples=500)
@hypothesis.given(choices=malformed_races.targets)
def test_a_response_target_that_changes(machine: Session, choices: list[tuple[int, int]]) -> None:
    malformed_races.check_control(machine, machine.cpus[1], choices)
