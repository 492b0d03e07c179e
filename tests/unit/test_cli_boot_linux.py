"""`sidecar boot` with Linux, without a machine: which kernel, what is done with the guest, exit statuses."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli import boot, boot_linux
from sidecar.cli.parser import Parser
from sidecar.errors import UserError
from sidecar.qemu.linux.agent_client import GuestError, Result
from sidecar.qemu.linux.kernels import LinuxKernel
from sidecar.qemu.linux_report import LinuxReport
from sidecar.qemu.waiting import WaitedInVain

KERNEL = LinuxKernel(version="6.1.0", image=Path("vmlinuz"))


class FakeGuest:
    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.status = 0

    def run(self, command: Any, timeout: float = 0, on_output: Any = None) -> Result:
        self.ran.append(command)
        if on_output is not None:
            on_output("stdout", b"out\n")
            on_output("stderr", b"err\n")
        return Result(self.status, "", "")

    def power_off(self, *, seconds: float) -> None:
        self.ran.append("power off")


class FakeMachine:
    alive = True


class FakeSession:
    def __init__(self) -> None:
        self.guest, self.machine = FakeGuest(), FakeMachine()
        self.uses_sidecar, self.fallback = True, None
        self.description, self.mode, self.user_space_seconds = "a machine", "sidecar", 2.0
        self.driver: Path | None = Path("sidecar.ko")
        self.refusal: Exception | None = None

    def attach(self) -> None:
        self.guest.ran.append("attach")
        if self.refusal is not None:
            raise self.refusal

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""


def options(*arguments: str) -> argparse.Namespace:
    parser = Parser(prog="sidecar")
    boot.add(parser.add_subparsers(required=True, parser_class=Parser))
    return parser.parse_args(["boot", *arguments])


def sidecar(*arguments: str) -> int:
    parsed = options(*arguments)
    return int(parsed.run(parsed))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSession:
    fake = FakeSession()
    monkeypatch.setattr(boot_linux, "kernel_package", lambda which, tell: KERNEL)
    monkeypatch.setattr(boot_linux, "make_linux_session", lambda options, kernel, progress: fake)

    def report(session: FakeSession, *, problems: list[str], earlier: dict[str, float]) -> LinuxReport:
        return LinuxReport(
            smp=1, accelerator="tcg", kernel="6.1.0", mode=session.mode, problems=problems, earlier=earlier,
            user_space_seconds=session.user_space_seconds,
        )  # fmt: skip

    monkeypatch.setattr(boot_linux, "report", report)
    monkeypatch.setenv("SIDECAR_CACHE", str(tmp_path))
    return fake


def test_a_report_after_the_driver_is_loaded(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    assert sidecar("--json") == 0
    assert json.loads(capsys.readouterr().out)["kernel"] == "6.1.0"
    assert session.guest.ran == ["attach", "power off"]


def test_a_driver_that_refuses_is_a_problem_and_exit_1(
    session: FakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    session.refusal = GuestError("no x2APIC")
    assert sidecar() == 1
    assert "problem: the driver does not load: no x2APIC" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (GuestError("modprobe: module msr not found"),
         "there is no driver (--headers DIR builds one), and without it: modprobe: module msr not found"),
        (WaitedInVain(60, "Linux's own CPUs (0, 32) to come online"),
         "waited 60 s for Linux's own CPUs (0, 32) to come online"),
    ],
)
def test_a_guest_without_a_way_to_the_cpus(
    session: FakeSession, capsys: pytest.CaptureFixture[str], error: Exception, sentence: str
) -> None:
    session.driver, session.refusal = None, error
    assert sidecar() == 1
    assert f"problem: {sentence}" in capsys.readouterr().out


def test_the_last_times_of_the_machine_are_compared(session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar()
    assert "2.00 s (to compare, boot it with --baseline one or all)" in capsys.readouterr().out
    session.mode, session.user_space_seconds, session.uses_sidecar = "baseline one", 1.6, False
    sidecar("--baseline", "one")
    said = "QEMU start to user space: 1.60 s; when last booted on this host: 2.00 s beside the sidecar"
    assert capsys.readouterr().out.endswith(f"{said}\n")
    session.mode, session.user_space_seconds, session.uses_sidecar = "sidecar", 1.8, True
    sidecar("--json")
    assert json.loads(capsys.readouterr().out)["earlier"] == {"baseline one": 1.6}


def test_without_the_sidecar_nothing_is_loaded(session: FakeSession) -> None:
    session.uses_sidecar = False
    assert sidecar("--baseline", "one") == 0
    assert session.guest.ran == ["power off"]


@pytest.mark.parametrize(("status", "ours"), [(0, 0), (7, 7), (-9, 137)])
def test_exec_exits_with_the_commands_status(
    session: FakeSession, capfdbinary: pytest.CaptureFixture[bytes], status: int, ours: int
) -> None:
    session.guest.status = status
    assert sidecar("--exec", "true") == ours
    assert capfdbinary.readouterr() == (b"out\n", b"err\n")
    assert session.guest.ran == ["attach", "true", "power off"]


def test_a_machine_that_has_ended_is_not_powered_off(session: FakeSession) -> None:
    session.machine.alive = False
    sidecar("--exec", "true")
    assert "power off" not in session.guest.ran


def test_which_kernel(session: FakeSession, tmp_path: Path) -> None:
    assert boot_linux.chosen_kernel("backports", None) is KERNEL
    with pytest.raises(UserError, match="--headers goes with --kernel PATH: stable has its own"):
        boot_linux.chosen_kernel("stable", tmp_path)
    with pytest.raises(UserError, match=r"--kernel .*bzImage: No such file or directory"):
        boot_linux.chosen_kernel(str(tmp_path / "bzImage"), None)


def test_no_driver_without_headers() -> None:
    assert boot_linux.driver_for(KERNEL) is None


@pytest.mark.parametrize("words", [("--exec", "true"), ("--shell",), ("--baseline", "one"), ("--copy-in", "file")])
def test_options_that_need_linux(words: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"{words[0]} needs Linux: it does not go with --no-linux"):
        sidecar("--no-linux", *words)


@pytest.mark.parametrize("word", ["--json", "--keep"])
@pytest.mark.parametrize("other", [("--exec", "true"), ("--shell",)])
def test_options_of_the_report(word: str, other: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"{word} goes with the report, which {other[0]} leaves out"):
        sidecar(word, *other)


def test_exec_and_shell_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        options("--exec", "true", "--shell")
    assert "not allowed with argument --exec" in capsys.readouterr().err
