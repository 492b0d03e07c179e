"""Size of the images, and the time to build them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

from sidecar.bench.context import Context
from sidecar.bench.figures import Figure, Group, measured
from sidecar.builder import image

RUNS = 5


def measure(context: Context) -> Group:
    kernel, shim = image.kernel(), image.shim()
    return Group("image", "Image", (
        Figure("sidecar.elf", f"{len(kernel.elf)} bytes", aim="under 32 KiB"),
        Figure("sidecar.elf in memory, with page tables and .bss", f"{kernel.plan.memory_bytes} bytes"),
        Figure("shim.elf", f"{len(shim.elf)} bytes"),
        measured("building all of it, in a fresh process", [_build_seconds() for _ in range(RUNS)], "s", 2,
                 "under a second"),
    ))  # fmt: skip


def _build_seconds() -> float:
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "sidecar", "build", "--output", output]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    match = re.search(r"built in ([0-9.]+) s", text)
    if match is None:
        raise ValueError(f"sidecar build printed no time: {text!r}")
    return float(match[1])
