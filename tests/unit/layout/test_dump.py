"""`sidecar dump layout`, `dump image` and `dump listing`: what they print and what they refuse."""

import json
from pathlib import Path

import pytest

from sidecar.__main__ import main
from sidecar.builder.image import kernel
from sidecar.layout.registry import ALL


def test_layout_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "layout", "CpuMapEntry"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "CpuMapEntry, 0x10 bytes: One CPU of the machine; the map's index is the Linux number."
    assert [line.split()[:4] for line in lines[1:4]] == [
        ["offset", "bytes", "type", "field"], ["0x0", "4", "u32", "apic_id"], ["0x4", "4", "u32", "linux_number"],
    ]


def test_layout_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "layout", "ControlPage", "--format", "json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert list(described) == ["name", "size", "fields"]
    assert described["fields"][3] == {
        "name": "request_vector", "offset": 12, "size": 4, "type": "u32",
        "doc": "vector that makes a sidecar CPU look at its status",
    }


def test_layout_as_c(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "layout", "HvRegisterAssoc", "--format", "c"]) == 0
    assert "struct sidecar_hv_register_assoc {\n" in capsys.readouterr().out
    assert main(["dump", "layout", "--format", "c"]) == 0
    assert capsys.readouterr().out.endswith("#endif /* SIDECAR_ABI_H */\n")


def test_all_layouts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "layout", "--format", "json"]) == 0
    assert [layout["name"] for layout in json.loads(capsys.readouterr().out)] == [layout.NAME for layout in ALL]
    assert main(["dump", "layout"]) == 0
    text = capsys.readouterr().out
    assert all(f"{layout.NAME}, {layout.SIZE:#x} bytes: {layout.DOC}\n" in text for layout in ALL)


def test_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sidecar.elf"
    file.write_bytes(kernel().elf)
    assert main(["dump", "image", str(file)]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: ET_DYN, ")
    assert main(["dump", "image", str(file), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["file_bytes"] == len(kernel().elf)


def test_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", "listing", "raise_attention"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("raise_attention, .text:\n0x")
    assert "halt_forever:" not in text
    assert main(["dump", "listing", "raise_attention", "--format", "json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert {line["routine"] for line in lines} == {"raise_attention"}
    assert {"number", "section", "address", "bytes", "source", "canonical", "comment"} < set(lines[0])


MISTAKES = {
    "layout": (["layout", "ControlPag"], "no layout 'ControlPag'; there are PerCpuState, "),
    "listing": (["listing", "raise_atention"], "the kernel has no routine 'raise_atention'; near it: raise_attention"),
    "far away": (["listing", "zzz"], "the kernel has no routine 'zzz'; near it: all names: sidecar dump listing"),
    "no file": (["image", "missing.elf"], "cannot read missing.elf: No such file or directory\n"),
    "no default": (["image"], "cannot read build/sidecar.elf: No such file or directory; `sidecar build` makes it\n"),
    "directory": (["image", "."], "cannot read .: Is a directory\n"),
    "no ELF": (["image", "text"], "text: "),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_sentence(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, message = MISTAKES[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no ELF file, but long enough for a header: " + "x" * 64)
    assert main(["dump", *arguments]) == 2
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert output.err.startswith(f"sidecar: {message}")


@pytest.mark.parametrize("arguments", [
    [], ["everything"], ["layout", "--format", "xml"], ["image", "--format", "c"], ["listing", "--image", "linux"],
])
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["dump", *arguments])
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.startswith("sidecar dump")
