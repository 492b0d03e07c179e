"""`sidecarctl convert`, `return` and `restart`: a CPU to Linux, back to the sidecar, and through INIT."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from sidecar.client.cli.frame import CPU_HELP, Commands, add_command, open_sidecar, show
from sidecar.client.cpu import Cpu


def add(commands: Commands) -> None:
    for name, verb, help in (
        ("convert", _verb(Cpu.convert), "make a CPU a Linux CPU"),
        ("return", _verb(Cpu.give_back), "take a CPU from Linux and give it to the sidecar"),
        ("restart", _verb(Cpu.restart), "bring a CPU that faulted or is lost back by INIT"),
    ):
        parser = add_command(commands, name, verb, help=help)
        parser.add_argument("cpu", metavar="CPU", help=CPU_HELP)


def _verb(change: Callable[[Cpu], None]) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        with open_sidecar(options) as sidecar:
            cpu = sidecar.cpu(options.cpu)
            started = time.perf_counter()
            change(cpu)
            data = cpu.describe() | {"milliseconds": round((time.perf_counter() - started) * 1000, 1)}
        show(options, data, f"{cpu.numbers} is {data['state']} after {data['milliseconds']:.0f} ms")
        return 0

    return run
