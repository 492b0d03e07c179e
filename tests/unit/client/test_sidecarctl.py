"""`sidecarctl` over simulated ways to the CPUs: text, JSON, mistakes, exit statuses."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.client.__main__ import main
from sidecar.client.cli import watch
from sidecar.client.sidecar import Sidecar
from sidecar.layout import CpuStatus, RaiseKind, SidecarCommand, abi_hash
from sidecar.layout.diagnostics import RecorderEvent
from sidecar.protocol.commands import raise_request
from tests.support.guest import Guest
from tests.support.simulated_cpu import UNKNOWN_COMMAND
from tests.support.simulated_sidecar import SimulatedSidecar

NUMBERS = {"linux_number": 1, "apic_id": 0x101, "node": 0, "index": 1}

Call = Callable[..., Any]


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    with SimulatedSidecar((3, 2)) as simulated:
        yield Guest(simulated, tmp_path)


@pytest.fixture(params=["driver", "no-module"])
def backing(request: pytest.FixtureRequest, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every command in its own client, as every process has its own."""
    open_it = guest.with_driver if request.param == "driver" else guest.without_module

    def open_sidecar(backing: str) -> Sidecar:
        assert backing == "auto"
        return open_it()

    monkeypatch.setattr(Sidecar, "open", open_sidecar)
    return str(request.param)


@pytest.fixture
def ctl(backing: str, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command that succeeds and returns its lines, or with --json its data."""

    def run(*arguments: str, status: int = 0) -> Any:
        assert main(arguments) == status
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out.splitlines()

    return run


@pytest.fixture
def wrong(backing: str, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command that fails and returns its exit status and its one sentence."""

    def run(*arguments: str) -> tuple[int, str]:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(str(end.code))
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return status, error.rstrip("\n")

    return run


def test_list(ctl: Call, backing: str) -> None:
    assert ctl("list") == [
        "node 0: CPUs 0-2, NUMA node 0, 152 KiB of memory",
        "node 1: CPUs 3-4, NUMA node 1, 104 KiB of memory",
        f"by way of: {backing}",
        "CPU  APIC id  node  index  state",
        "0    0x100    0     0      linux",
        "1    0x101    0     1      idle",
        "2    0x102    0     2      idle",
        "3    0x103    1     0      linux",
        "4    0x104    1     1      idle",
    ]


def test_list_as_json(ctl: Call, backing: str) -> None:
    data = ctl("list", "--json")
    assert (data["backing"], data["abi_hash"]) == (backing, abi_hash())
    assert data["cpus"][1] == {**NUMBERS, "state": "idle"}
    assert data["nodes"][1] == {
        "number": 1, "base_cpu": 3, "cpu_count": 2, "numa_node": 1, "memory_numa_node": 1, "memory_bytes": 26 * 4096,
    }


def test_ping(ctl: Call) -> None:
    head, *rows = ctl("ping")
    assert head.split() == ["CPU", "APIC", "id", "node", "index", "answered", "us"]
    assert [row.split()[:5] for row in rows] == [
        ["1", "0x101", "0", "1", "yes"], ["2", "0x102", "0", "2", "yes"], ["4", "0x104", "1", "1", "yes"],
    ]
    (answer,) = ctl("ping", "1:1", "--count", "3", "--json")["cpus"]
    assert (answer["linux_number"], answer["answered"], answer["error"]) == (4, True, None)
    assert answer["microseconds"] > 0


def test_a_cpu_that_does_not_answer(ctl: Call, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.protocol.recovery.ARRIVE_SECONDS", 0.05)
    guest.sidecar.cpus[2].deaf = True
    *_, sentence = ctl("ping", "1", "2", "--seconds", "0.05", status=1)
    assert sentence.startswith("CPU 2 (APIC id 0x102, node 0, index 2) did not finish NONE within 0.05 s")
    assert sentence.endswith("it did not come back after INIT and STARTUP: lost")


def test_registers(ctl: Call) -> None:
    assert ctl("regs", "1", "dr0=0x1000", "HvX64RegisterDr1") == ["HvX64RegisterDr0  0x1000", "HvX64RegisterDr1  0x0"]
    data = ctl("regs", "apic:0x101", "--json")
    assert data["registers"]["HvX64RegisterDr0"] == 0x1000
    assert len(data["registers"]) > 31
    assert {name: data[name] for name in NUMBERS} == NUMBERS


def test_run(ctl: Call) -> None:
    assert ctl("run", "1") == ["command    none", "TSC ticks  0", "hex        none"]
    data = ctl("run", "1", "--command", "raise", "--kind", "vector", "--argument", "0x40", "--json")
    assert data == {
        **NUMBERS, "state": "idle", "command": "raise", "tsc_ticks": 0, "answer": {"kind": "vector", "argument": 0x40},
    }


def test_run_of_what_the_cpu_refuses(wrong: Call) -> None:
    status, sentence = wrong("run", "1", "--command", "0x63", "--data", "00ff")
    assert status == 1
    assert sentence.endswith(f"answered command 0x63 with an error: {UNKNOWN_COMMAND}")


def test_a_fault(ctl: Call, wrong: Call) -> None:
    assert ctl("faults") == ["no CPU has had a fault"]
    status, sentence = wrong("run", "1", "--command", "raise", "--kind", "page_fault", "--argument", "0x1234")
    assert status == 1
    assert "faulted: #PF (vector 14)" in sentence
    lines = ctl("faults")
    assert lines[0] == "CPU 1 (APIC id 0x101, node 0, index 1)"
    assert any(line.split() == ["cr2", "0x1234"] for line in lines)
    (entry,) = ctl("faults", "--json")
    assert (entry["exception"], entry["cr2"], entry["state"]) == ("#PF", 0x1234, "faulted")
    assert ctl("restart", "1")[0].startswith("CPU 1 (APIC id 0x101, node 0, index 1) is idle after ")
    assert ctl("ping", "1", "--json")["cpus"][0]["answered"]


def test_log(ctl: Call, guest: Guest) -> None:
    assert ctl("log", "1") == ["CPU 1 (APIC id 0x101, node 0, index 1)", "the log is empty"]
    assert [entry["lines"] for entry in ctl("log", "--json")] == [[], [], []]


def test_convert_and_return(ctl: Call, guest: Guest) -> None:
    assert ctl("convert", "1", "--json")["state"] == "linux"
    assert guest.linux.is_online(1)
    assert [row.split()[0] for row in ctl("ping")[1:]] == ["2", "4"]
    assert "Linux runs it" in ctl("ping", "1", status=1)[-1].replace("is run by Linux", "Linux runs it")
    assert ctl("return", "1", "--json")["state"] == "idle"
    assert ctl("ping", "1")


def test_watch(ctl: Call, guest: Guest) -> None:
    """A fault between two looks is a line."""
    timer = threading.Timer(0.1, lambda: guest.sidecar.cpus[1].fault(13))
    timer.start()
    (line,) = ctl("watch", "--interval", "0.4", "--looks", "1")
    assert line.split(" ", 1)[1] == "CPU 1 (APIC id 0x101, node 0, index 1): state idle -> faulted, faults 0 -> 1"


def test_watch_tells_a_cpu_that_is_stuck(ctl: Call, guest: Guest) -> None:
    """And when it moves again: the simulated CPU was not told that its status is RUN."""
    cpu = guest.sidecar.cpus[1]
    cpu.record(RecorderEvent.COMMAND, SidecarCommand.RAISE)
    cpu.status.compare_exchange(CpuStatus.IDLE, CpuStatus.RUN)
    timer = threading.Timer(1.5, lambda: cpu.status.compare_exchange(CpuStatus.RUN, CpuStatus.IDLE))
    timer.start()
    told = ctl("watch", "1", "--interval", "0.2", "--stuck", "0.4", "--looks", "15")
    lines = [line.split(": ", 1)[1] for line in told if "stuck" in line or "moves" in line]
    assert [re.sub(r"[0-9.]+ s", "T s", line) for line in lines] == ["stuck since T s in raise", "moves again"]


def test_watch_ends_by_interrupt(ctl: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes while it waits for its second look, however busy the host is."""

    class Clock:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def sleep(seconds: float) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(seconds)

    monkeypatch.setattr(watch, "time", Clock)
    assert ctl("watch", "--interval", "20") == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "sidecarctl: the following arguments are required: COMMAND (see sidecarctl --help)"),
        (["ping", "9"], "sidecarctl: CPU 9 is in no sidecar node; there are CPUs 0-4"),
        (["ping", "1", "nobody"], "sidecarctl: 'nobody' names no CPU: write a Linux number such as 3, apic:ID, or "
                                  "node:index such as 0:2"),
        (["convert", "2:0"], "sidecarctl: there is no sidecar node 2; there are nodes 0-1"),
        (["run", "1", "--command", "fly"], "sidecarctl: 'fly' is none of none, run_vp, get_vp_registers, "
                                           "set_vp_registers, translate_gva, raise, get_vp_xsave, "
                                           "set_vp_xsave, and no number"),
        (["run", "1", "--data", "xyz"], "sidecarctl: 'xyz' is not a row of hexadecimal bytes"),
        (["run", "1", "--data", "00" * 1025], "sidecarctl: the request has 1025 bytes, the page takes 1024"),
        (["run", "1", "--kind", "nmi"], "sidecarctl: --kind and --argument are for --command raise, without --data"),
        (["regs", "1", "dr0=many"], "sidecarctl: 'many' is no value for dr0: write a number of 64 bits, such as "
                                    "0x1000"),
        (["regs", "1", "cs=" + "9" * 40], f"sidecarctl: '{'9' * 40}' is no value for cs: write a number of 128 bits, "
                                          "such as 0x1000"),
        (["ping", "--seconds", "-1"], "sidecarctl ping: argument --seconds: '-1' is not a time in seconds (see "
                                      "sidecarctl ping --help)"),
        (["list", "--backing", "magic"], "sidecarctl list: argument --backing: invalid choice: 'magic' (choose from "
                                         "'auto', 'driver', 'no-module') (see sidecarctl list --help)"),
    ],
)
def test_mistakes_are_one_sentence(wrong: Call, arguments: list[str], sentence: str) -> None:
    assert wrong(*arguments) == (2, sentence)


def test_an_unknown_register_names_the_known_ones(wrong: Call) -> None:
    status, sentence = wrong("regs", "1", "eax")
    assert status == 2
    assert sentence.startswith("sidecarctl: no register 'eax'; there are HvRegisterPendingInterruption, ")


def test_raise_without_a_kind_names_the_kinds(wrong: Call) -> None:
    status, sentence = wrong("run", "1", "--command", "raise")
    assert (status, sentence[:45]) == (2, "sidecarctl: --command raise needs --kind: div")


@pytest.mark.parametrize("backing", ["driver"], indirect=True)
def test_a_busy_cpu(wrong: Call, guest: Guest) -> None:
    with guest.with_driver() as other:
        run = other.cpu(1).start(SidecarCommand.RAISE, raise_request(RaiseKind.WAIT_FOR_STOP))
        status, sentence = wrong("regs", "1", "dr0")
        run.stop()
        run.wait()
    assert status == 1
    assert "is claimed by another open file, or a command is running on it" in sentence


@pytest.mark.parametrize("command", ["", "list", "ping", "regs", "run", "convert", "return", "restart", "log", "faults",
                                     "watch"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*command.split(), "--help"])
    assert f"usage: sidecarctl {command}".rstrip() in capsys.readouterr().out


def test_as_a_program_where_there_is_no_sidecar() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "sidecar.client", "list"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert run.stderr.startswith("sidecarctl: this Linux runs without a sidecar: there is no ")


FORBIDDEN = ("keystone", "capstone", "lief", "elftools", "qemu", "sidecar.builder", "sidecar.qemu", "sidecar.cli")


def test_the_guest_needs_construct_alone() -> None:
    """Everything that sidecarctl can do is imported, and nothing that a guest does not carry."""
    text = (
        "import sys, sidecar.client.__main__\n"
        "print(sorted(name.partition('.')[0] for name in sys.modules "
        f"if any(name == one or name.startswith(one + '.') for one in {FORBIDDEN})))\n"
        "known = sys.stdlib_module_names | {'sidecar', 'construct', '__main__'}\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - known))\n"
    )
    run = subprocess.run([sys.executable, "-I", "-c", text], capture_output=True, text=True, timeout=60, check=True)
    forbidden, foreign = run.stdout.splitlines()
    assert forbidden == "[]"
    assert {name for name in json.loads(foreign.replace("'", '"')) if not name.startswith("_")} <= {"sitecustomize"}

