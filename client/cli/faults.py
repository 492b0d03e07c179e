"""`sidecarctl faults`: each CPU's last contained fault and its counters."""

from __future__ import annotations

import argparse

from sidecar.client.cli.frame import Commands, add_command, add_cpus, chosen_or_started, open_sidecar, show
from sidecar.protocol import render
from sidecar.protocol.decode import Decoded


def add(commands: Commands) -> None:
    parser = add_command(commands, "faults", run, help="the last fault of every CPU that had one, and the counters")
    add_cpus(parser, "had a fault")


def run(options: argparse.Namespace) -> int:
    with open_sidecar(options) as sidecar:
        entries: list[Decoded] = [
            cpu.describe() | cpu.fault_record() | {"counters": cpu.counters()}
            for cpu in chosen_or_started(sidecar, options.cpus)
        ]
    if not options.cpus:
        entries = [entry for entry in entries if entry["count"]]
    show(options, entries, "\n".join(render.fault(entry) for entry in entries) or "no CPU has had a fault")
    return 0
