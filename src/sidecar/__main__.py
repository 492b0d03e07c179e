"""The command `sidecar`, also `python -m sidecar`."""

import os
import signal
import sys
from collections.abc import Sequence

from sidecar import __version__
from sidecar.cli import bench, boot, build, doctor, dump, fuzz, model, shell
from sidecar.cli.parser import MISTAKE, Parser, Run
from sidecar.errors import UserError

COMMANDS = (build, boot, shell, dump, fuzz, bench, model, doctor)
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; the user's own mistakes become one line on stderr and status 2."""
    options = make_parser().parse_args(arguments)
    run: Run = options.run
    try:
        status = run(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def make_parser() -> Parser:
    """The parser with every command in it."""
    parser = Parser(prog="sidecar", description="A bare-metal sidecar kernel: build it, boot it, look at it.")
    parser.add_argument("--version", action="version", version=f"sidecar-kernel {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
