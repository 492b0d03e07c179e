"""`sidecar boot`: boots a machine, shows its nodes and CPUs, and asks every sidecar CPU for an answer."""

import argparse
import json
import sys
import time
from pathlib import Path

from sidecar.cli.machine_options import add_machine_options, make_session, print_failure
from sidecar.cli.parser import Commands
from sidecar.errors import UserError
from sidecar.qemu.boot_report import BootReport, fall_back_report, render, report
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.session import BootFailed, FellBack, Session
from sidecar.qemu.waiting import WaitedInVain

PROGRESS_SECONDS = 2.0


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "boot",
        help="boot a machine and show its CPUs",
        description="Boots a machine, prints its nodes and CPUs, and sends NONE to each sidecar CPU. The exit status "
        "is 0 if all of them answered, also where the shim fell back for a good reason and there are none; else 1.",
    )
    parser.add_argument("--no-linux", action="store_true", help="boot shim and sidecar alone, driven from the host")
    add_machine_options(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--qmp", type=Path, metavar="PATH", help="serve QMP on this Unix socket")
    parser.add_argument("--keep", action="store_true", help="leave the machine running until Ctrl-C")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not options.no_linux:
        raise UserError("Linux beside the sidecar is not in this version: use --no-linux")
    progress = Progress(options.smp)
    session = make_session(options, qmp_socket=options.qmp, progress=progress)
    try:
        with session:
            progress.end()
            result = report(session)
            show(result, as_json=options.json)
            if options.keep:
                keep_running(session)
    except FellBack as fall_back:
        progress.end()
        result = fall_back_report(session, fall_back.reason)
        show(result, as_json=options.json)
    except (BootFailed, MachineDied, WaitedInVain) as error:
        progress.end()
        print_failure(error)
        return 1
    return 0 if result.ok else 1


def show(result: BootReport, *, as_json: bool) -> None:
    print(json.dumps(result.as_dict(), indent=2) if as_json else render(result), flush=True)


def keep_running(session: Session) -> None:
    """Until Ctrl-C, which is how this is meant to end, or until the machine ends by itself."""
    print("sidecar: the machine keeps running, Ctrl-C ends it", file=sys.stderr)
    try:
        while session.machine.alive:
            time.sleep(0.2)
    except KeyboardInterrupt:
        return


class Progress:
    """Tells on stderr that a boot takes its time: on a terminal once a second, else once."""

    def __init__(self, smp: int) -> None:
        self._smp, self._told = smp, 0

    def __call__(self, seconds: float) -> None:
        if seconds < PROGRESS_SECONDS or int(seconds) <= self._told:
            return
        text = f"sidecar: waiting for {self._smp} CPUs, {int(seconds)} s"
        if sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
        elif not self._told:
            print(text, file=sys.stderr, flush=True)
        self._told = int(seconds)

    def end(self) -> None:
        if self._told and sys.stderr.isatty():
            print(file=sys.stderr)
