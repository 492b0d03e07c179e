"""The model of the protocol: spin finds nothing wrong in it, and finds every defect that is put back."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from sidecar.cli import model as command
from sidecar.errors import UserError
from sidecar.layout.control import TRANSITIONS, Party, Transition
from sidecar.protocol.model import scenarios, spin, table
from sidecar.protocol.model.scenarios import Defect
from sidecar.protocol.model.spin import ModelError, Outcome, read_error

Key = TypeVar("Key")
ASSERTION = "assertion violated"
NOBODY_MOVES = "invalid end state"

EXPECTED = {
    Defect.COMPLETION_BEFORE_START: ASSERTION,
    Defect.REMOVAL_WAITS_FOR_THE_WRONG_VALUE: ASSERTION,
    Defect.CANCEL_BEFORE_THE_FIRST_RUN_IS_LOST: NOBODY_MOVES,
    Defect.CANCEL_BEFORE_THE_FIRST_RUN_EXECUTES_NOTHING: ASSERTION,
    Defect.REQUEST_OVERTAKES_THE_STORE: NOBODY_MOVES,
    Defect.REQUEST_AFTER_THE_LOCK: ASSERTION,
    Defect.INTERRUPTS_OPEN_TOO_EARLY: NOBODY_MOVES,
    Defect.QUIET_IS_READ_TOO_EARLY: NOBODY_MOVES,
    Defect.POLLING_IS_CLEARED_TOO_LATE: NOBODY_MOVES,
    Defect.POLLING_IS_READ_TOO_EARLY: NOBODY_MOVES,
    Defect.RESTART_WITHOUT_INIT: ASSERTION,
    Defect.RESTART_NEVER_GIVES_UP: "non-progress cycle",
    Defect.SECOND_INIT_WITHOUT_REVOKING: ASSERTION,
}


def at_once(searches: dict[Key, Callable[[], Outcome]]) -> dict[Key, Outcome]:
    """What the searches find: programs of one thread, as many at a time as there are CPUs."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(searches, pool.map(lambda search: search(), searches.values()), strict=True))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Of the short searches."""
    directory = tmp_path_factory.mktemp("model")
    return at_once({
        scenario.name: partial(spin.search, scenario, directory / scenario.name) for scenario in scenarios.SHORT
    })  # fmt: skip


@pytest.fixture(scope="module")
def defects_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each defect."""
    return tmp_path_factory.mktemp("defects")


@pytest.fixture(scope="module")
def with_defects(defects_directory: Path) -> dict[Defect, Outcome]:
    """Of the searches with a defect put back."""
    return at_once({
        defect: partial(spin.search, defect.scenario, defects_directory / defect.name, defect=defect)
        for defect in Defect
    })  # fmt: skip


@pytest.mark.needs("spin", "gcc")
@pytest.mark.timeout(900)
def test_no_state_is_wrong(outcomes: dict[str, Outcome]) -> None:
    for name, outcome in outcomes.items():
        assert outcome.error is None, f"{name}:\n{outcome.trail}"
        assert outcome.states > 100_000


@pytest.mark.needs("spin", "gcc")
@pytest.mark.timeout(900)
def test_every_row_of_the_table_is_made_by_the_model(outcomes: dict[str, Outcome]) -> None:
    """Else a search without errors would say nothing of that row."""
    made = frozenset[Transition]().union(*(outcome.covered for outcome in outcomes.values()))
    assert made == set(TRANSITIONS) - scenarios.OUTSIDE
    assert all(row.party is Party.DRIVER for row in scenarios.OUTSIDE)


@pytest.mark.needs("spin", "gcc")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("defect", Defect, ids=lambda defect: defect.name.lower())
def test_a_defect_is_found(defect: Defect, with_defects: dict[Defect, Outcome], defects_directory: Path) -> None:
    outcome = with_defects[defect]
    assert outcome.error is not None
    assert outcome.error.startswith(EXPECTED[defect])
    assert outcome.trail
    assert (defects_directory / defect.name / "trail.txt").read_text()


def test_the_bodies_know_every_defect() -> None:
    """A misspelt macro would put nothing back."""
    text = scenarios.promela()
    for defect in Defect:
        assert f"def {defect.name}\n" in text or f"defined({defect.name})" in text


def test_numbers_of_rows_are_unique() -> None:
    numbers = {table.number(row) for row in TRANSITIONS}
    assert len(numbers) == len(TRANSITIONS)
    assert scenarios.covered(numbers) == set(TRANSITIONS)
    assert max(numbers) < table.COUNT


def test_the_table_is_in_the_model() -> None:
    text = scenarios.promela()
    for row in TRANSITIONS:
        assert f"((old) == {row.old.name} && (new) == {row.new.name} && (party) == {row.party.name})" in text


# --- what pan says ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("State-vector 76 byte, depth reached 23, errors: 0", None),
        ("pan:1: invalid end state (at depth 12)\nWarning: Search not completed\nerrors: 1", "invalid end state"),
        ("errors: 3", "3 errors without a message"),
    ],
)
def test_reading_an_answer(said: str, expected: str | None) -> None:
    assert read_error(said) == expected


@pytest.mark.parametrize("limit", ["error: max search depth too small\nerrors: 0", "pan: reached -DMEMLIM bound"])
def test_a_search_that_was_cut_short_is_no_answer(limit: str) -> None:
    with pytest.raises(ModelError, match="spin has not visited every state of the model"):
        read_error(limit)


def test_nonsense_is_no_answer() -> None:
    with pytest.raises(ModelError, match=r"pan's answer has nothing like .* it ends: 'Segmentation fault'"):
        read_error("Segmentation fault")


def test_without_spin_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match=r"^spin is not on PATH; `tools/setup system` installs it$"):
        spin.search(scenarios.ONE_CPU, tmp_path)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.needs("spin", "gcc")
@pytest.mark.timeout(300)
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.search("one-cpu") == 0
    assert command.search("cancel-before-the-first-run-is-lost") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("one-cpu: no error; ")
    assert second.startswith("cancel-before-the-first-run-is-lost: invalid end state; ")


def test_an_unknown_name_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"^no scenario or defect 'nonsense'; there are one-cpu, hostile, "):
        command.chosen("nonsense")
