"""Finding QEMU, and refusing one that is too old."""

from pathlib import Path

import pytest

from sidecar.errors import UserError
from sidecar.qemu.executable import OVERRIDE, Qemu, QemuMissing, QemuTooOld, find_qemu, parse_version


def program(path: Path, output: str) -> Path:
    """A program that prints `output`."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\n")
    path.chmod(0o755)
    return path


def test_versions_are_read() -> None:
    assert parse_version("QEMU emulator version 7.2.18 (Debian 1:7.2+dfsg-7+deb12u13)\nCopyright ...") == (7, 2, 18)
    assert parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)") == (10, 0, 2)
    assert parse_version("QEMU emulator version 9.0") == (9, 0)


def test_the_environment_names_another_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "my-qemu", "QEMU emulator version 9.1.0")
    monkeypatch.setenv(OVERRIDE, str(path))
    assert find_qemu() == Qemu(path, (9, 1, 0))
    assert find_qemu().version_text == "9.1.0"


def test_no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OVERRIDE, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(QemuMissing, match=r"^there is no qemu-system-x86_64 on this host: run 'make setup'"):
        find_qemu()


def test_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OVERRIDE, str(program(tmp_path / "other", "hello")))
    with pytest.raises(QemuMissing, match=r"other --version does not name a QEMU version, it prints 'hello\\n'"):
        find_qemu()
    (tmp_path / "broken").write_bytes(b"\x7fELF, but no program")
    (tmp_path / "broken").chmod(0o755)
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "broken"))
    with pytest.raises(QemuMissing, match=r"broken does not run \(.*Exec format error"):
        find_qemu()


@pytest.mark.parametrize("version", [(7, 2, 18), (8, 2, 10), (8, 99)])
def test_too_old_for_tcg(version: tuple[int, ...]) -> None:
    with pytest.raises(QemuTooOld) as caught:
        Qemu(Path("/usr/bin/qemu"), version).require_x2apic_under_tcg()
    assert isinstance(caught.value, UserError)
    assert str(caught.value) == (
        f"/usr/bin/qemu is QEMU {'.'.join(map(str, version))}, but the sidecar needs at least 9.0 "
        "(the first with x2APIC under TCG): run 'make setup' (on Debian 12 it takes QEMU from bookworm-backports), "
        "or name another one in SIDECAR_QEMU"
    )


@pytest.mark.parametrize("version", [(9, 0), (9, 0, 0), (10, 0, 2)])
def test_new_enough_for_tcg(version: tuple[int, ...]) -> None:
    Qemu(Path("/usr/bin/qemu"), version).require_x2apic_under_tcg()
