"""`sidecar doctor`: what this host has and lacks, each line with its remedy."""

import argparse

from sidecar.cli.parser import Commands
from sidecar.qemu import doctor


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="what this host has and lacks",
        description="Examines this host. The exit status is 0 if nothing that is needed is missing, else 1.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    findings = doctor.examine()
    print(doctor.as_json(findings) if options.json else doctor.render(findings))
    return 0 if all(finding.ok for finding in findings) else 1
