"""`sidecarctl recorder`: the last events of CPUs, from their flight recorders."""

from __future__ import annotations

import argparse

from sidecar.client.cli.frame import CPU_HELP, Commands, add_command, open_sidecar, show
from sidecar.protocol import render


def add(commands: Commands) -> None:
    parser = add_command(commands, "recorder", run, help="the last commands, faults and moves of the CPUs")
    parser.add_argument("cpus", metavar="CPU", nargs="*", help=f"{CPU_HELP}; default: all that the sidecar started")


def run(options: argparse.Namespace) -> int:
    with open_sidecar(options) as sidecar:
        named = [sidecar.cpu(name) for name in options.cpus]
        entries = [cpu.describe() | cpu.recorder() for cpu in named or sidecar.started]
    show(options, entries, "\n".join(render.recorder(entry) for entry in entries))
    return 0
