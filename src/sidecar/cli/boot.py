"""`sidecar boot`: boots a machine, shows its nodes and CPUs, and asks every sidecar CPU for an answer.

With Linux, see boot_linux; here is the machine without, whose driver is the host.
"""

import argparse
import json
from pathlib import Path

from sidecar.cli import boot_linux
from sidecar.cli.machine_options import add_machine_options, keep_running, make_session, print_failure
from sidecar.cli.parser import Commands
from sidecar.cli.progress import Progress
from sidecar.qemu.boot_report import BootReport, fall_back_report, render, report
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.session import BootFailed, FellBack
from sidecar.qemu.waiting import WaitedInVain


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "boot",
        help="boot a machine and show its CPUs",
        description="Boots a machine with Linux beside the sidecar, prints its nodes, CPUs and times, and sends NONE "
        "to each sidecar CPU. The exit status is 0 if all of them answered, also where the shim fell back for a good "
        "reason and there are none; else 1.",
    )
    parser.add_argument("--no-linux", action="store_true", help="boot shim and sidecar alone, driven from the host")
    add_machine_options(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--qmp", type=Path, metavar="PATH", help="serve QMP on this Unix socket")
    parser.add_argument("--keep", action="store_true", help="leave the machine running until Ctrl-C")
    boot_linux.add_linux_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if not options.no_linux:
        return boot_linux.run(options)
    boot_linux.check_without_linux(options)
    progress = Progress(f"{options.smp} CPUs")
    session = make_session(options, qmp_socket=options.qmp, progress=progress)
    try:
        with session:
            progress.end()
            result = report(session)
            show(result, as_json=options.json)
            if options.keep:
                keep_running(session.machine)
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
