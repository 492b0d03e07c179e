"""`sidecar dump live`: the pages of a running machine, or of a file with its memory."""

import argparse
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sidecar.cli import images
from sidecar.cli.parser import Commands
from sidecar.errors import UserError
from sidecar.protocol import render, report
from sidecar.protocol.decode import Decoded
from sidecar.protocol.discovery import discover
from sidecar.protocol.machine import Discovered, DiscoveryError
from sidecar.protocol.memory import Memory
from sidecar.protocol.report import Section
from sidecar.qemu.memory_map import OutOfRange
from sidecar.qemu.monitor import Monitor, MonitorLost, QmpRefused
from sidecar.qemu.ram import RamFile
from sidecar.qemu.waiting import WaitedInVain

CONNECT_SECONDS = 10.0


def add(parts: Commands) -> None:
    parser = parts.add_parser("live", help="nodes, CPUs and pages of a machine that is running, or of its memory")
    source_options(parser)
    parser.add_argument("section", metavar="SECTION", nargs="?", choices=[section.value for section in Section],
                        help=f"{', '.join(Section)}; default: nodes and CPUs")
    parser.add_argument("--cpu", metavar="N", type=int, help="one CPU by Linux number; default: all of the sidecar's")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def source_options(parser: argparse.ArgumentParser) -> None:
    """Where the memory is: --qmp or --ram."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--qmp", metavar="SOCKET", type=Path, help="QEMU's QMP socket (-qmp unix:SOCKET,server=on)")
    source.add_argument("--ram", metavar="FILE", type=Path, help="a file in which the offset is the physical address")


def run(options: argparse.Namespace) -> int:
    if options.cpu is not None and options.section is None:
        raise UserError(f"--cpu needs one of the sections {', '.join(Section)}")
    with open_memory(options) as memory:
        try:
            found = discover(memory)
            data = _data(options, found, memory)
        except (DiscoveryError, OutOfRange) as error:
            raise UserError(str(error)) from error
        except (MonitorLost, QmpRefused, WaitedInVain) as error:
            raise UserError(f"{options.qmp}: {error}") from error
    if options.format == "json":
        print(json.dumps(data, indent=2))
    elif isinstance(data, dict):
        print(render.overview(data).rstrip("\n"))
    else:
        print(render.section(Section(options.section), data).rstrip("\n"))
    return 0


def _data(options: argparse.Namespace, found: Discovered, memory: Memory) -> Decoded | list[Decoded]:
    """The overview, or the entries of a section."""
    if options.section is None:
        return report.overview(found, memory)
    cpus = found.sidecar_cpus if options.cpu is None else (found.cpu(options.cpu),)
    section = Section(options.section)
    if section not in (Section.FAULT, Section.PAGE_TABLES):
        return report.section(section, found, memory, cpus)
    kernel = images.image("kernel")
    same = images.is_running(kernel, found, memory)
    return report.section(
        section, found, memory, cpus,
        resolve=(lambda offset: images.where(kernel.linked, offset)) if same else None,
        segments=images.segments(kernel) if same else None,
    )


@contextmanager
def open_memory(options: argparse.Namespace) -> Iterator[Memory]:
    """The memory that --ram or --qmp names. Raises UserError if there is none."""
    if options.ram is not None:
        with RamFile(options.ram) as ram:
            yield ram
        return
    try:
        monitor = Monitor(options.qmp, seconds=CONNECT_SECONDS)
    except (MonitorLost, WaitedInVain) as error:
        raise UserError(
            f"{options.qmp} is no QMP socket that answers: {error}; only one client at a time can be connected"
        ) from error
    with closing(monitor):
        yield monitor
