"""How long the sidecar takes to start its CPUs: first INIT to last CPU idle, by the TSC stamps of the machine."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.bench.figures import Figure, Group, median
from sidecar.qemu.session import Session

SIZES = (4, 16, 64, 255)
RUNS = 5
ROUNDS = {255: 3}


def measure(progress: Callable[[str], None]) -> Group:
    figures = []
    for smp in SIZES:
        times, cpus = [], 0
        for number in range(ROUNDS.get(smp, RUNS)):
            progress(f"{smp} CPUs, boot {number + 1}")
            with Session(smp=smp, accel="tcg") as session:
                found = session.found
                times.append((found.all_idle_tsc - found.first_init_tsc) / found.tsc_khz)
                cpus = len(session.cpus)
        aim = "a C trial: 3.9 ms for 63" if smp == 64 else ""
        figures.append(Figure(f"{cpus} sidecar CPUs of {smp}", *median(times, "ms"), aim))
    return Group("start", "First INIT to last CPU idle", tuple(figures))
