"""`sidecarctl log`: what CPUs have written into their log rings."""

from __future__ import annotations

import argparse

from sidecar.client.cli.frame import Commands, add_command, add_cpus, chosen_or_started, open_sidecar, show
from sidecar.protocol import render


def add(commands: Commands) -> None:
    parser = add_command(commands, "log", run, help="the logs of the CPUs")
    add_cpus(parser, "the sidecar started")


def run(options: argparse.Namespace) -> int:
    with open_sidecar(options) as sidecar:
        entries = [cpu.describe() | cpu.log() for cpu in chosen_or_started(sidecar, options.cpus)]
    show(options, entries, "\n".join(render.log(entry) for entry in entries))
    return 0
