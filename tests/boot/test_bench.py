"""A small `sidecar bench`: one guest in which every way to another CPU is tried, and what is written about it.

Exits are measured in the shared machine, without their guest instructions.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sidecar.__main__ as cli
from sidecar.bench import dispatch, exit_guest, exits, programs
from sidecar.layout.schema import PAGE_SIZE
from sidecar.layout.svm import VP_PAGES
from sidecar.qemu.linux_session import LinuxSession
from tests.support.stock_linux import StockLinux

pytestmark = [pytest.mark.timeout(300), pytest.mark.needs("gcc", "make", "nm")]


@pytest.fixture
def written(
    stock_linux: StockLinux, run_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], Path]:
    """What the command wrote: its JSON, and the directory with document and pictures."""
    monkeypatch.setattr(dispatch, "ROUNDS", 1)
    monkeypatch.setattr(dispatch, "COUNT", 100)
    monkeypatch.setattr(dispatch, "COUNTED", 12)
    arguments = ["--only", "dispatch", "--smp", "4", "--plot", str(run_directory)]
    arguments += ["--json", str(run_directory / "bench.json"), "--write", str(run_directory / "performance.md")]
    assert cli.main(["bench", *arguments]) == 0
    return json.loads((run_directory / "bench.json").read_text()), run_directory


def test_commands_are_measured_in_time_and_in_instructions(written: tuple[dict[str, Any], Path]) -> None:
    data, directory = written
    (group,) = data["groups"]
    assert group["name"] == "dispatch"
    ways = group["data"]
    assert set(ways) == {way.name for way in dispatch.WAYS}
    for way in dispatch.WAYS:
        assert all(100 < median < 10e9 for median in ways[way.name]["ns"]), way.name
        if way.counted:
            assert len(ways[way.name]["instructions"]) == 11, way.name
    theirs = ways["smp_call_function_single"]["instructions"]
    assert all(here > 50 and there > 500 for here, there in theirs)
    for way in dispatch.OURS:
        polled = ways[way.name]["instructions"]
        assert 40 <= min(there for _, there in polled) < 120, way.name  # the sidecar CPU's side of NONE
        assert min(map(sum, polled)) < 0.5 * statistics.median(map(sum, theirs)), way.name  # its idle loop varies
    document = (directory / "performance.md").read_text()
    assert "\n    sidecar bench --only dispatch\n" in document
    assert "| smp_call_function_single | " in document
    assert (directory / "dispatch.svg").read_text().startswith("<svg ")


@pytest.fixture
def guest(driven: LinuxSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[exits.Guest]:
    """The shared machine with KVM and the programs."""
    for name, few in (("ROUNDS", 1), ("COUNT", 50), ("LOOPED", 5), ("PAGES", 1024), ("LOOKS", 1)):
        monkeypatch.setattr(exits, name, few)
    for program in programs.exits(tmp_path):
        driven.guest.put(program, f"/root/{program.name}")
    driven.guest.put(exit_guest.image(), exits.IMAGE)
    driven.load_kvm()
    yield exits.Guest(driven)
    dispatch.look_for(driven.guest, 0, 0)
    driven.unload_kvm()


def test_exits_are_measured_beside_kvm(guest: exits.Guest) -> None:
    times = guest.times(lambda text: None)
    assert tuple(times) == exits.TRIED
    for (exit, way), (taken,) in times.items():
        assert 100 < taken.median < 10e9, f"{exit.name}: {way.name}"
    for way in (exits.SLEEPING, exits.KVM):
        assert all(VP_PAGES * PAGE_SIZE < size < 4 << 20 for size in guest.memory(way)), way.name
