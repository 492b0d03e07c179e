"""A driver's random behaviour against the reference model, and that the comparison sees what is wrong."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from sidecar.__main__ import main
from sidecar.layout import ControlPage, CpuStatus
from sidecar.qemu.fuzz import model
from sidecar.qemu.fuzz.player import Difference, Player
from sidecar.qemu.fuzz.steps import FAULTS, STRAY_VECTORS, WRONG_STATUSES, Action, Step, steps
from sidecar.qemu.session import Session
from tests.support.booted import fresh_directory

CPUS = (1, 2, 3)
BITS = st.integers(0, (1 << 72) - 1)
ARGUMENTS = {
    Action.SET: BITS, Action.SET_RESERVED: BITS, Action.GARBAGE: BITS,
    Action.UNKNOWN: st.integers(0x200, (1 << 32) - 1), Action.BAD_COUNT: st.integers(32, 0xFFFF) | st.just(0),
    Action.FAULT: st.sampled_from(FAULTS), Action.REQUEST: st.integers(1, 4),
    Action.STRAY: st.sampled_from(STRAY_VECTORS), Action.STATUS: st.sampled_from(WRONG_STATUSES),
}  # fmt: skip
STEPS = st.sampled_from(Action).flatmap(
    lambda action: st.builds(Step, st.just(action), st.sampled_from(CPUS), ARGUMENTS.get(action, st.just(0)))
)


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=4, tests=True, directory=fresh_directory(request)) as booted:
        yield booted


@pytest.fixture(autouse=True)
def run_directory(session: Session) -> Path:
    return session.machine.directory


@pytest.fixture
def player(session: Session) -> Iterator[Player]:
    """On a machine whose CPUs are as they were after boot."""
    for cpu in session.cpus.values():
        cpu.restart()
    yield Player(session)
    session.driver.look_again()
    for cpu in session.cpus.values():
        if cpu.status == CpuStatus.REMOVED:
            session.driver.give_back(cpu.number)


def test_the_steps_of_a_seed(player: Player) -> None:
    for step in itertools.islice(steps(7, list(CPUS)), 500):
        player.play(step)
    assert {step.action for step in player.played} == set(Action)


def test_orders_that_hypothesis_finds(session: Session) -> None:
    class Driver(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            for cpu in session.cpus.values():
                cpu.restart()
            self.player = Player(session)

        @rule(step=STEPS)
        def play(self, step: Step) -> None:
            self.player.play(step)

        def teardown(self) -> None:
            self.player.recover()

    run_state_machine_as_test(Driver, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))


# --- it sees what is wrong ---


def test_a_register_that_changed(session: Session, player: Player) -> None:
    player.play(Step(Action.SET, 1, 5))
    session.cpus[1].set_registers({"HvX64RegisterDr3": 0x1234})
    with pytest.raises(Difference, match=r"CPU 1 .*: register 0x50003: expected 0x0, got 0x1234"):
        player.play(Step(Action.GET, 1))


def test_a_command_that_was_executed_twice(
    session: Session, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is waited for as one too few is: here not for long."""
    monkeypatch.setattr("sidecar.qemu.fuzz.player.SECONDS", 2.0)
    session.cpus[2].none()
    with pytest.raises(Difference, match=r"none:2:0x0: CPU 2 .*: commands: expected 1, got 2"):
        player.play(Step(Action.NONE, 2))


def test_another_cpu_that_was_disturbed(session: Session, player: Player) -> None:
    status = session.found.nodes[0].control_pa + ControlPage.cpu_status + 3
    session.machine.ram.write(status, bytes([CpuStatus.REMOVED]))
    try:
        with pytest.raises(Difference, match="none:1:0x0: CPU 3 was disturbed: expected idle, got REMOVED"):
            player.play(Step(Action.NONE, 1))
    finally:
        session.machine.ram.write(status, bytes([CpuStatus.IDLE]))


# --- the command ---


def test_the_command_plays_and_tells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "--smp", "2", "--seed", "3", "--steps", "60"]) == 0
    assert capsys.readouterr().out == "60 steps on 1 CPUs, no difference\n"


def test_a_difference_is_told_with_what_reproduces_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is wrong here: it believes that a request interrupt is a command."""
    monkeypatch.setitem(model._EXPECT, Action.REQUEST, model.CpuModel.done)
    monkeypatch.setattr("sidecar.qemu.fuzz.player.SECONDS", 1.0)
    file = tmp_path / "steps"
    file.write_text("none:1:0\nstray:1:0x40\nrequest:1:1\nnone:1:0\n")
    assert main(["fuzz", "--smp", "2", "--replay", str(file)]) == 1
    told = capsys.readouterr()
    sentence = "request:1:0x1: CPU 1 (APIC id 0x1, node 0, index 1): commands: expected 2, got 1"
    assert told.err.startswith(f"sidecar: {sentence}")
    assert told.out.splitlines() == [
        "the last 8 steps: none:1:0x0 stray:1:0x40 request:1:0x1",
        "the last events of CPU 1: 0 arrival 1, 1 from run, 2 none, 3 from run",
        f"again: sidecar fuzz --smp 2 --replay {file}",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("none:1", "step 1: expected action:cpu:argument such as none:1:0x0, got 'none:1'"),
        ("none:1:0 dance:1:0", "step 2: expected action:cpu:argument such as none:1:0x0, got 'dance:1:0'"),
        ("none:7:0", "step 1: the machine has no sidecar CPU 7; see --smp"),
    ],
)
def test_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, sentence: str) -> None:
    file = tmp_path / "steps"
    file.write_text(text)
    assert main(["fuzz", "--smp", "2", "--replay", str(file)]) == 2
    assert capsys.readouterr().err == f"sidecar: --replay {file}, {sentence}\n"
