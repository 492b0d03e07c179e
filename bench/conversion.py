"""A CPU from the sidecar to Linux and back, against Linux's own online and offline: the same switch in sysfs."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from sidecar.bench import programs
from sidecar.bench.context import Context
from sidecar.bench.figures import Figure, Group, measured
from sidecar.qemu.linux.kernels import WHICH, Which
from sidecar.qemu.linux_session import Baseline, LinuxSession

SMP = 4
CPU = 2
ROUNDS = 10
PROGRAM = Path(__file__).resolve().parent / "in_guest" / "switching.py"
SECONDS = 120.0
EXPECTED_SECONDS = 60.0

TEXT = """A write to /sys/devices/system/cpu/cpuN/online of one of {smp} CPUs, until it returns. Beside the sidecar the
driver has the CPU leave it, or come back to it; the same kernel with `maxcpus=1` knows no sidecar. {rounds} rounds."""


def measure(context: Context) -> Group:
    figures: list[Figure] = []
    for which in WHICH:
        if not context.budget.allows(EXPECTED_SECONDS):
            context.leave_out(f"conversions with the {which} kernel")
            continue
        ours, theirs = _switch(context, which, None), _switch(context, which, "one")
        version = context.boots.kernel(which).version
        for side, name in enumerate(("to Linux", "back")):
            own = ("Linux's own online", "Linux's own offline")[side]
            figures.append(measured(f"Linux {version}: {name}", ours[side], "ms", 1))
            figures.append(measured(f"Linux {version}: {own}", theirs[side], "ms", 1))
        context.known[f"convert_ms {which}"] = statistics.median(ours[0])
    return Group("conversion", "Conversion of a CPU", tuple(figures), TEXT.format(smp=SMP, rounds=ROUNDS))


def _switch(context: Context, which: Which, baseline: Baseline | None) -> tuple[list[float], list[float]]:
    """Milliseconds of every way there, and of every way back."""
    kernel = context.boots.kernel(which)
    context.tell(f"switching a CPU of Linux {kernel.version}, {'sidecar' if baseline is None else 'maxcpus=1'}")
    driver = programs.driver_of(kernel, tell=context.tell) if baseline is None else None
    with LinuxSession(
        kernel=kernel, smp=SMP, baseline=baseline, driver=driver, copy_in=[PROGRAM], accel="tcg"
    ) as session:
        if driver is not None:
            session.load_driver()
        said = session.guest.run(f"python3 /root/{PROGRAM.name} {CPU} {ROUNDS}", SECONDS).check().stdout
    there, back = json.loads(said)
    return there, back
