"""`sidecarctl watch`: prints what changes on the CPUs, state and counters, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import time

from sidecar.client.cli.frame import CPU_HELP, Commands, add_command, open_sidecar, positive, seconds
from sidecar.client.cpu import Cpu
from sidecar.protocol.decode import Decoded


def add(commands: Commands) -> None:
    parser = add_command(commands, "watch", run, help="print changes of states and counters, until Ctrl-C")
    parser.add_argument("cpus", metavar="CPU", nargs="*", help=f"{CPU_HELP}; default: all that the sidecar started")
    parser.add_argument("--interval", type=seconds, default=1.0, metavar="S", help="between two looks; default: 1")
    parser.add_argument("--looks", type=positive, metavar="N", help="end after N looks")


def run(options: argparse.Namespace) -> int:
    """With --json one object per line and change."""
    with open_sidecar(options) as sidecar:
        cpus = [sidecar.cpu(name) for name in options.cpus] or list(sidecar.started)
        before = {cpu.number: look(cpu) for cpu in cpus}
        looks = 0
        try:
            while options.looks is None or looks < options.looks:
                time.sleep(options.interval)
                looks += 1
                for cpu in cpus:
                    now = look(cpu)
                    report(options, cpu, before[cpu.number], now)
                    before[cpu.number] = now
        except KeyboardInterrupt:
            return 0
    return 0


def look(cpu: Cpu) -> Decoded:
    """What is compared: plain names and values."""
    counters = cpu.counters()
    stray = sum(counters.pop("stray").values())
    return {"state": cpu.state, "faults": cpu.fault_record()["count"], **counters, "stray": stray}


def report(options: argparse.Namespace, cpu: Cpu, before: Decoded, now: Decoded) -> None:
    changed = {name: [before[name], value] for name, value in now.items() if value != before[name]}
    if not changed:
        return
    if options.json:
        print(json.dumps({"time": round(time.time(), 3), **cpu.describe(), "changed": changed}), flush=True)
        return
    what = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
    print(f"{time.strftime('%H:%M:%S')} {cpu.numbers}: {what}", flush=True)
