"""The guest's agent and its host end, both as they are, on this host: commands, output, ends, files, loss."""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.qemu.linux import agent_client
from sidecar.qemu.linux.agent_client import Guest, GuestError, Result
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.waiting import WaitedInVain, wait_until
from tests.unit.linux.agent_machine import AgentMachine, agent_guest, processes_with


@pytest.fixture(scope="module")
def shared() -> Iterator[Guest]:
    with AgentMachine() as machine:
        yield agent_guest(machine)


def test_status_and_both_outputs(shared: Guest) -> None:
    assert shared.run("echo out; echo err >&2; exit 3") == Result(3, "out\n", "err\n")
    assert shared.run(["printf", "%s|%s", "a b", "$HOME"]) == Result(0, "a b|$HOME", "")
    assert shared.run("kill -9 $$").status == -9


def test_nothing_is_on_standard_input(shared: Guest) -> None:
    assert shared.run(["cat"], timeout=10) == Result(0, "", "")


def test_a_program_that_is_not_there(shared: Guest) -> None:
    with pytest.raises(GuestError, match="no-such-program: No such file or directory"):
        shared.run(["no-such-program"])


def test_bytes_come_as_they_are(shared: Guest) -> None:
    command = shared.start(["printf", r"\000\001\377\r\n"])
    command.wait(10)
    assert command.stdout == b"\0\1\xff\r\n"


def test_a_large_output_is_whole(shared: Guest) -> None:
    result = shared.run("seq 1 60000")
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 60001))


def test_output_comes_while_the_command_runs(shared: Guest) -> None:
    pieces: list[tuple[str, bytes]] = []
    command = shared.start("echo one; sleep 30", lambda stream, data: pieces.append((stream, data)))
    wait_until(lambda: pieces, seconds=10, what="the first piece")
    assert pieces == [("stdout", b"one\n")]
    assert command.running
    command.kill()
    assert command.wait(10).status == -9


def test_commands_run_at_the_same_time(shared: Guest, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader, writer = shared.start(["cat", str(fifo)]), shared.start(f"echo met >{fifo}")
    assert writer.wait(10).status == 0
    assert reader.wait(10).stdout == "met\n"


def test_many_threads(shared: Guest) -> None:
    results: dict[int, Result] = {}

    def ask(number: int) -> None:
        results[number] = shared.run(f"seq 1 500; exit {number}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {number: (result.status, len(result.stdout)) for number, result in results.items()} == {
        number: (number, 1892) for number in range(8)
    }


def test_a_command_that_takes_too_long_is_killed(shared: Guest) -> None:
    mark = f"1000.{os.getpid()}"
    with pytest.raises(WaitedInVain, match=r"waited 2 s for the guest's command 'echo begun; sleep .*' to end") as e:
        shared.run(f"echo begun; sleep {mark} & sleep {mark}", timeout=2)
    assert e.value.__notes__ == ["it has printed: b'begun\\n', and as errors: b''"]
    wait_until(lambda: not processes_with(mark), seconds=10, what="its children to be killed too")


def test_it_is_over_when_its_process_is(shared: Guest) -> None:
    started = time.monotonic()
    result = shared.run("sleep 1000 & echo $!", timeout=10)
    assert time.monotonic() - started < 8
    os.kill(int(result.stdout), signal.SIGKILL)  # it is still there, and holds the output


def test_files(shared: Guest, tmp_path: Path) -> None:
    data = os.urandom(50_000)
    target = tmp_path / "file"
    shared.put(data, str(target), mode=0o750)
    assert target.read_bytes() == data
    assert target.stat().st_mode & 0o777 == 0o750
    assert shared.read(str(target)) == data
    other = tmp_path / "other"
    shared.put(target, str(other))
    assert (other.read_bytes(), other.stat().st_mode & 0o777) == (data, 0o750)
    shared.put(b"", str(other))
    assert other.read_bytes() == b""
    with pytest.raises(GuestError, match="/no/such/folder: No such file or directory"):
        shared.put(b"x", "/no/such/folder")
    with pytest.raises(GuestError, match="the guest's command ended with status 1: cat: "):
        shared.read("/no/such/file")


def test_a_request_that_the_agent_does_not_know(shared: Guest) -> None:
    command = shared._request({"op": "dance"}, "dance", None)
    with pytest.raises(GuestError, match="the agent knows no 'dance'"):
        command.wait(10)


def test_a_machine_that_dies_with_a_command_running() -> None:
    with AgentMachine() as machine:
        guest = agent_guest(machine)
        command = guest.start("sleep 1000")
        threading.Timer(0.3, machine.end).start()
        with pytest.raises(MachineDied):
            command.wait(20)
        with pytest.raises(MachineDied):
            guest.run("true")


def test_an_agent_that_starts_anew_has_lost_its_commands() -> None:
    with AgentMachine() as machine:
        guest = agent_guest(machine)
        command = guest.start("sleep 1000")
        guest._take(b'{"hello":1}')
        with pytest.raises(GuestError, match="the guest's agent has started anew, and the command is gone"):
            command.wait(10)


def test_what_is_no_message_is_an_error_once_the_agent_runs() -> None:
    with AgentMachine() as machine:
        guest = Guest(machine)
        guest._take(b"SeaBIOS (version 1.16)")
        guest.wait_ready(seconds=20)
        command = guest.start("sleep 1000")
        guest._take(b'{"id":')
        with pytest.raises(GuestError, match="the agent sent what is no message"):
            command.wait(10)


class SilentMachine:
    """Nobody is at the other end of its port."""

    def __init__(self) -> None:
        self.relay, self.other = socket.socketpair()

    def check(self) -> None:
        """It lives."""

    def wait_exit(self, *, seconds: float) -> int:
        raise WaitedInVain(seconds, "it to end")


def test_an_agent_that_does_not_start() -> None:
    machine = SilentMachine()
    with machine.other, pytest.raises(WaitedInVain, match=r"waited 0\.2 s for the guest's agent to start"):
        Guest(machine).wait_ready(seconds=0.2)


def test_an_agent_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a guest that stands still after a panic."""
    monkeypatch.setattr(agent_client, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(agent_client, "SILENT_SECONDS", 0.5)
    machine = SilentMachine()
    guest = Guest(machine)
    with machine.other, pytest.raises(GuestError, match=r"does not answer any more: it was asked 0\.5 s ago"):
        guest.run("sleep 1000", 60)


def test_an_agent_that_is_quiet_is_left_alone(shared: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_client, "QUIET_SECONDS", 0.2)
    before = shared._heard
    assert shared.run("sleep 1").status == 0
    assert shared._asked is not None
    assert shared._asked > before


def test_a_command_to_a_closed_port() -> None:
    machine = SilentMachine()
    guest = Guest(machine)
    machine.other.close()
    with pytest.raises(GuestError, match=r"the machine has ended|the guest's serial port is closed"):
        guest.run("true")
