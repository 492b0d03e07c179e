"""Size of the images, and the time to build them."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile

from sidecar.bench.context import Context
from sidecar.bench.figures import Aim, Figure, Group, measured
from sidecar.builder import image

RUNS = 5


SIZE_AIM = Aim("under 32 KiB", 32 << 10, why="It was met before there were virtual processors, which are the rest.")
BUILD_AIM = Aim("under a second", 1.0, why="A fresh process assembles every routine; nothing is kept.")


def measure(context: Context) -> Group:
    kernel, shim = image.kernel(), image.shim()
    return Group("image", "Image", (
        Figure("sidecar.elf", f"{len(kernel.elf)} bytes", "", SIZE_AIM, (len(kernel.elf),), "bytes"),
        Figure("sidecar.elf in memory, with page tables and .bss", f"{kernel.plan.memory_bytes} bytes"),
        Figure("shim.elf", f"{len(shim.elf)} bytes"),
        measured("building all of it, in a fresh process", [_build_seconds() for _ in range(RUNS)], "s", 2,
                 BUILD_AIM),
    ))  # fmt: skip


def _build_seconds() -> float:
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "sidecar", "build", "--output", output]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    match = re.search(r"built in ([0-9.]+) s", text)
    if match is None:
        raise ValueError(f"sidecar build printed no time: {text!r}")
    return float(match[1])
