"""`sidecar bench`: measures on this host, prints the figures, writes them down on request."""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sidecar.bench import (
    boot,
    break_even,
    conversion,
    dispatch,
    document,
    exits,
    host_dispatch,
    idle,
    image,
    memory,
    noise,
    parity,
    start,
)
from sidecar.bench.boots import Boots
from sidecar.bench.context import SIZES, Budget, Context
from sidecar.bench.figures import Group, host
from sidecar.cli.machine_options import print_failure
from sidecar.cli.parser import Commands, checked
from sidecar.cli.progress import tell
from sidecar.errors import UserError
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux.module import ModuleBuildFailed
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.session import BootFailed
from sidecar.qemu.waiting import WaitedInVain

MINUTES = 36.0
FEWEST_CPUS = 2

MEASUREMENTS: dict[str, Callable[[Context], Group]] = {
    "image": image.measure,
    "idle": idle.measure,
    "host-dispatch": host_dispatch.measure,
    "dispatch": dispatch.measure,
    "exits": exits.measure,
    "conversion": conversion.measure,
    "noise": noise.measure,
    "start": start.measure,
    "memory": memory.measure,
    "parity": parity.measure,
    "boot": boot.measure,
    "break-even": break_even.measure,
}
"""In the order in which they are made: what takes most time comes last, and takes what is left."""

HELD = {"start": 26 * 60.0, "memory": 24 * 60.0, "parity": 19 * 60.0}
"""Seconds that a measurement leaves for those after it, if the budget is that of a whole run."""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure on this host",
        description="Measures what the sidecar costs and saves, beside what Linux itself needs for the same, in one "
        f"run of one host, and prints the figures. Everything takes about {MINUTES:g} minutes and wants a quiet host; "
        "if time runs out, medians are of fewer measurements, and what was left out is told.",
    )
    parser.add_argument("--only", metavar="NAME", choices=sorted(MEASUREMENTS), action="append", default=[],
                        help=f"{', '.join(sorted(MEASUREMENTS))}; may be given again")
    parser.add_argument("--smp", metavar="LIST", type=checked(sizes, "list"),
                        help=f"numbers of CPUs (default {','.join(map(str, SIZES))})")
    parser.add_argument("--full", action="store_true", help="no bounds: as long as it takes, which may be hours")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures, all samples included, as JSON")
    parser.add_argument("--plot", metavar="DIR", type=Path, help="write pictures (SVG) there")
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the figures as a document")
    parser.set_defaults(run=run)


def sizes(text: str) -> tuple[int, ...]:
    """The numbers of a list such as 2,4,64, each once, ascending. Raises UserError."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < FEWEST_CPUS:
        raise UserError(f"{text!r} is not a list of numbers of CPUs of at least {FEWEST_CPUS}, such as 2,4,64")
    return tuple(found)


def run(options: argparse.Namespace) -> int:
    if options.plot and not options.plot.is_dir():
        raise UserError(f"--plot {options.plot}: no such directory")
    started, load = time.monotonic(), os.getloadavg()[0]
    budget = Budget(None if options.full else MINUTES * 60)
    context = Context(
        Boots(tell), budget, tell, sizes=options.smp or SIZES, chosen=options.smp is not None, full=options.full,
        plots=options.plot,
    )  # fmt: skip
    groups, failed = [], 0
    for name in [name for name in MEASUREMENTS if name in options.only or not options.only]:
        tell(f"measuring: {name}")
        budget.hold(0.0 if options.only or options.full else HELD.get(name, 0.0))
        try:
            group = MEASUREMENTS[name](context)
        except (BootFailed, GuestError, MachineDied, ModuleBuildFailed, WaitedInVain) as error:
            print_failure(error)
            context.left_out.append(f"{name}, which failed")
            failed += 1
            continue
        print(document.text(group), flush=True)
        groups.append(group)
    about = document.Run(
        host(), shlex.join(["sidecar", *sys.argv[1:]]), (time.monotonic() - started) / 60, (load, os.getloadavg()[0]),
        tuple(context.left_out),
    )  # fmt: skip
    print(about.where)
    write(options, groups, about)
    return 1 if failed else 0


def write(options: argparse.Namespace, groups: list[Group], about: document.Run) -> None:
    """What the options want written. Raises UserError."""
    try:
        if options.json:
            data = {"run": asdict(about), "groups": [asdict(group) for group in groups]}
            options.json.write_text(json.dumps(data, indent=2) + "\n")
        if options.write:
            options.write.write_text(document.document(groups, about))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
