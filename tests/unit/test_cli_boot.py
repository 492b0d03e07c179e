"""`sidecar boot` and `sidecar shell` without a machine: options, exit statuses, what is printed where."""

import json
from types import TracebackType
from typing import Any

import pytest

from sidecar.cli import boot, shell
from sidecar.cli.parser import Parser
from sidecar.cli.progress import Progress
from sidecar.qemu.boot_report import BootReport
from sidecar.qemu.session import BootFailed, FellBack, last_lines


class FakeSession:
    """A session that fails to boot, if it is given an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __enter__(self) -> "FakeSession":
        if self.error is not None:
            raise self.error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""


def report_of(**fields: Any) -> BootReport:
    return BootReport(smp=2, accelerator="tcg", **fields)


def sidecar(*arguments: str) -> int:
    parser = Parser(prog="sidecar")
    commands = parser.add_subparsers(required=True, parser_class=Parser)
    boot.add(commands)
    shell.add(commands)
    options = parser.parse_args(arguments)
    return int(options.run(options))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    fake = FakeSession()
    for module in (boot, shell):
        monkeypatch.setattr(module, "make_session", lambda options, **more: fake)
    good = {"sidecar_cpus": 1, "answered": 1, "missing": 0}
    monkeypatch.setattr(boot, "report", lambda session: report_of(boot=good))
    monkeypatch.setattr(boot, "fall_back_report", lambda session, reason: report_of(fallback=reason))
    monkeypatch.setattr(shell, "objects", lambda session: {"answer": 42})
    return fake


def test_json(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert sidecar("boot", "--no-linux", "--smp", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["boot"]["answered"] == 1


def test_a_cpu_that_did_not_answer_is_exit_1(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = {"sidecar_cpus": 2, "answered": 1, "missing": 0}
    monkeypatch.setattr(boot, "report", lambda session: report_of(boot=silent))
    assert sidecar("boot", "--no-linux", "--json") == 1


def test_a_fall_back_is_exit_0(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    session.error = FellBack("the machine has one CPU")
    assert sidecar("boot", "--no-linux", "--json") == 0
    assert json.loads(capsys.readouterr().out)["fallback"] == "the machine has one CPU"


def test_a_fatal_line_is_exit_1(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    session.error = BootFailed("shim: fatal: no memory")
    for command in (["boot", "--no-linux"], ["shell", "--command", "pass"]):
        assert sidecar(*command) == 1
        assert capsys.readouterr() == ("", "sidecar: shim: fatal: no memory\n")


def test_the_shell_runs_a_command(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert sidecar("shell", "--command", "print(answer)") == 0
    assert capsys.readouterr().out == "42\n"


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, complaint in (
        (["boot", "--smp", "0"], "'0' is not a number of at least 1"),
        (["boot", "--memory", "lots"], "'lots' is not a memory size"),
        (["shell", "--accel", "magic"], "invalid choice: 'magic'"),
    ):
        with pytest.raises(SystemExit, match=r"^2$"):
            sidecar(*arguments)
        assert complaint in capsys.readouterr().err


def test_progress_is_told_once_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("255 CPUs")
    for seconds in (0.5, 1.9, 2.1, 2.2, 3.1, 4.0):
        progress(seconds)
    progress.end()
    assert capsys.readouterr().err == "sidecar: waiting for 255 CPUs, 2 s\n"


def test_last_lines() -> None:
    assert last_lines("a\nb\nc", 2) == "    b\n    c"
    assert last_lines("") == "    (nothing)"
