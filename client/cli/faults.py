"""`sidecarctl faults`: each CPU's last contained fault and its counters."""

from __future__ import annotations

import argparse

from sidecar.client.cli.frame import CPU_HELP, Commands, add_command, open_sidecar, show
from sidecar.protocol import render
from sidecar.protocol.decode import Decoded


def add(commands: Commands) -> None:
    parser = add_command(commands, "faults", run, help="the last fault of every CPU that had one, and the counters")
    parser.add_argument("cpus", metavar="CPU", nargs="*", help=f"{CPU_HELP}; default: all that had a fault")


def run(options: argparse.Namespace) -> int:
    with open_sidecar(options) as sidecar:
        named = [sidecar.cpu(name) for name in options.cpus]
        entries: list[Decoded] = [
            cpu.describe() | cpu.fault_record() | {"counters": cpu.counters()} for cpu in named or sidecar.started
        ]
    if not named:
        entries = [entry for entry in entries if entry["count"]]
    show(options, entries, "\n".join(render.fault(entry) for entry in entries) or "no CPU has had a fault")
    return 0
