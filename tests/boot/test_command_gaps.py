"""MEASURE_GAPS: the ticks that were looked at are all accounted for, and STOP ends it."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.layout import GapsAnswer, RaiseKind, SidecarCommand
from sidecar.layout.command import GAP_BINS
from sidecar.protocol.errors import SidecarCommandError
from sidecar.protocol.requests import raise_request
from sidecar.qemu.session import Session
from tests.support.cpus import module_directory, tidy

TICKS = 50_000_000


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(smp=2, tests=True, directory=module_directory(request)) as session:
        yield session


@pytest.fixture
def session(machine: Session) -> Session:
    tidy(machine)
    return machine


@pytest.fixture(autouse=True)
def run_directory(machine: Session) -> Path:
    return machine.machine.directory


def answer(data: bytes) -> tuple[int, int, list[int], list[int]]:
    """Ticks, the longest gap, ticks by highest bit, gaps by highest bit."""
    ticks, longest = struct.unpack_from("<2Q", data, int(GapsAnswer.ticks))
    sums = struct.unpack_from(f"<{GAP_BINS}Q", data, int(GapsAnswer.sums))
    counts = struct.unpack_from(f"<{GAP_BINS}I", data, int(GapsAnswer.counts))
    return ticks, longest, list(sums), list(counts)


def test_all_ticks_are_accounted_for(session: Session) -> None:
    data = session.cpus[1].execute(SidecarCommand.RAISE, raise_request(RaiseKind.MEASURE_GAPS, TICKS))
    ticks, longest, sums, counts = answer(data)
    assert ticks >= TICKS
    assert sum(sums) == ticks
    assert sum(counts) > 100
    highest = max(bit for bit, count in enumerate(counts) if count)
    assert longest.bit_length() == highest + 1
    for bit, (total, count) in enumerate(zip(sums, counts, strict=True)):
        assert count << bit <= total + (bit == 0) * count
        assert total < count << (bit + 1) or count == 0


def test_stop_ends_it(session: Session) -> None:
    run = session.cpus[1].start(SidecarCommand.RAISE, raise_request(RaiseKind.MEASURE_GAPS, (1 << 64) - 1))
    assert run.stop()
    ticks, _, sums, _ = answer(run.wait())
    assert sum(sums) == ticks
    session.cpus[1].none()


def test_it_is_refused_like_every_provocation(run_directory: Path) -> None:
    request = raise_request(RaiseKind.MEASURE_GAPS, TICKS)
    with Session(smp=2, directory=run_directory / "plain") as plain, pytest.raises(SidecarCommandError, match="RAISE"):
        plain.cpus[1].execute(SidecarCommand.RAISE, request)
