"""`sidecar dump recorder`: the flight recorders, by the short way; `dump live ... recorder` is the same."""

import argparse

from sidecar.cli import dump_live
from sidecar.cli.parser import Commands
from sidecar.protocol.report import Section


def add(parts: Commands) -> None:
    parser = parts.add_parser("recorder", help="the last events of every CPU, also from the memory of a dead machine")
    dump_live.source_options(parser)
    parser.add_argument("--cpu", metavar="N", type=int, help="one CPU by Linux number; default: all of the sidecar's")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run, section=Section.RECORDER)


def run(options: argparse.Namespace) -> int:
    return dump_live.run(options)
