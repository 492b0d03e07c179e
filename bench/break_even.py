"""From how many CPUs on the sidecar pays, and how many later conversions it pays for: reckoned from other figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from sidecar.bench import conversion
from sidecar.bench.boots import Mode
from sidecar.bench.context import Context
from sidecar.bench.figures import Figure, Group, Table
from sidecar.qemu.linux.kernels import WHICH, Which
from sidecar.qemu.session import BootFailed

MIB = 1 << 20
EXPECTED_SECONDS = 40.0

TEXT = """Reckoned from the boots, the memory and the conversions above. Saved: Linux's boot with all CPUs less that
beside the sidecar. A CPU that Linux needs later is converted, one after the other: so many conversions cost what the
boot has saved. Memory saved: free memory of Linux beside the sidecar less that with all CPUs."""


def measure(context: Context) -> Group:
    figures, tables = [], []
    for which in WHICH:
        sizes = [smp for smp in context.sizes if _ready(context, which, smp)]
        if not sizes:
            context.leave_out(f"break-even of the {which} kernel")
            continue
        version = context.boots.kernel(which).version
        saved = {smp: _median(context, which, smp, "all") - _median(context, which, smp, "sidecar") for smp in sizes}
        paid = crossing(list(saved), list(saved.values()))
        figures.append(Figure(f"Linux {version}: pays from", describe(paid, sizes), samples=(paid,), unit="CPUs"))
        convert_ms = _convert_ms(context, which)
        rows = tuple(_row(context, which, smp, saved[smp], convert_ms) for smp in sizes)
        heads = ("CPUs", "boot saved", "pays for so many conversions", "memory saved")
        tables.append(Table(f"Linux {version}", heads, rows))
    return Group("break-even", "Break-even", tuple(figures), TEXT, tuple(tables))


def crossing(sizes: Sequence[int], saved: Sequence[float]) -> float:
    """The number of CPUs from which on everything measured is a gain, between two sizes on a logarithmic scale.

    The first size if all are gains; infinity if the last is none.
    """
    if saved[-1] <= 0:
        return math.inf
    last_loss = max((place for place, one in enumerate(saved) if one <= 0), default=None)
    if last_loss is None:
        return float(sizes[0])
    left, right = saved[last_loss], saved[last_loss + 1]
    share = -left / (right - left)
    return sizes[last_loss] * math.exp(share * math.log(sizes[last_loss + 1] / sizes[last_loss]))


def describe(paid: float, sizes: Sequence[int]) -> str:
    if math.isinf(paid):
        return f"nowhere up to {sizes[-1]} CPUs"
    return f"{math.ceil(paid)} CPUs"


def _ready(context: Context, which: Which, smp: int) -> bool:
    """Are there boots of both kinds, or is there time for them?"""
    for mode in ("sidecar", "all"):
        if not context.boots.of(which, smp, mode):
            if not context.budget.allows(EXPECTED_SECONDS):
                return False
            context.boots.measure(which, smp, mode, bound=context.budget.left())
    return bool(context.boots.seconds(which, smp, "sidecar") and context.boots.seconds(which, smp, "all"))


def _median(context: Context, which: Which, smp: int, mode: Mode) -> float:
    return statistics.median(context.boots.seconds(which, smp, mode))


def _convert_ms(context: Context, which: Which) -> float | None:
    """What one conversion takes, measured now if it was not."""
    key = f"convert_ms {which}"
    if key not in context.known and context.budget.allows(conversion.EXPECTED_SECONDS * len(WHICH)):
        try:
            conversion.measure(context)
        except BootFailed as error:  # the rest can be told without it
            context.leave_out(f"conversions: {str(error).splitlines()[0]}")
    return context.known.get(key)


def _row(context: Context, which: Which, smp: int, saved: float, convert_ms: float | None) -> tuple[str, ...]:
    conversions = ""
    if convert_ms is not None:
        conversions = str(max(0, min(smp - 1, int(saved * 1000 / convert_ms)))) + f" of {smp - 1}"
    free: dict[Mode, list[int]] = {
        mode: [boot.free_kib for boot in context.boots.of(which, smp, mode) if boot.free_kib]
        for mode in ("sidecar", "all")
    }
    memory = ""
    if free["sidecar"] and free["all"]:
        kib = statistics.median(free["sidecar"]) - statistics.median(free["all"])
        memory = f"{kib * 1024 / MIB:.0f} MiB"
    return str(smp), f"{saved:+.1f} s", conversions, memory
