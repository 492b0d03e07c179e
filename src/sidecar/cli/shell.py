"""`sidecar shell`: a booted machine under an interactive Python, with its driver, its CPUs and its pages as objects."""

import argparse
import code
import contextlib
from typing import Any

from sidecar import layout
from sidecar.cli.machine_options import add_machine_options, make_session, print_failure
from sidecar.cli.parser import Commands
from sidecar.protocol.views import View, diff
from sidecar.qemu.machine import MachineDied
from sidecar.qemu.session import BootFailed, FellBack, Session
from sidecar.qemu.waiting import WaitedInVain

BANNER = """\
{smp} CPUs, {nodes} node(s), sidecar CPUs {cpus}.

    cpus[1].none()                          a command; get_registers([...]), set_registers({{...}}), raise_fault(kind)
    run = cpus[1].start(layout.SidecarCommand.NONE); run.wait()
    pages = driver.pages(1)                 pages.control .command .diagnostic .log .privileged, as views
    pages.diagnostic.boot                   fields are attributes, integers print in hex
    before = pages.command.snapshot(); ...; diff(before, pages.command.snapshot())
    driver.restart(1), .remove(1), .give_back(1), .status(1), .state(1)
    machine.registers(1), .hmp('info mtree'), .console; found.nodes, found.cpus; relay; layout"""


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "shell",
        help="a booted machine under an interactive Python",
        description="Boots a machine without Linux and opens a Python with its driver, CPUs and pages as objects.",
    )
    add_machine_options(parser)
    parser.add_argument("--tests", action="store_true", help="let the RAISE command raise faults")
    parser.add_argument("--command", metavar="CODE", help="run this code instead of asking, and exit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        with make_session(options, tests=options.tests) as session:
            names = objects(session)
            if options.command is not None:
                exec(compile(options.command, "<command>", "exec"), names)
            else:
                interact(names, banner(session))
    except (BootFailed, FellBack, MachineDied, WaitedInVain) as error:
        print_failure(error)
        return 1
    return 0


def objects(session: Session) -> dict[str, Any]:
    """What the shell knows by name."""
    return {
        "session": session,
        "machine": session.machine,
        "driver": session.driver,
        "cpus": session.cpus,
        "nodes": session.driver.nodes,
        "found": session.found,
        "relay": session.backing.relay,
        "layout": layout,
        "View": View,
        "diff": diff,
    }


def banner(session: Session) -> str:
    numbers = ", ".join(map(str, session.cpus)) if len(session.cpus) <= 16 else f"{len(session.cpus)} of them"
    return BANNER.format(smp=session.smp, nodes=len(session.found.nodes), cpus=numbers)


def interact(names: dict[str, Any], greeting: str) -> None:
    """Asks until end of input; with line editing and completion where Python has readline."""
    with contextlib.suppress(ImportError):
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(banner=greeting, local=names, exitmsg="")
