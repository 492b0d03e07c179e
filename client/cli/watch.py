"""`sidecarctl watch`: prints what changes on the CPUs, state and counters, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import time

from sidecar.client.cli.frame import Commands, add_command, add_cpus, chosen_or_started, open_sidecar, positive, seconds
from sidecar.client.cpu import Cpu
from sidecar.protocol.decode import Decoded

IN_COMMAND = ("run", "stop")


def add(commands: Commands) -> None:
    parser = add_command(commands, "watch", run, help="print changes of states and counters, until Ctrl-C")
    add_cpus(parser, "the sidecar started")
    parser.add_argument("--interval", type=seconds, default=1.0, metavar="S", help="between two looks; default: 1")
    parser.add_argument("--stuck", type=seconds, default=10.0, metavar="S",
                        help="a CPU that shows no sign of life in a command for so long is told as stuck; default: 10")
    parser.add_argument("--looks", type=positive, metavar="N", help="end after N looks")


def run(options: argparse.Namespace) -> int:
    """With --json one object per line and change."""
    with open_sidecar(options) as sidecar:
        cpus = chosen_or_started(sidecar, options.cpus)
        before = {cpu.number: look(cpu) for cpu in cpus}
        pulses = {cpu.number: Pulse(cpu, options.stuck) for cpu in cpus}
        looks = 0
        try:
            while options.looks is None or looks < options.looks:
                time.sleep(options.interval)
                looks += 1
                for cpu in cpus:
                    now = look(cpu)
                    report(options, cpu, before[cpu.number], now)
                    before[cpu.number] = now
                    tell(options, cpu, pulses[cpu.number].feel())
        except KeyboardInterrupt:
            return 0
    return 0


def look(cpu: Cpu) -> Decoded:
    """What is compared: plain names and values."""
    counters = cpu.counters()
    stray = sum(counters.pop("stray").values())
    return {"state": cpu.state, "faults": cpu.fault_record()["count"], **counters, "stray": stray}


class Pulse:
    """A CPU's signs of life while it executes a command: requests that it took, events that it recorded.

    The driver sends the requests that make this a heartbeat; without one a long run of a virtual processor looks stuck.
    """

    def __init__(self, cpu: Cpu, patience: float) -> None:
        self._cpu, self._patience = cpu, patience
        self._signs, self._since, self._told = self._look(), time.monotonic(), False

    def feel(self) -> Decoded | None:
        """What to say, once: the CPU is stuck, or moves again. Seconds and the command."""
        signs, now = self._look(), time.monotonic()
        lasted = now - self._since
        if signs is None or signs != self._signs:
            was_told, self._signs, self._since, self._told = self._told, signs, now, False
            return {"stuck": False, "seconds": round(lasted, 1)} if was_told else None
        if self._told or lasted < self._patience:
            return None
        self._told = True
        events = self._cpu.recorder()["events"]
        command = next((one["what"] for one in reversed(events) if one["event"] == "command"), "its arrival")
        return {"stuck": True, "seconds": round(lasted, 1), "command": command}

    def _look(self) -> tuple[int, int] | None:
        """None while it executes nothing."""
        if self._cpu.state not in IN_COMMAND:
            return None
        return self._cpu.counters()["requests"], self._cpu.recorder()["written"]


def tell(options: argparse.Namespace, cpu: Cpu, news: Decoded | None) -> None:
    if news is None:
        return
    if options.json:
        print(json.dumps({"time": round(time.time(), 3), **cpu.describe(), **news}), flush=True)
        return
    what = f"stuck since {news['seconds']} s in {news['command']}" if news["stuck"] else "moves again"
    print(f"{time.strftime('%H:%M:%S')} {cpu.numbers}: {what}", flush=True)


def report(options: argparse.Namespace, cpu: Cpu, before: Decoded, now: Decoded) -> None:
    changed = {name: [before[name], value] for name, value in now.items() if value != before[name]}
    if not changed:
        return
    if options.json:
        print(json.dumps({"time": round(time.time(), 3), **cpu.describe(), "changed": changed}), flush=True)
        return
    what = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed.items())
    print(f"{time.strftime('%H:%M:%S')} {cpu.numbers}: {what}", flush=True)
