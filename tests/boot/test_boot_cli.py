"""`sidecar boot` and `sidecar dump live` as a user calls them: in a process of their own, exit status and output."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidecar.layout import PAGE_SIZE, CpuStatus, PrivatePage, RaiseKind
from sidecar.protocol.decode import log_ring
from sidecar.protocol.errors import CpuFaulted
from sidecar.protocol.report import Section
from sidecar.qemu.session import Session
from sidecar.qemu.sizes import MIB
from tests.support.booted import fresh_directory, routine_at

SECONDS = 90
MEMORY = 64 * MIB
FAULTED = 2


def sidecar(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sidecar", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def boot(*arguments: str) -> subprocess.CompletedProcess[str]:
    return sidecar("boot", "--no-linux", *arguments)


# --- boot -------------------------------------------------------------------------------------------------------------


def test_boot_tells_of_every_cpu_in_json() -> None:
    done = boot("--smp", "4", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["smp"], told["fallback"], told["notes"]) == (4, None, [])
    assert [(node["node"], node["base_cpu"], node["cpu_count"]) for node in told["nodes"]] == [(0, 0, 4)]
    first, *others = told["cpus"]
    assert (first["linux"], first["state"], first["answered"], first["boot_us"]) == (0, "linux", False, None)
    for number, cpu in enumerate(others, start=1):
        assert (cpu["linux"], cpu["apic_id"], cpu["node"], cpu["index"]) == (number, number, 0, number)
        assert (cpu["state"], cpu["answered"], cpu["error"]) == ("idle", True, None)
        assert 0 < cpu["boot_us"] <= told["boot"]["start_us"]
    assert (told["boot"]["sidecar_cpus"], told["boot"]["answered"], told["boot"]["missing"]) == (3, 3, 0)


def test_boot_prints_a_table() -> None:
    done = boot("--smp", "5", "--numa", "2", "--memory", "128M", "--append", "sidecar.linux_cpus=1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("node 0: CPUs 0-2, NUMA node 0, ")
    assert lines[1].startswith("node 1: CPUs 3-4, NUMA node 1, ")
    states = [line.split()[5] for line in lines[3:8]]
    assert states == ["linux", "linux", "idle", "linux", "idle"]
    assert "2 of 2 sidecar CPUs answered NONE" in done.stdout


def test_a_fall_back_is_told_and_is_no_failure() -> None:
    done = boot("--smp", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["fallback"], told["cpus"]) == ("the machine has one CPU", [])


def test_a_missing_cpu_is_a_failure() -> None:
    done = boot("--smp", "2", "--json", "--timeout", "80", "--append", "sidecar.phantom=77")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["notes"] == ["the CPU with APIC id 77 did not start"]
    assert [cpu["state"] for cpu in told["cpus"]] == ["linux", "idle", "removed"]
    assert [cpu["answered"] for cpu in told["cpus"]] == [False, True, False]
    assert told["cpus"][2]["error"].startswith("CPU 2 (APIC id 0x4d, node 0, index 2) ")


@pytest.mark.parametrize(("arguments", "complaint"), [
    (("--smp", "0"), "'0' is not a number of at least 1"),
    (("--smp", "5000"), "a machine has 1 to 4096 CPUs, not 5000"),
    (("--smp", "2", "--numa", "3"), "2 CPUs make 1 to 2 NUMA nodes, not 3"),
    (("--memory", "1x"), "'1x' is not a memory size"),
    (("--memory", "3M"), "3M of memory cannot be shared out"),
    (("--nonsense",), "unrecognized arguments: --nonsense"),
])  # fmt: skip
def test_a_mistake_is_one_sentence_and_status_2(arguments: tuple[str, ...], complaint: str) -> None:
    done = boot(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_boot_that_takes_too_long_says_what_the_console_said() -> None:
    done = boot("--smp", "2", "--timeout", "1", "--append", "sidecar.phantom=77")
    assert (done.returncode, done.stdout) == (1, "")
    assert "was not ready after 1 s; the console ends:" in done.stderr
    assert "shim: boot shim, ABI version" in done.stderr
    assert "Traceback" not in done.stderr


# --- dump live --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Live:
    """A stopped machine, its QMP socket, and a file with its memory."""

    session: Session
    sources: dict[str, tuple[str | Path, ...]]

    def dump(self, *arguments: str) -> Any:
        """What the running machine's dump says; the other source is compared as text below."""
        done = sidecar("dump", "live", *self.sources["qmp"], *arguments, "--format", "json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    directory = fresh_directory(request)
    socket, ram = directory / "qmp", directory / "ram"
    with Session(
        smp=4, memory_bytes=MEMORY, tests=True, append="sidecar.linux_cpus=3", directory=directory, qmp_socket=socket
    ) as session:
        session.cpus[1].set_registers({"HvX64RegisterDr0": 0x1234})
        with pytest.raises(CpuFaulted):
            session.cpus[FAULTED].raise_fault(RaiseKind.INVALID_OPCODE)
        session.machine.stop()
        session.machine.qmp("pmemsave", val=0, size=MEMORY, filename=str(ram))
        yield Live(session, {"qmp": ("--qmp", socket), "ram": ("--ram", ram)})
        ram.unlink()


def test_overview(live: Live) -> None:
    told = live.dump()
    assert [cpu["state"] for cpu in told["cpus"]] == ["linux", "idle", "faulted", "linux"]
    assert told["nodes"][0]["control_pa"] == live.session.found.nodes[0].control_pa
    assert told["missing_count"] == 0


def test_control(live: Live) -> None:
    (node,) = live.dump("control")
    assert [cpu["status"] for cpu in node["cpus"]] == ["removed", "idle", "faulted", "removed"]
    assert (node["request_vector"], node["beyond"]) == (0x20, [])


def test_command(live: Live) -> None:
    (entry,) = live.dump("command", "--cpu", "1")
    assert (entry["linux_number"], entry["sequence"], entry["completed_sequence"]) == (1, 1, 1)
    assert not entry["has_error"]


def test_boot(live: Live) -> None:
    first, second = live.dump("boot")
    assert [first["linux_number"], second["linux_number"]] == [1, 2]
    for entry in (first, second):
        assert (entry["arrivals"], entry["found_apic_id"]) == (1, entry["apic_id"])
        times = list(entry["phases"].values())
        assert times == sorted(times)


def test_fault(live: Live) -> None:
    healthy, faulted = live.dump("fault")
    assert healthy["count"] == 0
    fault = live.session.driver.fault(FAULTED)
    assert fault is not None
    assert (faulted["count"], faulted["vector"], faulted["exception"]) == (1, 6, "#UD")
    assert faulted["rip"] == fault.rip
    assert faulted["where"].startswith(routine_at(fault.rip))
    assert faulted["counters"]["commands"] == 1


def test_log(live: Live) -> None:
    found, ram = live.session.found, live.session.machine.ram
    for entry in live.dump("log"):
        cpu = found.cpu(entry["linux_number"])
        expected = log_ring(found.read_private(ram, cpu, PrivatePage.LOG))
        assert entry["lines"] == expected["lines"]
        assert entry["lines"][0] == f"sidecar: cpu {cpu.linux_number}: APIC id {cpu.apic_id}: arrival 1"


def test_page_tables(live: Live) -> None:
    entries = live.dump("page-tables")
    for entry in entries:
        assert entry["differences"] == []
        names = {name for one in entry["ranges"] for name in one["what"]}
        assert {"image", "cpu_map", "command_page", "stack"} <= names
    assert len({entry["root_pa"] for entry in entries}) == 2


@pytest.mark.parametrize("section", [None, *Section])
def test_every_section_is_text_too_and_the_same_from_both_sources(live: Live, section: Section | None) -> None:
    words = [] if section is None else [str(section)]
    texts = [sidecar("dump", "live", *where, *words) for where in live.sources.values()]
    assert [(done.returncode, done.stderr) for done in texts] == [(0, "")] * 2
    assert texts[0].stdout == texts[1].stdout
    assert len(texts[0].stdout.splitlines()) >= 3


def test_mistakes_of_a_dump_are_one_sentence_and_status_2(live: Live, tmp_path: Path) -> None:
    nothing, cut, empty = tmp_path / "nothing", tmp_path / "cut", tmp_path / "empty"
    nothing.write_bytes(bytes(MEMORY // 16))
    cut.write_bytes(live.session.machine.ram.read(0, 64 * PAGE_SIZE))
    empty.write_bytes(b"")
    ram = live.sources["ram"]
    for arguments, complaint in (
        (("--qmp", tmp_path / "none"), "is no QMP socket that answers"),
        (("--ram", tmp_path / "none"), "there is no RAM in"),
        (("--ram", empty), "there is no RAM in"),
        (("--ram", nothing), "no sidecar in this memory"),
        (("--ram", cut), "cannot be scanned"),
        ((*ram, "boot", "--cpu", "4"), "there is no CPU 4: the machine has CPUs 0 to 3"),
        ((*ram, "boot", "--cpu", "-1"), "there is no CPU -1"),
        ((*ram, "--cpu", "1"), "--cpu needs one of the sections"),
        ((*ram, "stack"), "invalid choice: 'stack'"),
        ((), "one of the arguments --qmp --ram is required"),
    ):
        done = sidecar("dump", "live", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert complaint in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_dumping_changes_nothing(live: Live) -> None:
    assert live.session.driver.status(1) == CpuStatus.IDLE
    live.session.machine.cont()
    live.session.cpus[1].none()
    live.session.cpus[FAULTED].restart()
    live.session.cpus[FAULTED].none()
    live.session.machine.stop()
