"""The machine itself, with guests of a few bytes: starts, is looked at, ends, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.qemu.accelerator import Accelerator
from sidecar.qemu.command_line import MachineSpec
from sidecar.qemu.machine import Machine, MachineDied
from sidecar.qemu.memory_map import OutOfRange
from sidecar.qemu.monitor import Monitor, QmpRefused
from sidecar.qemu.sizes import GIB, MIB
from sidecar.qemu.waiting import WaitedInVain, wait_until
from tests.support import pvh

TCG = Accelerator("tcg", "TCG, as asked for")

MakeMachine = Callable[..., Machine]


@pytest.fixture
def make(run_directory: Path) -> MakeMachine:
    """make(code, smp=4, ...) is a machine that runs `code`, not yet started."""

    def make_machine(code: bytes, **spec: Any) -> Machine:
        guest = pvh.write_guest(run_directory / "guest.elf", code)
        spec = {"memory_bytes": 64 * MIB} | spec
        return Machine(MachineSpec(accelerator=TCG, kernel=guest, **spec), directory=run_directory)

    return make_machine


def wait_halted(machine: Machine) -> None:
    wait_until(
        lambda: machine.registers(0).halted and machine.registers(0).rip in range(pvh.ENTRY, pvh.ENTRY + 0x100),
        seconds=20,
        what="the guest to halt",
    )


def test_qmp_answers_and_registers_are_read(make: MakeMachine) -> None:
    with make(pvh.HALT, smp=2) as machine:
        assert machine.qmp("query-status")["running"]
        assert len(machine.qmp("query-cpus-fast")) == 2
        wait_halted(machine)
        first, second = machine.all_registers()
        assert (first.cpu, second.cpu) == (0, 1)
        assert first.rip == pvh.ENTRY + 2
        assert first.cr0 & 1
        assert first.gdt.limit > 0
        assert first.segments["CS"].limit == 0xFFFF_FFFF
        machine.stop()
        assert not machine.qmp("query-status")["running"]
        machine.cont()
        assert machine.wait_event("RESUME", seconds=5).name == "RESUME"


def test_memory_is_shared_both_ways(make: MakeMachine) -> None:
    with make(pvh.ANSWER) as machine:
        words = machine.ram.view(pvh.PROBE, 8).cast("I")
        words[0] = 41
        wait_until(lambda: words[1] == 42, seconds=20, what="the guest's answer")
        assert machine.ram.read(pvh.PROBE, 8) == machine.read_memory(pvh.PROBE, 8)
        machine.ram.write(pvh.PROBE + 0x100, b"from the host")
        assert machine.read_memory(pvh.PROBE + 0x100, 13) == b"from the host"
        assert machine.ram.read(pvh.ENTRY, len(pvh.ANSWER)) == pvh.ANSWER


def test_memory_of_each_numa_node_lies_where_qemu_says(make: MakeMachine) -> None:
    with make(pvh.HALT, smp=5, numa=2, memory_bytes=5 * GIB) as machine:
        wait_halted(machine)
        assert machine.hmp("info numa").splitlines()[:2] == ["2 nodes", "node 0 cpus: 0 1 2"]
        low, beyond_the_pci_hole, high = machine.ram.refresh().ranges  # the firmware has run now
        assert (low.start, low.backend) == (0, "ram0")
        assert (beyond_the_pci_hole.start, beyond_the_pci_hole.backend) == (4 * GIB, "ram0")
        assert (high.start, high.backend) == (beyond_the_pci_hole.end, "ram1")
        for ram in machine.ram.ranges:
            probe = max(ram.start, pvh.PROBE)
            machine.ram.write(probe, str(ram).encode())
            assert machine.read_memory(probe, len(str(ram))) == str(ram).encode()
        with pytest.raises(OutOfRange, match="0xfee00000 is not in RAM, which is 0x0-"):
            machine.ram.read(0xFEE0_0000, 4)
        with pytest.raises(OutOfRange, match=r"0x2 bytes at 0x[0-9a-f]+ leave the range"):
            machine.ram.view(high.end - 1, 2)


def test_second_monitor_on_a_socket(make: MakeMachine, tmp_path: Path) -> None:
    with make(pvh.HALT, qmp_socket=tmp_path / "qmp,1") as machine:
        monitor = Monitor(tmp_path / "qmp,1")
        try:
            assert monitor.execute("query-status") == machine.qmp("query-status")
            assert monitor.read(pvh.ENTRY, 4) == pvh.HALT
        finally:
            monitor.close()


def test_a_paused_machine_runs_when_told(make: MakeMachine) -> None:
    with make(pvh.GREET, paused=True) as machine:
        assert machine.qmp("query-status")["status"] == "prelaunch"
        assert machine.console == ""
        machine.cont()
        assert machine.wait_console("^h$", seconds=20)


def test_numbers_of_cpus_above_255(make: MakeMachine) -> None:
    with make(pvh.HALT, smp=260, memory_bytes=None) as machine:
        assert len(machine.qmp("query-cpus-fast")) == 260
        assert len(machine.all_registers()) == 260
        assert machine.registers(259).cpu == 259


def test_the_bell_rings_without_ever_blocking(make: MakeMachine) -> None:
    with make(pvh.HALT) as machine:
        wait_halted(machine)
        for _ in range(100_000):
            machine.ring()
        machine.kill()
        with pytest.raises(MachineDied, match="QEMU ended with signal 9"):
            machine.ring()
        with pytest.raises(MachineDied, match="QEMU ended with signal 9"):
            machine.check()


def test_end_by_the_debug_exit_port(make: MakeMachine) -> None:
    with make(pvh.EXIT_5) as machine:
        assert machine.wait_exit(seconds=20) == 2 * 5 + 1
        with pytest.raises(
            MachineDied, match=r"exit status 11 \(isa-debug-exit: the guest wrote 0x5\)\ncommand: .*q35"
        ):
            machine.qmp("query-status")
        with pytest.raises(MachineDied):
            machine.wait_console("never", seconds=20)
        assert machine.ram.read(pvh.ENTRY, len(pvh.EXIT_5)) == pvh.EXIT_5


def test_triple_fault_ends_the_machine(make: MakeMachine) -> None:
    with make(pvh.TRIPLE_FAULT) as machine:
        event = machine.wait_event("SHUTDOWN", seconds=20)
        assert event.data == {"guest": True, "reason": "guest-reset"}
        with pytest.raises(MachineDied, match="QEMU ended with exit status 0"):
            machine.wait_event("NEVER", seconds=20)
        with pytest.raises(MachineDied, match="QEMU ended with exit status 0"):
            machine.wait_console("never", seconds=20)


def test_a_command_line_that_qemu_refuses(make: MakeMachine, run_directory: Path) -> None:
    with pytest.raises(MachineDied, match=r"(?s)exit status 1\n.*qemu.err ends:\n.*no-such-device") as caught:
        make(pvh.HALT, extra=("-device", "no-such-device")).__enter__()
    assert f"the machine's files are in {run_directory}" in caught.value.__notes__


def test_a_refused_command_says_which(make: MakeMachine) -> None:
    with make(pvh.HALT) as machine, pytest.raises(QmpRefused, match="QEMU refuses 'no-such-command': "):
        machine.qmp("no-such-command")


def test_every_wait_is_bounded(make: MakeMachine) -> None:
    with make(pvh.GREET) as machine:
        machine.wait_console("h", seconds=20)
        with pytest.raises(WaitedInVain, match=r"waited 0.1 s for 'never' in console.log") as caught:
            machine.wait_console("never", seconds=0.1)
        assert caught.value.__notes__ == ["console.log ends:\n    h"]
        machine.wait_event("RESUME", seconds=20)
        with pytest.raises(WaitedInVain, match=r"waited 0.1 s for QEMU's event NEVER") as caught:
            machine.wait_event("NEVER", seconds=0.1)
        assert caught.value.__notes__ == ["events seen: RESUME"]
        with pytest.raises(WaitedInVain) as caught:
            machine.wait_event("NEVER", seconds=0.1, after=len(machine.events))
        assert caught.value.__notes__ == ["events seen: none"]
        with pytest.raises(WaitedInVain, match=r"waited 0.1 s for QEMU \(process \d+\) to end"):
            machine.wait_exit(seconds=0.1)
        os.kill(machine.pid, signal.SIGSTOP)
        with pytest.raises(WaitedInVain, match=r"waited 0.1 s for QEMU's reply to 'query-status'"):
            machine.qmp("query-status", seconds=0.1)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind(make: MakeMachine, error: type[BaseException]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    machine = make(pvh.HALT)
    with pytest.raises(error):
        fail_inside(machine, error)
    assert not Path(f"/proc/{machine.pid}").exists()
    assert set(os.listdir("/proc/self/fd")) == before


def fail_inside(machine: Machine, error: type[BaseException]) -> None:
    with machine:
        raise error


def test_a_temporary_directory_goes_only_after_success(
    make: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spec = make(pvh.HALT).spec
    with Machine(spec) as good:
        assert good.directory.is_dir()
    assert not good.directory.exists()
    with pytest.raises(RuntimeError), Machine(spec) as bad:
        raise RuntimeError
    assert "q35" in bad.directory.joinpath("command.txt").read_text()
    assert "query" not in bad.directory.joinpath("qmp.log").read_text()


def test_qemu_dies_with_us(make: MakeMachine, run_directory: Path) -> None:
    spec = make(pvh.HALT).spec
    program = f"""
import time
from pathlib import Path, PosixPath
from sidecar.qemu.accelerator import Accelerator
from sidecar.qemu.command_line import MachineSpec
from sidecar.qemu.machine import Machine
with Machine({spec!r}, directory={run_directory!r}) as machine:
    print(machine.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        owner.kill()
    wait_until(lambda: not runs(pid), seconds=10, what=f"process {pid} to end")


def runs(pid: int) -> bool:
    """Whether process `pid` exists and is no zombie that its new parent has yet to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_start_is_quick(make: MakeMachine) -> None:
    start = time.monotonic()
    with make(pvh.GREET) as machine:
        machine.wait_console("h", seconds=20)
    assert time.monotonic() - start < 10
