"""`sidecarctl run`: any command with any request data on one CPU."""

from __future__ import annotations

import argparse

from sidecar.client.cli.frame import CPU_HELP, Commands, add_command, add_seconds, member, number, open_sidecar, show
from sidecar.errors import UserError
from sidecar.layout.command import RaiseKind, SidecarCommand
from sidecar.protocol import decode_command
from sidecar.protocol.decode import Decoded
from sidecar.protocol.render import lines
from sidecar.protocol.requests import DATA_BYTES, command_name, raise_request


def add(commands: Commands) -> None:
    parser = add_command(commands, "run", run, help="run a raw command on one CPU")
    parser.add_argument("cpu", metavar="CPU", help=CPU_HELP)
    parser.add_argument("--command", default="none", metavar="NAME",
                        help=f"{', '.join(one.name.lower() for one in SidecarCommand)}, or a number; default: none")
    parser.add_argument("--kind", metavar="NAME",
                        help=f"with raise: {', '.join(one.name.lower() for one in RaiseKind)}, or a number")
    parser.add_argument("--argument", type=number, default=0, metavar="N", help="with raise: address, vector or slot")
    parser.add_argument("--data", default="", metavar="HEX", help="with any other command: the request's bytes")
    add_seconds(parser)


def run(options: argparse.Namespace) -> int:
    command = member(SidecarCommand, options.command)
    data = _request(options, command)
    with open_sidecar(options) as sidecar:
        cpu = sidecar.cpu(options.cpu)
        answer = cpu.execute(command, data, seconds=options.seconds)
        ticks = cpu.ticks()
        result: Decoded = cpu.describe() | {
            "command": command_name(command).lower(),
            "tsc_ticks": ticks.end - ticks.start,
            "answer": decode_command.request(command, answer),
        }
    shown = ((name, hex(value) if isinstance(value, int) else value) for name, value in result["answer"].items())
    show(options, result, lines([
        ("command", result["command"]), ("TSC ticks", result["tsc_ticks"]),
        *((name, value or "none") for name, value in shown),
    ]))
    return 0


def _request(options: argparse.Namespace, command: int) -> bytes:
    """The request's data. Raises UserError."""
    if command == SidecarCommand.RAISE and not options.data:
        if options.kind is None:
            raise UserError(f"--command raise needs --kind: {', '.join(one.name.lower() for one in RaiseKind)}")
        return raise_request(member(RaiseKind, options.kind), options.argument)
    if options.kind is not None:
        raise UserError("--kind and --argument are for --command raise, without --data")
    try:
        data = bytes.fromhex(options.data)
    except ValueError:
        raise UserError(f"'{options.data}' is not a row of hexadecimal bytes") from None
    if len(data) > DATA_BYTES:
        raise UserError(f"the request has {len(data)} bytes, the page takes {DATA_BYTES}")
    return data
