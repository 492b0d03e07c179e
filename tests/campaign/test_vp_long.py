"""What tests/boot does to virtual processors a few times, often: hostile guests, cancels and doorbells."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.qemu.machine import MachineDied
from sidecar.qemu.session import Session
from tests.support import cpus, guests, hostile, vp_races

SEEDS_PER_MACHINE = 1000
MACHINES = 10
MOST_QEMUS = 3
"""Of a machine's guests, so many may end QEMU itself by code that they change at run time; about 1 in 3000 does."""
RACES = 500_000
SECONDS = 4 * 3600


def play(seeds: Iterator[int], directory: Path) -> int | None:
    """One machine, a guest for each seed. The seed whose guest ended QEMU itself (docs/decisions.md), None if none did.

    That is believed if the guest's memory has such an instruction now, which it had not at the beginning.
    """
    with Session(smp=2, tests=True, directory=directory) as session:
        for seed in seeds:
            memory = b""
            try:
                with guests.virtual_processor(session, memory_bytes=hostile.MEMORY_BYTES) as vp:
                    try:
                        ends = list(hostile.attack(session, vp, random.Random(seed)))
                    finally:
                        memory = bytes(vp.memory)
            except MachineDied:
                if not hostile.ends_qemu(memory):
                    raise
                return seed
            assert ends, f"seed {seed}"
        assert cpus.faults(session.cpus[1]) == 0
    return None


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("number", range(MACHINES))
def test_hostile_guests(run_directory: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    first = number * SEEDS_PER_MACHINE
    seeds = iter(range(first, first + SEEDS_PER_MACHINE))
    ended: list[int] = []
    while (seed := play(seeds, run_directory)) is not None:
        ended.append(seed)
        assert len(ended) <= MOST_QEMUS
    if ended:
        with capsys.disabled():
            print(f"\n  these guests ended QEMU by an instruction that they had made: {ended}")


@pytest.mark.timeout(SECONDS)
def test_cancels_race_the_guest(run_directory: Path) -> None:
    with Session(smp=2, directory=run_directory) as session, guests.virtual_processor(session) as vp:
        vp_races.race_cancels(vp, RACES, random.Random(3))


@pytest.mark.timeout(SECONDS)
def test_doorbells_race_exits(run_directory: Path) -> None:
    with Session(smp=2, directory=run_directory) as session, guests.virtual_processor(session) as vp:
        vp_races.race_doorbells(vp, RACES, random.Random(4))
