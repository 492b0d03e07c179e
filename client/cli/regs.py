"""`sidecarctl regs`: registers of a CPU's virtual processor, by TLFS name, read or written."""

from __future__ import annotations

import argparse

from sidecar.client.cli.frame import CPU_HELP, Commands, add_command, add_seconds, open_sidecar, show
from sidecar.errors import UserError
from sidecar.protocol.render import lines
from sidecar.protocol.requests import REGISTER_NUMBERS, WIDE, WITHOUT_VP

PREFIX = "HvX64Register"


def add(commands: Commands) -> None:
    parser = add_command(commands, "regs", run, help="read or write registers of a CPU's virtual processor")
    parser.add_argument("cpu", metavar="CPU", help=CPU_HELP)
    parser.add_argument("registers", metavar="NAME[=VALUE]", nargs="*",
                        help=f"TLFS name, with or without {PREFIX}; default: read those that a CPU has without a guest")
    add_seconds(parser)


def run(options: argparse.Namespace) -> int:
    """What is named with a value is written, then all that is named is read."""
    wanted = dict(_parse(text) for text in options.registers) or dict.fromkeys(WITHOUT_VP)
    with open_sidecar(options) as sidecar:
        cpu = sidecar.cpu(options.cpu)
        cpu.set_registers(
            {name: value for name, value in wanted.items() if value is not None}, seconds=options.seconds
        )
        values = cpu.get_registers(wanted, seconds=options.seconds)
        data = cpu.describe() | {"registers": values}
    show(options, data, lines((name, f"{value:#x}") for name, value in values.items()))
    return 0


def _parse(text: str) -> tuple[str, int | None]:
    """Name and value of `Dr0=0x1000`. Raises UserError."""
    short, given, value = text.partition("=")
    known = {name.lower(): name for name in REGISTER_NUMBERS}
    known |= {name.removeprefix(PREFIX).lower(): name for name in REGISTER_NUMBERS}
    if short.lower() not in known:
        names = ", ".join(name.removeprefix(PREFIX) for name in REGISTER_NUMBERS)
        raise UserError(f"no register '{short}'; there are {names}")
    if not given:
        return known[short.lower()], None
    try:
        number = int(value, 0)
    except ValueError:
        number = -1
    name = known[short.lower()]
    bits = 128 if name in WIDE else 64
    if not 0 <= number < 1 << bits:
        raise UserError(f"'{value}' is no value for {short}: write a number of {bits} bits, such as 0x1000")
    return name, number
