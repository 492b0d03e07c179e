"""The command `sidecarctl`, also `python -m sidecar.client`: the sidecar's CPUs from a shell in the guest."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from sidecar.client.cli import convert, faults, listing, log, ping, recorder, regs, run, vm, watch
from sidecar.client.cli.frame import Parser, Verb
from sidecar.errors import UserError
from sidecar.protocol.errors import DriverError, NoSuchCpu
from sidecar.protocol.machine import DiscoveryError

COMMANDS = (listing, ping, regs, run, convert, log, faults, recorder, watch, vm)
MISTAKE, FAILED = 2, 1
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status: 1 if a CPU did not do what was asked, 2 for the user's mistakes."""
    options = make_parser().parse_args(arguments)
    verb: Verb = options.verb
    try:
        status = verb(options)
        sys.stdout.flush()
    except (UserError, DiscoveryError, NoSuchCpu) as error:
        print(f"sidecarctl: {error}", file=sys.stderr)
        return MISTAKE
    except DriverError as error:
        print(f"sidecarctl: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 0
    return status


def make_parser() -> Parser:
    """The parser with every command in it."""
    parser = Parser(prog="sidecarctl", description="Command the CPUs that the sidecar owns beside this Linux.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
