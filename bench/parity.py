"""A large machine beside the sidecar against the same one with maxcpus=1, in guest time: who pays for the other CPUs?

Ref: docs/decisions.md for what the shim does before Linux.
"""

from __future__ import annotations

import statistics

from sidecar.bench.boots import Boot
from sidecar.bench.compare import ratio
from sidecar.bench.context import Context
from sidecar.bench.figures import Aim, Figure, Group, measured
from sidecar.qemu.linux.kernels import Which

SMP = 64
PAIRS = 20
FEWEST = 3
BOUND_SECONDS = 120.0
WHICH: Which = "stable"

TEXT = """Both kinds are booted alternately. Guest time is the TSC at the first line of user space, less the TSC at the
shim's entry: what QEMU and the firmware need before is left out. A machine without the shim has the same QEMU, firmware
and files; from it the median of the shim's entry is taken off too. The interval is from {pairs} alternations, by the
bootstrap."""

AIM = Aim("at most 1.05", 1.05)


def measure(context: Context) -> Group:
    smp = max(context.sizes_of((SMP,)))
    pairs = _boot(context, smp)
    if len(pairs) < FEWEST:
        context.leave_out(f"{PAIRS} alternations of {smp} CPUs against maxcpus=1")
        return Group("parity", _title(smp), text=f"There was time for {len(pairs)} alternations only.")
    entry = statistics.median(ours.shim_entry_tsc or 0 for ours, _ in pairs)
    khz = statistics.median(ours.tsc_khz or 0 for ours, _ in pairs)
    mine = [((ours.user_space_tsc or 0) - (ours.shim_entry_tsc or 0)) / khz for ours, _ in pairs]
    theirs = [((other.user_space_tsc or 0) - entry) / khz for _, other in pairs]
    before = [(ours.shim_entry_tsc or 0) / khz for ours, _ in pairs]
    compared = ratio(mine, theirs)
    return Group("parity", _title(smp), (
        measured("beside the sidecar", mine, "ms", 0),
        measured("maxcpus=1", theirs, "ms", 0),
        Figure("ratio of the medians", str(compared), compared.interval, AIM, (compared.value,), "1"),
        measured("before the shim: QEMU and firmware", before, "ms", 0),
    ), text=TEXT.format(pairs=len(pairs)))  # fmt: skip


def _title(smp: int) -> str:
    return f"{smp} CPUs against maxcpus=1"


def _boot(context: Context, smp: int) -> list[tuple[Boot, Boot]]:
    """Alternations, as many as are wanted and there is time for; only whole ones in which user space was reached."""
    pairs: list[tuple[Boot, Boot]] = []
    wanted = FEWEST if context.chosen and not context.full else PAIRS
    while len(pairs) < wanted:
        expected = sum(boot.cost for boot in pairs[-1]) if pairs else 30.0
        if not context.budget.allows(expected):
            break
        ours = context.boots.measure(WHICH, smp, "sidecar", bound=BOUND_SECONDS)
        theirs = context.boots.measure(WHICH, smp, "one", bound=BOUND_SECONDS)
        if ours.seconds is None or theirs.seconds is None:
            break
        if ours.shim_entry_tsc is None:  # the shim fell back: there is nothing to compare
            break
        pairs.append((ours, theirs))
    return pairs
