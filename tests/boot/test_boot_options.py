"""Words on the command line that say which CPUs the sidecar gets, well-formed or not."""

from pathlib import Path

import pytest

from sidecar.layout import CpuPolicy, CpuStatus
from sidecar.protocol.errors import CpuAway
from sidecar.protocol.slot import DriverState
from sidecar.qemu.session import Session

BAD_LISTS = {
    "": set(),
    "x": set(),
    "2,x": {2},
    "3-1": set(),
    "1-": set(),
    "-1": set(),
    "1,,2": {1},
    "5-6,": {5, 6},
    "2048": set(),
    "99999999999999999999": set(),
    "0x2": set(),
}
"""Malformed lists, and which CPUs are Linux's by what stands before the mistake."""


def left_to_linux(session: Session) -> set[int]:
    """CPUs that are Linux's, apart from the first of the one node."""
    found = session.found
    linux = {cpu.linux_number for cpu in found.cpus if cpu.policy == CpuPolicy.LINUX}
    removed = {cpu.linux_number for cpu in found.cpus if found.status(session.machine.ram, cpu) == CpuStatus.REMOVED}
    idle = {cpu.linux_number for cpu in found.cpus if found.status(session.machine.ram, cpu) == CpuStatus.IDLE}
    assert linux == removed
    assert idle == set(session.cpus) == set(range(session.smp)) - linux
    return linux - {0}


def answer_all(session: Session) -> None:
    for cpu in session.cpus.values():
        cpu.none()


def test_cpus_left_to_linux_are_removed_and_the_others_idle(run_directory: Path) -> None:
    with Session(smp=8, append="quiet sidecar.linux_cpus=2,5-6 root=/dev/vda", directory=run_directory) as session:
        assert left_to_linux(session) == {2, 5, 6}
        assert session.notes == []
        answer_all(session)
        for number in (2, 5, 6):
            assert session.driver.state(number) is DriverState.REMOVED
            assert session.driver.pages(number).diagnostic.boot.arrivals == 0
            with pytest.raises(CpuAway, match="removed or is run by Linux"):
                session.driver.run(number)


@pytest.mark.parametrize(("words", "left"), [
    ("sidecar.linux_cpus=0", set()),
    ("sidecar.linux_cpus=2 sidecar.linux_cpus=4", {2, 4}),
    ("sidecar.linux_cpus=6-2047", {6, 7}),
    ("xsidecar.linux_cpus=1 sidecar.linux_cpus=3-3", {3}),
])  # fmt: skip
def test_unusual_lists(words: str, left: set[int], run_directory: Path) -> None:
    with Session(smp=8, append=words, directory=run_directory) as session:
        assert left_to_linux(session) == left
        assert session.notes == []


@pytest.mark.parametrize("bad", BAD_LISTS)
def test_a_malformed_list_is_noted_and_the_boot_goes_on(bad: str, run_directory: Path) -> None:
    with Session(smp=8, append=f"sidecar.linux_cpus={bad}", directory=run_directory) as session:
        expected = "sidecar.linux_cpus: expected numbers and ranges below 2048 such as 1,4-7, got:"
        assert session.notes == [f"{expected} {bad}".rstrip()]
        assert left_to_linux(session) == BAD_LISTS[bad]
        answer_all(session)


@pytest.mark.parametrize("word", ["sidecar=maybe", "sidecar", "sidecar=off2", "sidecar.phantom=x"])
def test_an_unknown_option_is_noted_and_left_to_linux(word: str, run_directory: Path) -> None:
    with Session(smp=2, append=f"{word} sidecar.linux_cpus=0", directory=run_directory) as session:
        assert session.notes == [f"no option of the shim, left to Linux, at: {word} sidecar.linux_cpus=0"]
        answer_all(session)


def test_a_long_command_line(run_directory: Path) -> None:
    with Session(smp=4, append=f"{'x' * 1000} sidecar.linux_cpus=3", directory=run_directory) as session:
        assert left_to_linux(session) == {3}
