"""How long the sidecar takes to start its CPUs: first INIT to last CPU idle, by the TSC stamps of the machine."""

from __future__ import annotations

import statistics

from sidecar.bench import timeline
from sidecar.bench.context import Context
from sidecar.bench.figures import Aim, Figure, Group, measured
from sidecar.qemu.linux.kernels import WHICH, Which
from sidecar.qemu.session import Session

SIZES = (4, 16, 64, 255)
RUNS = 11
ROUNDS = {255: 3}
DRAWN = 64
PICTURE = "fan-out.svg"
LINUX_BOUND_SECONDS = 150.0
LINUX_EXPECTED_SECONDS = 75.0

WHY = "Each CPU is a thread of the host, and where cores are few, one that loses its turn waits for milliseconds."
AIM = Aim("over 500", 500, at_least=True, why=WHY)

TEXT = """The sidecar's times are TSC stamps of a machine without Linux. Linux's are its own, from "Bringing up
secondary CPUs" to "Brought up" in the log of a boot with all CPUs on the same host, for as many CPUs: its time for all
others, times their share."""


def measure(context: Context) -> Group:
    sizes = context.sizes_of(SIZES)
    drawn_size = DRAWN if DRAWN in sizes else max(sizes)
    figures, drawn = [], []
    for smp in sizes:
        times, cpus = [], 0
        for number in range(ROUNDS.get(smp, RUNS)):
            context.tell(f"start of {smp} CPUs without Linux, boot {number + 1}")
            with Session(smp=smp, accel="tcg") as session:
                found = session.found
                times.append((found.all_idle_tsc - found.first_init_tsc) / found.tsc_khz)
                cpus = len(session.cpus)
                if smp == drawn_size:
                    drawn.append((times[-1], timeline.arrivals(session)))
        figures.append(measured(f"{cpus} sidecar CPUs of {smp}", times, "ms"))
    drawn.sort(key=lambda one: one[0])
    figures += _against_linux(context, drawn_size, [took for took, _ in drawn], len(drawn[0][1]))
    took, rows = drawn[len(drawn) // 2]
    title = f"{len(rows)} sidecar CPUs of {drawn_size}: all idle {took:.2f} ms after the first INIT"
    pictures = context.draw(PICTURE, timeline.draw(rows, title))
    return Group("start", "First INIT to last CPU idle", tuple(figures), TEXT, pictures=pictures)


def _against_linux(context: Context, smp: int, ours: list[float], cpus: int) -> list[Figure]:
    figures = []
    for which in WHICH:
        if not context.boots.of(which, smp, "all") and not context.budget.allows(LINUX_EXPECTED_SECONDS):
            context.leave_out(f"Linux's own start of {smp} CPUs ({which})")
            continue
        theirs = _linux_ms(context, which, smp, cpus)
        if not theirs:
            continue
        times = statistics.median(theirs) / statistics.median(ours)
        version = context.boots.kernel(which).version
        aim = AIM if smp == DRAWN else None
        figures.append(measured(f"Linux {version}, {cpus} CPUs of {smp}", theirs, "ms", 0))
        figures.append(Figure(f"that is as many times the sidecar's {cpus}", f"{times:.0f}", aim=aim, samples=(times,),
                              unit="1"))  # fmt: skip
    return figures


def _linux_ms(context: Context, which: Which, smp: int, cpus: int) -> list[float]:
    """What Linux needs for so many CPUs: its time for all others, times their share."""
    boots = context.boots.some(which, smp, "all", bound=LINUX_BOUND_SECONDS)
    return [boot.bring_up_ms * cpus / (boot.online - 1)
            for boot in boots if boot.bring_up_ms is not None and boot.online is not None and boot.online > 1]
