"""How long the sidecar takes to start its CPUs: first INIT to last CPU idle, by the TSC stamps of the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sidecar.bench import timeline
from sidecar.bench.figures import Figure, Group, median
from sidecar.qemu.session import Session

SIZES = (4, 16, 64, 255)
RUNS = 5
ROUNDS = {255: 3}
DRAWN = 64
PICTURE = "fan-out.svg"


def measure(progress: Callable[[str], None], plots: Path | None = None) -> Group:
    """`plots`: where to put the picture of the fan-out that came closest to the median."""
    figures, drawn = [], []
    for smp in SIZES:
        times, cpus = [], 0
        for number in range(ROUNDS.get(smp, RUNS)):
            progress(f"{smp} CPUs, boot {number + 1}")
            with Session(smp=smp, accel="tcg") as session:
                found = session.found
                times.append((found.all_idle_tsc - found.first_init_tsc) / found.tsc_khz)
                cpus = len(session.cpus)
                if smp == DRAWN:
                    drawn.append((times[-1], timeline.arrivals(session)))
        aim = "a C trial: 3.9 ms for 63" if smp == 64 else ""
        figures.append(Figure(f"{cpus} sidecar CPUs of {smp}", *median(times, "ms"), aim))
    if plots is not None:
        took, rows = sorted(drawn, key=lambda one: one[0])[len(drawn) // 2]
        title = f"{len(rows)} sidecar CPUs of {DRAWN}: all idle {took:.2f} ms after the first INIT"
        (plots / PICTURE).write_text(timeline.draw(rows, title))
    return Group("start", "First INIT to last CPU idle", tuple(figures), PICTURE if plots else "")
