"""The frame of the command line: help, versions, mistakes, errors."""

import argparse
import json
import subprocess
import sys

import pytest

import sidecar.__main__ as cli
from sidecar import __version__
from sidecar.cli.parser import Commands, checked, positive
from sidecar.errors import UserError
from sidecar.qemu import doctor
from sidecar.qemu.sizes import parse_size


class Probe:
    """A command for the tests: `sidecar probe` raises what it is told to."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error

    def add(self, commands: Commands) -> None:
        parser = commands.add_parser("probe")
        parser.add_argument("--memory", type=checked(parse_size, "size"))
        parser.add_argument("--smp", type=positive)
        parser.set_defaults(run=self.run)

    def run(self, options: argparse.Namespace) -> int:
        if self.error is not None:
            raise self.error
        return int(options.smp)


def probe(monkeypatch: pytest.MonkeyPatch, *arguments: str, error: BaseException | None = None) -> int:
    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, Probe(error)))
    return cli.main(["probe", *arguments])


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"sidecar-kernel {__version__}\n"


@pytest.mark.parametrize("command", [[], ["doctor"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([*command, "--help"])
    assert "usage: sidecar" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "sidecar: the following arguments are required: COMMAND (see sidecar --help)"),
        (["doctor", "--nonsense"], "sidecar: unrecognized arguments: --nonsense (see sidecar --help)"),
        (
            ["probe", "--memory", "much"],
            "sidecar probe: argument --memory: 'much' is not a memory size; write a number with K, M or G, "
            "such as 512M or 2G (see sidecar probe --help)",
        ),
        (
            ["probe", "--smp", "0"],
            "sidecar probe: argument --smp: '0' is not a number of at least 1 (see sidecar probe --help)",
        ),
        (
            ["probe", "--smp", "four"],
            "sidecar probe: argument --smp: 'four' is not a number of at least 1 (see sidecar probe --help)",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, Probe(None)))
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(arguments)
    assert capsys.readouterr().err == message + "\n"


def test_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe(monkeypatch, "--smp", "0x10") == 16


def test_the_users_mistake_in_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe(monkeypatch, error=UserError("there is no such file")) == 2
    assert capsys.readouterr().err == "sidecar: there is no such file\n"


def test_our_mistake_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError):
        probe(monkeypatch, error=RuntimeError("ours"))


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe(monkeypatch, error=KeyboardInterrupt()) == 130


def test_a_reader_that_has_seen_enough() -> None:
    command = f"{sys.executable} -m sidecar doctor --json | head -c 1"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (run.stdout, run.stderr) == ("[", "")


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_doctor(ok: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: (doctor.Finding("qemu", ok, "found", "remedy"),))
    assert cli.main(["doctor"]) == status
    assert "qemu  found" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == status
    assert json.loads(capsys.readouterr().out)[0]["ok"] is ok
