"""`sidecar dump vmcb`: the VMCB of a CPU's virtual processor, checked against the manual's rules for VMRUN."""

import argparse
import json

from sidecar.cli.dump_live import open_memory, source_options
from sidecar.cli.parser import Commands
from sidecar.errors import UserError
from sidecar.protocol import vmcb
from sidecar.protocol.decode import Decoded
from sidecar.protocol.discovery import discover
from sidecar.protocol.machine import DiscoveryError
from sidecar.protocol.render import columns
from sidecar.qemu.memory_map import OutOfRange
from sidecar.qemu.monitor import MonitorLost, QmpRefused
from sidecar.qemu.waiting import WaitedInVain


def add(parts: Commands) -> None:
    parser = parts.add_parser(
        "vmcb",
        help="the VMCB of a virtual processor, and which of VMRUN's rules it breaks",
        description="Exit status 1 if a rule is broken: hardware would refuse to enter this guest.",
    )
    source_options(parser)
    parser.add_argument("--cpu", metavar="N", type=int, help="one CPU by Linux number; default: all that have one")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    with open_memory(options) as memory:
        try:
            found = discover(memory)
            cpus = found.sidecar_cpus if options.cpu is None else (found.cpu(options.cpu),)
            described: list[Decoded] = []
            for cpu in cpus:
                try:
                    described.append(vmcb.of_cpu(found, memory, cpu))
                except vmcb.NoVirtualProcessor as error:
                    if options.cpu is not None:
                        raise UserError(str(error)) from error
        except (DiscoveryError, OutOfRange) as error:
            raise UserError(str(error)) from error
        except (MonitorLost, QmpRefused, WaitedInVain) as error:
            raise UserError(f"{options.qmp}: {error}") from error
    if options.format == "json":
        print(json.dumps(described, indent=2))
    else:
        print("\n\n".join(map(text, described)) or "no CPU has a virtual processor")
    return int(any(one["broken"] for one in described))


def text(described: Decoded) -> str:
    """Head, broken rules, segments, then every other field that is not 0."""
    head = f"CPU {described['linux_number']}: VMCB at {described['vmcb_pa']:#x}, last exit: {described['exit']}"
    rules = [f"broken: {one['sentence']} ({one['value']:#x}; {one['reference']})" for one in described["broken"]]
    fields: Decoded = described["fields"]
    segments = columns(("segment", "selector", "attributes", "limit", "base"), (
        (name, *(hex(part) for part in value.values())) for name, value in fields.items() if isinstance(value, dict)
    ))
    plain = columns(("field", "value"), (
        (name, hex(value) if isinstance(value, int) else value) for name, value in fields.items()
        if not isinstance(value, dict) and (not isinstance(value, int) or value)
    ))
    return "\n".join([head, *(rules or ["no rule is broken"]), segments.rstrip("\n"), plain.rstrip("\n")])
