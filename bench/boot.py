"""From QEMU's start to user space: beside the sidecar, with maxcpus=1, and with all CPUs; for both kernels.

Every size is booted once in all three ways before any is booted again, so that what changes on the host meanwhile
meets them all; and if time runs out, medians are of fewer boots.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product

from sidecar.bench.boots import MODES, UNBOUNDED_SECONDS, Boot, Mode
from sidecar.bench.context import Context
from sidecar.bench.figures import Group, Table
from sidecar.bench.plot import BLUE, GREEN, ORANGE, Chart, Point, Series, draw
from sidecar.qemu.linux.kernels import WHICH, Which

ROUNDS = 3
ROUNDS_UP_TO = 32
"""CPUs; above, one boot of each kind."""

BOUND_SECONDS = 120.0
NAMES: dict[Mode, str] = {"sidecar": "sidecar", "one": "maxcpus=1", "all": "all CPUs"}
COLOURS: dict[Mode, str] = {"sidecar": BLUE, "one": GREEN, "all": ORANGE}

TEXT = """From QEMU's start to the first line of user space, by the host's clock. Medians of three boots up to 32 CPUs,
with the range; one boot above, ended after {bound} (shown as "more than"). From 128 CPUs on QEMU runs all CPUs in one
thread (`-accel tcg,thread=single`) in all three kinds."""


def measure(context: Context) -> Group:
    for which, smp, mode in _plan(context):
        _boot(context, which, smp, mode)
    tables: list[Table] = []
    pictures: list[str] = []
    for which in WHICH:
        boots: dict[int, dict[Mode, list[Boot]]] = {
            smp: {mode: context.boots.of(which, smp, mode) for mode in MODES} for smp in context.sizes
        }
        if not any(boots[smp][mode] for smp in context.sizes for mode in MODES):
            continue
        version = context.boots.kernel(which).version
        heads = ("CPUs", *(NAMES[mode] for mode in MODES), "all/sidecar")
        tables.append(Table(f"Linux {version}", heads, _rows(boots)))
        pictures += context.draw(f"boot-{which}.svg", draw(chart(f"Linux {version}: QEMU start to user space", boots)))
    bound = "no time" if context.full else f"{BOUND_SECONDS:g} s"
    return Group(
        "boot", "Boot", text=TEXT.format(bound=bound), tables=tuple(tables), pictures=tuple(pictures),
        data=[asdict(boot) for which in WHICH for smp in context.sizes for mode in MODES
              for boot in context.boots.of(which, smp, mode)],
    )  # fmt: skip


def _plan(context: Context) -> Iterator[tuple[Which, int, Mode]]:
    for number in range(ROUNDS):
        for smp in context.sizes:
            if number == 0 or smp <= ROUNDS_UP_TO:
                for which, mode in product(WHICH, MODES):
                    if len(context.boots.of(which, smp, mode)) <= number:
                        yield which, smp, mode


def _boot(context: Context, which: Which, smp: int, mode: Mode) -> None:
    """One boot, unless there is no time for it."""
    bound = UNBOUNDED_SECONDS if context.full else BOUND_SECONDS
    earlier = context.boots.of(which, smp, mode)
    expected = earlier[-1].cost if earlier else 0.0
    if not context.budget.allows(max(expected, 20.0)):
        context.leave_out(f"a boot of the {which} kernel with {smp} CPUs, {NAMES[mode]}")
        return
    context.boots.measure(which, smp, mode, bound=min(bound, context.budget.left()))


def _rows(boots: dict[int, dict[Mode, list[Boot]]]) -> tuple[tuple[str, ...], ...]:
    return tuple((str(smp), *(cell(of[mode]) for mode in MODES), _ratio(of)) for smp, of in boots.items())


def cell(boots: list[Boot]) -> str:
    """Median and range, as text."""
    if not boots:
        return "no time for it"
    seconds = [boot.seconds for boot in boots if boot.seconds is not None]
    slow = [boot for boot in boots if boot.seconds is None]
    if len(slow) >= len(seconds):
        return f"more than {min(boot.bound for boot in slow):.0f} s"
    if len(seconds) == 1:
        return f"{seconds[0]:.1f} s"
    return f"{statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


def _ratio(of: dict[Mode, list[Boot]]) -> str:
    ours, theirs = _median(of["sidecar"]), _median(of["all"])
    return "" if ours is None or theirs is None else f"{theirs / ours:.1f}"


def _median(boots: list[Boot]) -> float | None:
    seconds = [boot.seconds for boot in boots if boot.seconds is not None]
    return statistics.median(seconds) if seconds else None


def chart(title: str, boots: dict[int, dict[Mode, list[Boot]]]) -> Chart:
    """The picture of one kernel's boots."""
    series = (
        Series(NAMES[mode], COLOURS[mode], tuple(_point(smp, of[mode]) for smp, of in boots.items() if of[mode]))
        for mode in reversed(MODES)
    )
    return Chart(title, "CPUs", "seconds", tuple(one for one in series if one.points))


def _point(smp: int, boots: list[Boot]) -> Point:
    seconds = [boot.bound if boot.seconds is None else boot.seconds for boot in boots]
    middle = statistics.median(seconds)
    bounded = sum(boot.seconds is None for boot in boots) * 2 >= len(boots)
    return Point(smp, middle, min(seconds), max(seconds), bounded)
