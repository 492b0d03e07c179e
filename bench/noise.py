"""How evenly time passes on a sidecar CPU and on an isolated CPU of Linux: gaps between two looks at the TSC."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sidecar.bench import programs
from sidecar.bench.context import Context
from sidecar.bench.figures import Group, measured
from sidecar.layout.command import GAP_BINS
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_session import LinuxSession

WHICH: Which = "stable"
SMP = 4
SIDECARS, LINUXS = 1, 3
ROUNDS = 5
SECONDS = 2.0
LONG_US = 10.0

TEXT = """A loop that does nothing but look at the TSC, {rounds} times {seconds:g} s on each by turns: on a CPU of the
sidecar the command MEASURE_GAPS, on a CPU of Linux that `isolcpus` keeps free a thread of the highest class. Under TCG
both lose time to the host, which has fewer CPUs than the guest; what Linux adds is its timer."""


@dataclass(frozen=True, slots=True)
class Gaps:
    """What one loop has seen, in TSC ticks; `sums` and `counts` by the number of a gap's highest bit."""

    ticks: int
    longest: int
    sums: tuple[int, ...]
    counts: tuple[int, ...]

    def lost(self, bit: int) -> float:
        """The share of the time that was in gaps of at least 2^bit ticks."""
        return sum(self.sums[bit:]) / self.ticks

    def often(self, bit: int) -> int:
        """How many there were."""
        return sum(self.counts[bit:])


def measure(context: Context) -> Group:
    kernel = context.boots.kernel(WHICH)
    driver = programs.driver_of(kernel, tell=context.tell)
    ours: list[Gaps] = []
    theirs: list[Gaps] = []
    with tempfile.TemporaryDirectory(prefix="sidecar-bench-") as scratch:
        folder = programs.HERE / "in_guest"
        program = programs.compile_program(folder / "gaps.c", Path(scratch) / "gaps", *programs.FOR_THE_GUEST)
        context.tell(f"boot of Linux {kernel.version}, {SMP} CPUs, for gaps")
        with LinuxSession(
            kernel=kernel, smp=SMP, driver=driver, copy_in=[program, folder / "gaps.py"], accel="tcg",
            append=f"sidecar.tests isolcpus={LINUXS}",
        ) as session:  # fmt: skip
            session.load_driver()
            session.guest.run(["sidecarctl", "convert", str(LINUXS)]).check()
            khz = session.found.tsc_khz if session.found else 0
            ticks = round(SECONDS * khz * 1000)
            for _ in range(ROUNDS):
                ours.append(parse(session.guest.run(f"python3 /root/gaps.py {SIDECARS} {ticks}").check().stdout))
                theirs.append(parse(session.guest.run(f"/root/gaps {LINUXS} {ticks}").check().stdout))
    bit = round(LONG_US * khz / 1000).bit_length()
    long_us = (1 << bit) / khz * 1000
    figures = []
    for who, gaps in (("a sidecar CPU", ours), ("an isolated Linux CPU", theirs)):
        figures.append(measured(f"longest gap on {who}", [one.longest / khz * 1000 for one in gaps], "us", 0))
        figures.append(measured(f"in gaps of {long_us:.0f} us and more on {who}",
                                [100 * one.lost(bit) for one in gaps], "%", 2))  # fmt: skip
        figures.append(measured(f"such gaps per second on {who}",
                                [one.often(bit) / (one.ticks / khz / 1000) for one in gaps], "/s", 0))  # fmt: skip
    return Group("noise", "Noise", tuple(figures), TEXT.format(rounds=ROUNDS, seconds=SECONDS))


def parse(line: str) -> Gaps:
    """What both programs print. Raises ValueError for anything else."""
    numbers = tuple(map(int, line.split()))
    if len(numbers) != 2 + 2 * GAP_BINS:
        raise ValueError(f"the guest printed {len(numbers)} numbers instead of {2 + 2 * GAP_BINS}")
    return Gaps(numbers[0], numbers[1], numbers[2 : 2 + GAP_BINS], numbers[2 + GAP_BINS :])
