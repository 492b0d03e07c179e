"""`sidecarctl ping`: the command NONE to CPUs, and how long the answer took."""

from __future__ import annotations

import argparse
import time

from sidecar.client.cli.frame import Commands, add_command, add_cpus, add_seconds, chosen, open_sidecar, positive, show
from sidecar.client.cpu import Cpu
from sidecar.protocol.abi_check import AbiMismatch
from sidecar.protocol.decode import Decoded
from sidecar.protocol.errors import DriverError
from sidecar.protocol.render import columns


def add(commands: Commands) -> None:
    parser = add_command(commands, "ping", run, help="ask CPUs whether they live; exit status 1 if one does not answer")
    add_cpus(parser, "Linux does not run")
    parser.add_argument("--count", type=positive, default=1, metavar="N", help="pings per CPU; default: 1")
    add_seconds(parser)


def run(options: argparse.Namespace) -> int:
    with open_sidecar(options) as sidecar:
        answers = [ping(cpu, options.count, options.seconds) for cpu in chosen(sidecar, options.cpus)]
    show(options, {"cpus": answers}, text(answers))
    return 0 if all(answer["answered"] for answer in answers) else 1


def ping(cpu: Cpu, count: int, seconds: float) -> Decoded:
    """The CPU's numbers; whether it answered every time, how fast at best, and what it said otherwise."""
    best: float | None = None
    error = None
    try:
        for _ in range(count):
            started = time.perf_counter()
            cpu.none(seconds=seconds)
            took = (time.perf_counter() - started) * 1e6
            best = took if best is None else min(best, took)
    except AbiMismatch:
        raise  # no CPU is to blame
    except DriverError as wrong:
        error = str(wrong)
    return cpu.describe() | {
        "answered": error is None, "microseconds": None if best is None else round(best, 1), "error": error,
    }


def text(answers: list[Decoded]) -> str:
    if not answers:
        return "Linux runs all CPUs: there is none to ask"
    table = columns(("CPU", "APIC id", "node", "index", "answered", "us"), (
        (one["linux_number"], hex(one["apic_id"]), one["node"], one["index"], "yes" if one["answered"] else "no",
         one["microseconds"])
        for one in answers
    ))
    return table + "".join(f"{one['error']}\n" for one in answers if one["error"])
