"""What all commands of `sidecarctl` share: the parser, the options, the open sidecar, text or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NoReturn, TypeAlias

from sidecar.client.cpu import Cpu
from sidecar.client.sidecar import BACKINGS, Sidecar
from sidecar.errors import UserError
from sidecar.protocol.runner import COMMAND_SECONDS

MISTAKE = 2
CPU_HELP = "Linux number, apic:ID or node:index"

Verb: TypeAlias = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose error message is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"{self.prog}: {message} (see {self.prog} --help)\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(commands: Commands, name: str, verb: Verb, *, help: str) -> Parser:
    """A command's parser with the options that all have."""
    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--backing", choices=BACKINGS, default="auto",
                        help="the way to the CPUs; default: the driver if it is loaded, else without a module")
    parser.set_defaults(verb=verb)
    return parser


def add_seconds(parser: Parser) -> None:
    parser.add_argument("--seconds", type=seconds, default=COMMAND_SECONDS, metavar="S",
                        help=f"wait so long for an answer; default: {COMMAND_SECONDS:g}")


def add_cpus(parser: Parser, default: str) -> None:
    """The CPUs that a command is for; `default` are those without a name."""
    parser.add_argument("cpus", metavar="CPU", nargs="*", help=f"{CPU_HELP}; default: all that {default}")


def open_sidecar(options: argparse.Namespace) -> Sidecar:
    return Sidecar.open(options.backing)


def chosen(sidecar: Sidecar, names: Sequence[str]) -> list[Cpu]:
    """The CPUs that were named, or all that Linux does not run."""
    return [sidecar.cpu(name) for name in names] if names else list(sidecar.commandable)


def chosen_or_started(sidecar: Sidecar, names: Sequence[str]) -> list[Cpu]:
    """The CPUs that were named, or all that the sidecar started, whoever has them now."""
    return [sidecar.cpu(name) for name in names] or list(sidecar.started)


def show(options: argparse.Namespace, data: object, text: str) -> None:
    """Prints one of the two."""
    print(json.dumps(data, indent=2) if options.json else text.rstrip("\n"))


def number(text: str) -> int:
    """The type of a number argument; hexadecimal with 0x."""
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def positive(text: str) -> int:
    """The type of a count: at least one."""
    value = number(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of at least 1")
    return value


def seconds(text: str) -> float:
    """The type of a time argument."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a time in seconds")
    return value


def member(kinds: type[IntEnum], text: str) -> int:
    """A name of an enumeration, in lower case, or a number. Raises UserError with the names there are."""
    known = {one.name.lower(): int(one) for one in kinds}
    if text.lower() in known:
        return known[text.lower()]
    try:
        return int(text, 0)
    except ValueError:
        raise UserError(f"'{text}' is none of {', '.join(known)}, and no number") from None
