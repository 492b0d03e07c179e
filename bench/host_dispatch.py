"""What a command costs: guest instructions on the sidecar CPU, and commands per second from the host."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from pathlib import Path

from sidecar.bench.context import Context
from sidecar.bench.figures import Aim, Figure, Group, measured
from sidecar.protocol.commands import Cpu
from sidecar.qemu.session import Session

COMMANDS = 5000
COUNTED = 50
RUNS = 5
SETTLE_SECONDS = 0.2
"""Until the CPU that was given its last command is halted again."""


def measure(context: Context) -> Group:
    with Session(smp=5, accel="tcg") as session:
        cpus = [session.cpus[number] for number in sorted(session.cpus)]
        one = [_rate(cpus[:1]) for _ in range(RUNS)]
        four = [_rate(cpus) for _ in range(RUNS)]
    executed = _instructions()
    return Group("host-dispatch", "An empty command from the host, without Linux", (
        Figure("guest instructions on the sidecar CPU", f"{executed:g}", "", Aim("under 100", 100), (executed,), "1"),
        measured("commands per second, 1 CPU, 1 thread", one, "/s", 0),
        measured("commands per second, 4 CPUs, 4 threads", four, "/s", 0),
    ))  # fmt: skip


def _rate(cpus: list[Cpu]) -> float:
    """Commands per second over all CPUs, a thread each."""

    def work(cpu: Cpu) -> None:
        for _ in range(COMMANDS // len(cpus)):
            cpu.none()

    threads = [threading.Thread(target=work, args=(cpu,)) for cpu in cpus]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return COMMANDS / (time.perf_counter() - started)


def _instructions() -> float:
    """Instructions that the sidecar CPU executes per NONE: QEMU's execution log at one instruction per block.

    Counted from the wake-up out of HLT to the next HLT.
    """
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "execution.log"
        with Session(smp=2, accel="tcg", extra=("-D", str(log))) as session:
            cpu = session.cpus[1]
            cpu.none()
            session.machine.hmp("one-insn-per-tb on")
            cpu.none()
            time.sleep(SETTLE_SECONDS)
            session.machine.hmp("log exec,nochain")
            for _ in range(COUNTED):
                cpu.none()
            time.sleep(SETTLE_SECONDS)
            session.machine.hmp("log none")
        return sum(bool(re.match(r"Trace 1:", line)) for line in log.read_text().splitlines()) / COUNTED
