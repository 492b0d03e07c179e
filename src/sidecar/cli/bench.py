"""`sidecar bench`: measures on this host, prints the figures, writes them down on request."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sidecar.bench import dispatch, document, idle, image, start
from sidecar.bench.figures import Group, host
from sidecar.cli.parser import Commands
from sidecar.errors import UserError


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure on this host",
        description="Measures image, memory, start of the CPUs, dispatch of a command and idle cost, and prints the "
        "figures. On a quiet host this takes about a minute.",
    )
    parser.add_argument("--only", metavar="NAME", choices=sorted(MEASUREMENTS), help=", ".join(sorted(MEASUREMENTS)))
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures as JSON")
    parser.add_argument("--plot", metavar="DIR", type=Path, help="write pictures (SVG) there")
    parser.add_argument("--write", metavar="FILE", type=Path, help="write the figures as a document")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.plot and not options.plot.is_dir():
        raise UserError(f"--plot {options.plot}: no such directory")
    names = [options.only] if options.only else list(MEASUREMENTS)
    groups = []
    for name in names:
        tell(name)
        groups.append(MEASUREMENTS[name](options))
    where = host()
    print(document.text(groups, where))
    try:
        if options.json:
            data = {"host": where, "groups": [asdict(group) for group in groups]}
            options.json.write_text(json.dumps(data, indent=2) + "\n")
        if options.write:
            options.write.write_text(document.document(groups, where))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    return 0


def tell(what: str) -> None:
    """Progress, on stderr."""
    print(f"sidecar: measuring: {what}", file=sys.stderr, flush=True)


MEASUREMENTS: dict[str, Callable[[argparse.Namespace], Group]] = {
    "image": lambda options: image.measure(),
    "start": lambda options: start.measure(tell, options.plot),
    "dispatch": lambda options: dispatch.measure(),
    "idle": lambda options: idle.measure(),
}
