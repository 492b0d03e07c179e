"""The long searches of the protocol's model: two clients and everything that may go wrong, two CPUs with conversion."""

from pathlib import Path

import pytest

from sidecar.protocol.model import scenarios, spin
from sidecar.protocol.model.scenarios import Scenario


@pytest.mark.needs("spin", "gcc")
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("scenario", scenarios.LONG, ids=lambda scenario: scenario.name)
def test_no_state_is_wrong(scenario: Scenario, tmp_path: Path) -> None:
    outcome = spin.search(scenario, tmp_path)
    assert outcome.error is None, outcome.trail
    assert outcome.states > 500_000
