"""What a CPU costs in memory: the sidecar's pages for it, and what Linux has less after it brought one more online."""

from __future__ import annotations

import statistics

from sidecar.bench.boots import Mode
from sidecar.bench.context import Context
from sidecar.bench.figures import Aim, Figure, Group, measured
from sidecar.builder import image
from sidecar.layout.address_map import PAGES_PER_CPU, required_memory
from sidecar.layout.schema import PAGE_SIZE
from sidecar.qemu.linux.kernels import WHICH, Which

SMP = 32
NODE = 32
KIB = 1024
BOUND_SECONDS = 120.0
SEEN: dict[Mode, str] = {"all": "online in Linux", "sidecar": "the sidecar's, seen from Linux"}

TEXT = """Linux's figures are differences of free memory at the start of user space (MemFree, and the free pages that
CPUs keep for themselves, from /proc/zoneinfo), between machines that differ only in how they were booted, divided by
the CPUs: with all CPUs against `maxcpus=1`, and beside the sidecar against `maxcpus=1`. The last one has in it all that
is reserved for shim and sidecar. From boot to boot free memory differs by some hundred KiB."""


def measure(context: Context) -> Group:
    smp = max((size for size in context.sizes if size <= SMP), default=context.sizes[0])
    pages, upstream = PAGES_PER_CPU * PAGE_SIZE // KIB, 13 * PAGE_SIZE // KIB
    figures = [
        Figure("pages of a sidecar CPU", f"{pages} KiB", "", Aim(f"under upstream's {upstream}", upstream), (pages,),
               "KiB"),
        Figure(f"a node of {NODE} CPUs, per CPU", f"{required_memory(NODE) / NODE / KIB:.1f} KiB"),
        Figure("image, page tables and .bss, once", f"{image.kernel().plan.memory_bytes / KIB:.1f} KiB"),
    ]
    for which in WHICH:
        if not context.budget.allows(90.0):
            context.leave_out(f"memory per CPU of the {which} kernel")
            continue
        version = context.boots.kernel(which).version
        for mode, name in SEEN.items():
            costs = _per_cpu_kib(context, which, smp, mode)
            if costs:
                figures.append(measured(f"Linux {version}: a CPU {name}, {smp} CPUs", costs, "KiB", 0))
    return Group("memory", "Memory per CPU", tuple(figures), TEXT)


def _per_cpu_kib(context: Context, which: Which, smp: int, mode: Mode) -> list[float]:
    """Free memory with one CPU less that of each boot, by the CPUs that it has more."""
    one = [boot.free_kib for boot in context.boots.some(which, smp, "one", bound=BOUND_SECONDS) if boot.free_kib]
    if not one:
        return []
    alone = statistics.median(one)
    costs = []
    for boot in context.boots.some(which, smp, mode, bound=BOUND_SECONDS):
        cpus = boot.sidecar_cpus if mode == "sidecar" else (boot.online or 1) - 1
        if boot.free_kib and cpus:
            costs.append((alone - boot.free_kib) / cpus)
    return costs
