"""What tests/boot does to virtual processors a few times, often: hostile guests, cancels and doorbells."""

import random
from pathlib import Path

import pytest

from sidecar.qemu.session import Session
from tests.support import cpus, guests, hostile, vp_races

SEEDS_PER_MACHINE = 1000
MACHINES = 10
RACES = 500_000
SECONDS = 4 * 3600


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("number", range(MACHINES))
def test_hostile_guests(run_directory: Path, number: int) -> None:
    first = number * SEEDS_PER_MACHINE
    with Session(smp=2, tests=True, directory=run_directory) as session:
        for seed in range(first, first + SEEDS_PER_MACHINE):
            with guests.virtual_processor(session, memory_bytes=hostile.MEMORY_BYTES) as vp:
                ends = list(hostile.attack(session, vp, random.Random(seed)))
            assert ends, f"seed {seed}"
        assert cpus.faults(session.cpus[1]) == 0


@pytest.mark.timeout(SECONDS)
def test_cancels_race_the_guest(run_directory: Path) -> None:
    with Session(smp=2, directory=run_directory) as session, guests.virtual_processor(session) as vp:
        vp_races.race_cancels(vp, RACES, random.Random(3))


@pytest.mark.timeout(SECONDS)
def test_doorbells_race_exits(run_directory: Path) -> None:
    with Session(smp=2, directory=run_directory) as session, guests.virtual_processor(session) as vp:
        vp_races.race_doorbells(vp, RACES, random.Random(4))
