"""`sidecar dump sdcr` on the table of a synthetic machine, and on files that hold none."""

import json
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.layout.acpi import AcpiHeader, Sdcr
from tests.support.synthetic import sdcr


def table(tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "SDCR"
    file.write_bytes(data)
    return str(file)


def test_json_has_nodes_and_cpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "sdcr", table(tmp_path, sdcr()), "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [node["number"] for node in data["nodes"]] == list(range(len(data["nodes"])))
    assert [cpu["linux_number"] for cpu in data["cpus"]] == list(range(len(data["cpus"])))


def test_text_names_the_trampoline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "sdcr", table(tmp_path, sdcr())]) == 0
    assert "trampoline_pa" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file has 0x0 bytes"),
        (sdcr()[: Sdcr.SIZE], "are needed"),
        (b"XXXX" + sdcr()[4:], "expected signature b'SDCR'"),
        (sdcr()[:-1] + b"\xff", "checksum"),
    ],
    ids=["empty", "truncated", "signature", "checksum"],
)
def test_a_file_that_is_no_table_gets_one_sentence(
    data: bytes, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dump", "sdcr", table(tmp_path, data)]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_no_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["dump", "sdcr", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_header_is_as_acpi_wants_it() -> None:
    assert AcpiHeader.parse(sdcr()).signature == b"SDCR"
