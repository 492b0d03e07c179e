"""An idle machine costs its host nearly nothing: sidecar CPUs and the relay halt. The one measured figure here."""

import os
from pathlib import Path

from sidecar.qemu.session import Session
from sidecar.qemu.waiting import wait_until
from tests.support.booted import wait_parked

SECONDS = 10.0
MOST = 0.02
UTIME, STIME = 13, 14
"""Fields of /proc/PID/stat, counted from 0. Ref: proc(5)."""


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads of a process, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[UTIME - 2]) + int(fields[STIME - 2])
    return ticks / os.sysconf("SC_CLK_TCK")


def test_an_idle_machine_of_8_cpus_uses_less_than_2_percent_of_a_core(run_directory: Path) -> None:
    with Session(smp=8, directory=run_directory) as session:
        for cpu in session.cpus.values():
            cpu.none()
        wait_parked(session)
        wait_until(lambda: session.machine.registers(0).halted, seconds=20, what="the relay to halt")
        started = cpu_seconds(session.machine.pid)
        assert not session.machine.process.wait(SECONDS), "QEMU runs all the time"
        used = cpu_seconds(session.machine.pid) - started
        assert used < MOST * SECONDS, f"QEMU used {used:g} s of processor time in {SECONDS:g} s"
        for cpu in session.cpus.values():
            cpu.none()
