"""`sidecarctl vm`: what it prints, and with which status it ends; the guests are scripts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from sidecar.client.__main__ import main
from sidecar.client.sidecar import Sidecar
from sidecar.layout import hv_messages as hv
from sidecar.layout.hv_messages import HvMessageType as Type
from sidecar.layout.run import RunEnd
from sidecar.protocol.errors import NoSuchCpu
from tests.support import vmm_cpu
from tests.support.multiboot_kernel import kernel
from tests.support.vmm_cpu import ScriptedBacking, ScriptedCpu, Step, halt, message, port

HELLO = [port(0x3F8, value=byte) for byte in b"hello\n"]
LEAVE = port(0xF4, value=7)


class FakeSidecar:
    """As much of a Sidecar as the commands use: CPUs 1 and 2 are free, CPU 3 runs something."""

    def __init__(self, *scripts: list[Step]) -> None:
        self.scripted = [ScriptedCpu(steps, number=number + 1) for number, steps in enumerate(scripts)]
        self.backing = ScriptedBacking(self.scripted)
        self.attachment = SimpleNamespace(virtual_machine=lambda: self.backing)
        self.found = SimpleNamespace(tsc_khz=1_000_000)
        states = {1: "idle", 2: "idle", 3: "run"}
        self.commandable = [SimpleNamespace(number=number, state=state) for number, state in states.items()]

    def cpu(self, name: str) -> Any:
        for cpu in self.commandable:
            if str(cpu.number) == name:
                return cpu
        raise NoSuchCpu(f"there is no CPU {name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.backing.closed
        assert self.backing.created == []


@pytest.fixture
def image(tmp_path: Path) -> str:
    file = tmp_path / "guest.bin"
    file.write_bytes(b"\xf4")
    return str(file)


def run(monkeypatch: pytest.MonkeyPatch, sidecar: FakeSidecar, *arguments: str) -> int:
    monkeypatch.setattr(Sidecar, "open", lambda backing: sidecar)
    return main(["vm", "run", *arguments])


def test_the_console_and_the_status(monkeypatch: pytest.MonkeyPatch, capfdbinary: Any, image: str) -> None:
    assert run(monkeypatch, FakeSidecar([*HELLO, LEAVE]), "--raw", image) == 15
    assert capfdbinary.readouterr() == (b"hello\n", b"")


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image: str) -> None:
    sidecar = FakeSidecar([*HELLO, port(0x80), LEAVE])
    assert run(monkeypatch, sidecar, "--raw", image, "--json") == 15
    result = json.loads(capsys.readouterr().out)
    assert result.pop("seconds") >= 0
    assert result == {
        "status": 15, "ended": "stopped", "why": "the guest wrote 0x7 to the debug-exit port", "console": "hello\n",
        "unclaimed": {"port": {"0x80": 1}},
    }  # fmt: skip


def test_a_guest_that_halts_ends_with_0(monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    assert run(monkeypatch, FakeSidecar([halt()]), "--raw", image) == 0


@pytest.mark.parametrize(
    ("script", "options", "status", "words"),
    [
        ([vmm_cpu.ends(RunEnd.TIME_LIMIT)] * 100_000, ["--timeout", "0.01"], 124, "ended after 0.01 s"),
        ([message(hv.UnrecoverableExceptionMessage, Type.UNRECOVERABLE_EXCEPTION)], [], 126, "ended in triple fault"),
    ],
)
def test_a_guest_that_does_not_end_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image: str, script: list[Step],
    options: list[str], status: int, words: str,
) -> None:  # fmt: skip
    assert run(monkeypatch, FakeSidecar(script), "--raw", image, *options) == status
    assert words in capsys.readouterr().err


def test_several_virtual_processors_know_their_numbers(monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    sidecar = FakeSidecar([halt()], [halt()])
    assert run(monkeypatch, sidecar, "--raw", image, "--vcpus", "2", "--memory", "2M", "--mode", "long") == 0
    gps = [cpu.memory[16 + 7 * 8] for cpu in sidecar.scripted]
    assert gps == [0, 1]


def test_a_multiboot_kernel_with_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image, module = tmp_path / "kernel", tmp_path / "module"
    image.write_bytes(kernel())
    module.write_bytes(b"data")
    memory = bytearray()
    sidecar = FakeSidecar([halt()])
    monkeypatch.setattr(sidecar.backing, "allocate", lambda size: memoryview(memory))
    memory.extend(bytes(4 << 20))
    options = ["--multiboot", str(image), "--module", str(module), "--append", "a b", "--memory", "4M"]
    assert run(monkeypatch, sidecar, *options) == 0
    assert f"{image} a b\0".encode() in memory
    assert f"{module}\0".encode() in memory
    assert b"data" in memory


def test_the_ledger(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, image: str
) -> None:
    file = tmp_path / "exits"
    run(monkeypatch, FakeSidecar([*HELLO, LEAVE]), "--raw", image, "--exits", str(file), "--json")
    capsys.readouterr()
    assert main(["vm", "exits", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "7 exits to the VMM, 0 finished by the sidecar"
    assert lines[1].split()[:2] == ["exits", "reason"]
    assert lines[2].split()[:5] == ["6", "port", "out", "0x3f8", "1"]
    assert main(["vm", "exits", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][1]["detail"] == "out 0xf4 1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--raw", "/nowhere/file"], "/nowhere/file cannot be read: No such file or directory"),
        (["--raw", "{image}", "--vcpus", "0"], "--vcpus 0: a machine has at least 1"),
        (["--raw", "{image}", "--vcpus", "3"], "--vcpus 3: only 2 CPUs of the sidecar are free"),
        (["--raw", "{image}", "--append", "x"], "--module and --append are for --multiboot"),
        (["--multiboot", "{image}"], "has no Multiboot header"),
        (["--raw", "{image}", "--cpu", "9"], "there is no CPU 9"),
        (["--raw", "{image}", "--cpu", "1", "--cpu", "2", "--vcpus", "3"], "contradict each other"),
        (["--raw", "{image}", "--exits", "/nowhere/file"], "/nowhere/file cannot be written"),
        (["--raw", "{image}", "--memory", "4K"], "do not fit into the guest"),
    ],
)
def test_mistakes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], image: str, options: list[str], words: str
) -> None:
    class Unused(FakeSidecar):
        def __exit__(self, *_: object) -> None:
            assert self.backing.created == []

    assert run(monkeypatch, Unused([], []), *(text.format(image=image) for text in options)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("text", ["", "64X", "1000", "0"])
def test_sizes(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit):
        main(["vm", "run", "--raw", "x", "--memory", text])
    assert "is not a size in whole pages" in capsys.readouterr().err


def test_a_file_that_is_no_ledger(capsys: pytest.CaptureFixture[str], image: str) -> None:
    assert main(["vm", "exits", image]) == 2
    assert main(["vm", "exits", "/nowhere/file"]) == 2
    assert "cannot be read" in capsys.readouterr().err
