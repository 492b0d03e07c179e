"""What an idle machine costs its host: CPU time of the QEMU process while nothing is asked of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sidecar.bench.context import Context
from sidecar.bench.figures import Aim, Figure, Group
from sidecar.qemu.session import Session

SECONDS = 10


def measure(context: Context) -> Group:
    with Session(smp=8, accel="tcg") as session:
        before = _cpu_seconds(session.machine.pid)
        time.sleep(SECONDS)
        used = _cpu_seconds(session.machine.pid) - before
    share = 100 * used / SECONDS
    return Group("idle", "Idle", (
        Figure(f"QEMU with 8 CPUs, relay included, over {SECONDS} s", f"{share:.1f} % of a core", "",
               Aim("under 2 %", 2), (share,), "%"),
    ))  # fmt: skip


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
