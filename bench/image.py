"""Size of the images, time to build them, memory per CPU."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

from sidecar.bench.figures import Figure, Group, median
from sidecar.builder import image
from sidecar.layout.address_map import PAGES_PER_CPU, required_memory
from sidecar.layout.schema import PAGE_SIZE

RUNS = 5


def measure() -> Group:
    kernel, shim = image.kernel(), image.shim()
    build, spread = median([_build_seconds() for _ in range(RUNS)], "s")
    return Group("image", "Image and memory", (
        Figure("sidecar.elf", f"{len(kernel.elf)} bytes", aim="under 32 KiB"),
        Figure("sidecar.elf in memory, with page tables and .bss", f"{kernel.plan.memory_bytes} bytes"),
        Figure("shim.elf", f"{len(shim.elf)} bytes"),
        Figure("building all of it, in a fresh process", build, spread, "under a second"),
        Figure("memory per CPU", f"{PAGES_PER_CPU} pages", aim="12 pages; OpenHCL's has 13"),
        Figure("memory of a node of 32 CPUs", f"{required_memory(32) // PAGE_SIZE} pages", aim="OpenHCL's has 417"),
    ))  # fmt: skip


def _build_seconds() -> float:
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "sidecar", "build", "--output", output]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    match = re.search(r"built in ([0-9.]+) s", text)
    if match is None:
        raise ValueError(f"sidecar build printed no time: {text!r}")
    return float(match[1])
