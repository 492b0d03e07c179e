"""The options that describe a machine, the same for every command that boots one."""

import argparse
import sys
import time
from typing import Any

from sidecar.cli.parser import Parser, checked, positive
from sidecar.qemu.accelerator import REQUESTS
from sidecar.qemu.machine import Machine
from sidecar.qemu.session import Session
from sidecar.qemu.sizes import parse_size


def add_machine_options(parser: Parser, *, smp: int = 4) -> None:
    """Adds --smp, --numa, --memory, --accel, --append and --timeout."""
    parser.add_argument("--smp", type=positive, default=smp, metavar="N", help=f"CPUs (default {smp})")
    parser.add_argument("--numa", type=positive, default=1, metavar="K", help="NUMA nodes (default 1)")
    parser.add_argument("--memory", type=checked(parse_size, "size"), metavar="SIZE", help="memory, such as 512M or 2G")
    parser.add_argument("--accel", choices=REQUESTS, default="auto", help="what executes the machine (default auto)")
    parser.add_argument("--append", default="", metavar="ARGS",
                        help="words for the command line: sidecar... for shim and driver, others for Linux")
    parser.add_argument("--timeout", type=positive, metavar="S", help="seconds to wait for the boot")


def make_session(options: argparse.Namespace, **more: Any) -> Session:
    """The session that the options describe, not yet booted. Raises UserError if there is no such machine."""
    return Session(
        smp=options.smp,
        numa=options.numa,
        memory_bytes=options.memory,
        accel=options.accel,
        append=options.append,
        seconds=options.timeout,
        **more,
    )


def keep_running(machine: Machine) -> None:
    """Until Ctrl-C, which is how this is meant to end, or until the machine ends by itself."""
    print("sidecar: the machine keeps running, Ctrl-C ends it", file=sys.stderr)
    try:
        while machine.alive:
            time.sleep(0.2)
    except KeyboardInterrupt:
        return


def print_failure(error: Exception) -> None:
    """A machine that failed: its sentence, and where its files are."""
    for text in (str(error), *getattr(error, "__notes__", ())):
        print(f"sidecar: {text}", file=sys.stderr)
