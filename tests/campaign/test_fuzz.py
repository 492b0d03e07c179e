"""The fuzzer for longer: more CPUs, several seeds."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.qemu.fuzz.player import Player
from sidecar.qemu.fuzz.steps import steps
from sidecar.qemu.session import Session

STEPS = 10_000


@pytest.fixture
def session(run_directory: Path) -> Iterator[Session]:
    with Session(smp=8, tests=True, directory=run_directory) as booted:
        yield booted


@pytest.mark.parametrize("seed", range(5))
def test_a_long_play(session: Session, seed: int) -> None:
    player = Player(session)
    for step in itertools.islice(steps(seed, list(session.cpus)), STEPS):
        player.play(step)
    player.recover()
    for cpu in session.cpus.values():
        cpu.none()
