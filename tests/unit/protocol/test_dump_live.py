"""`sidecar dump live` over a file with a machine's memory, its text, its JSON, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.__main__ import main
from sidecar.layout import DiagnosticPage, PrivatePage
from sidecar.layout.address_map import PER_CPU_MAP
from sidecar.protocol.discovery import discover
from tests.support import synthetic


@pytest.fixture
def ram(tmp_path: Path) -> Path:
    path = tmp_path / "ram"
    path.write_bytes(synthetic.machine().data)
    return path


@pytest.fixture
def dump(ram: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command over the file and returns what it prints."""

    def run(*arguments: str) -> str:
        assert main(["dump", "live", "--ram", str(ram), *arguments]) == 0
        return capsys.readouterr().out

    return run


def test_overview(dump: Any) -> None:
    lines = dump().splitlines()
    assert "first INIT to last idle  4006.0 us" in lines
    assert [line.split() for line in lines[-6:]] == [
        ["0", "0x0", "0", "0", "linux", "-"],
        ["1", "0x2", "0", "1", "idle", "1006.0"],
        ["2", "0x4", "0", "2", "run", "2006.0"],
        ["3", "0x6", "1", "0", "linux", "-"],
        ["4", "0x8", "1", "1", "idle", "4006.0"],
        ["5", "0xa", "-", "-", "linux", "-"],
    ]


def test_overview_as_json(dump: Any) -> None:
    data = json.loads(dump("--format", "json"))
    assert [cpu["state"] for cpu in data["cpus"]] == ["linux", "idle", "run", "linux", "idle", "linux"]
    assert data["cpus"][4] == {
        "linux_number": 4, "apic_id": 8, "node": 1, "index": 1, "numa_node": 0, "policy": "sidecar", "state": "idle",
        "boot_us": 4006.0,
    }
    assert [node["base_cpu"] for node in data["nodes"]] == [0, 3]


def test_control(dump: Any) -> None:
    assert [entry["base_cpu"] for entry in json.loads(dump("control", "--format", "json"))] == [0, 3]
    assert [entry["base_cpu"] for entry in json.loads(dump("control", "--cpu", "4", "--format", "json"))] == [3]
    assert "CPU  index  status\n3    0      removed\n4    1      idle\n" in dump("control", "--cpu", "3")


def test_boot(dump: Any) -> None:
    assert [entry["linux_number"] for entry in json.loads(dump("boot", "--format", "json"))] == [1, 2, 4]
    text = dump("boot", "--cpu", "2")
    assert text.startswith("CPU 2 (APIC id 0x4, node 0, index 2)\n")
    assert "long_mode           2001.0 us\n" in text
    assert "has never arrived" in dump("boot", "--cpu", "0")


def test_log_and_command(dump: Any) -> None:
    assert dump("log", "--cpu", "4") == "CPU 4 (APIC id 0x8, node 1, index 1)\nsidecar: cpu 4: hello\n"
    assert "command          none\n" in dump("command", "--cpu", "1")


def test_fault(dump: Any, ram: Path) -> None:
    assert "faults    0\n" in dump("fault", "--cpu", "1")
    memory = synthetic.machine()
    found = discover(memory)
    record = synthetic.page(DiagnosticPage, fault__count=1, fault__vector=14, fault__error_code=3, fault__rip=0x1234,
                            fault__cr2=0x5000, counters__stray=synthetic.array(256, {0x30: 2}))
    memory.write(found.private_page_pa(found.cpu(1), PrivatePage.DIAGNOSTIC), record)
    ram.write_bytes(memory.data)
    text = dump("fault", "--cpu", "1")
    assert "exception  #PF, error code 0x3 (protection violation, write, supervisor)\n" in text
    assert "stray      0x30: 2\n" in text


def test_page_tables(dump: Any, ram: Path) -> None:
    text = dump("page-tables", "--cpu", "1")
    assert text.endswith("as the address map says\n")
    assert "privileged_page, diagnostic_page, log_page\n" in text
    memory = synthetic.machine()
    stack = next(mapping.va for mapping in PER_CPU_MAP if mapping.symbol == "stack")
    memory.write_u64(synthetic.table_slot(1, va=stack), 0)
    ram.write_bytes(memory.data)
    assert dump("page-tables", "--cpu", "1").endswith(f"wrong: stack at {stack:#x} is not mapped\n")


REFUSED = {
    "no such file": (["--ram", "missing"], "there is no RAM in missing: No such file or directory"),
    "empty file": (["--ram", "empty"], "there is no RAM in empty: cannot mmap an empty file"),
    "other file": (["--ram", "zeros"], "no sidecar in this memory: no page of 0x0 to 0xa0000 carries"),
    "short file": (["--ram", "short"], "no sidecar in this memory: 0x0 to 0xa0000 cannot be scanned: "),
    "no such CPU": (["--ram", "ram", "log", "--cpu", "6"], "there is no CPU 6: the machine has CPUs 0 to 5"),
    "no pages": (["--ram", "ram", "log", "--cpu", "5"], "CPU 5 belongs to no sidecar node: it has no pages"),
    "no section": (["--ram", "ram", "--cpu", "1"], "--cpu needs one of the sections control, command, boot, "),
    "truncated": (["--ram", "truncated", "log"], "0x"),
    "no socket": (["--qmp", "missing"], "missing is no QMP socket that answers: "),
    "no QMP": (["--qmp", "ram"], "ram is no QMP socket that answers: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_one_sentence(
    case: str, ram: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, message = REFUSED[case]
    monkeypatch.chdir(ram.parent)
    for name, size in {"empty": 0, "zeros": 1 << 20, "short": 100}.items():
        Path(name).write_bytes(bytes(size))
    Path("truncated").write_bytes(ram.read_bytes()[:0x200000])
    assert main(["dump", "live", *arguments]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith(f"sidecar: {message}")


@pytest.mark.parametrize("arguments", [
    [], ["--ram", "a", "--qmp", "b"], ["--ram", "a", "everything"], ["--ram", "a", "log", "--cpu", "one"],
    ["--ram", "a", "--format", "c"],
])
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["dump", "live", *arguments])
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.startswith("sidecar dump live: ")
