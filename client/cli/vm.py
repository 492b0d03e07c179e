"""`sidecarctl vm`: runs a guest on sidecar CPUs, and sums up what its ledger of exits says."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from sidecar.client.cli.frame import Commands, Parser, add_command, open_sidecar, seconds, show
from sidecar.errors import UserError

SIZE = re.compile(r"(\d+)([KMG]?)", re.IGNORECASE)
UNITS = {"": 0, "K": 10, "M": 20, "G": 30}
DEFAULT_MEMORY = 64 << 20


def add(commands: Commands) -> None:
    parser = commands.add_parser("vm", help="run a virtual machine", description="Runs a virtual machine.")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    _add_run(verbs)
    exits = add_command(verbs, "exits", summarize, help="sum up a ledger of exits, by reason")
    exits.add_argument("file", metavar="FILE", type=Path, help="what --exits FILE of `vm run` has written")


def _add_run(verbs: Commands) -> None:
    parser = add_command(verbs, "run", run, help="run a guest on sidecar CPUs; its console is standard output, and "
                         "its write of N to port 0xf4 ends it with status N * 2 + 1")
    parser.add_argument("--vcpus", type=int, default=1, metavar="N", help="virtual processors; default: 1")
    parser.add_argument("--memory", type=size, default=DEFAULT_MEMORY, metavar="SIZE",
                        help="such as 64M, which is the default")
    parser.add_argument("--cpu", action="append", default=[], metavar="CPU",
                        help="run on this CPU; may be given again; default: the first that are free")
    image = parser.add_mutually_exclusive_group(required=True)
    image.add_argument("--multiboot", type=Path, metavar="FILE", help="an ELF file with a Multiboot 1 header")
    image.add_argument("--raw", type=Path, metavar="FILE", help="code, entered at its first byte")
    parser.add_argument("--mode", choices=("real", "protected", "long"), default="real",
                        help="with --raw; default: real, at 0x7c00; the others are loaded at 1 MiB")
    parser.add_argument("--module", type=Path, action="append", default=[], metavar="FILE",
                        help="with --multiboot: a module; may be given again")
    parser.add_argument("--append", default="", metavar="ARGS", help="with --multiboot: the command line")
    parser.add_argument("--exits", type=Path, metavar="FILE", help="write a line for every exit")
    parser.add_argument("--timeout", type=seconds, metavar="S", help="end the guest after this time, with status 124")


def run(options: argparse.Namespace) -> int:
    """Imports the VMM only now: no other command needs it."""
    from sidecar.client.cli.vm_run import run_guest

    if options.vcpus < 1:
        raise UserError(f"--vcpus {options.vcpus}: a machine has at least 1")
    if options.raw is not None and (options.module or options.append):
        raise UserError("--module and --append are for --multiboot")
    with open_sidecar(options) as sidecar:
        return run_guest(sidecar, options)


def summarize(options: argparse.Namespace) -> int:
    from sidecar.client.vmm.ledger import summarize as sum_up

    try:
        with options.file.open(encoding="utf-8") as file:
            summary = sum_up(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{options.file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    rows = [("exits", "reason", "", "guest us", "sidecar us", "VMM us", "mostly at")]
    for row in summary.rows:
        found = row.as_dict()
        rows.append((str(row.count), row.reason, row.detail, f"{row.guest_us:.0f}", f"{found['sidecar_us']:.0f}",
                     f"{row.vmm_us:.0f}", ", ".join(row.rips and list(found["rips"])[:2])))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"{summary.exits} exits to the VMM, {summary.local} finished by the sidecar"
    show(options, summary.as_dict(), "\n".join([head, *lines]))
    return 0


def size(text: str) -> int:
    """The type of a size argument."""
    found = SIZE.fullmatch(text)
    value = int(found.group(1)) << UNITS[found.group(2).upper()] if found else 0
    if not value or value % 4096:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size in whole pages, such as 64M")
    return value


