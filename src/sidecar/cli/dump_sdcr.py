"""`sidecar dump sdcr`: the SDCR table from a file, such as Linux's /sys/firmware/acpi/tables/SDCR."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.cli.parser import Commands
from sidecar.errors import UserError
from sidecar.layout import CpuPolicy
from sidecar.protocol.decode import name_of
from sidecar.protocol.discovery import Anchor, DiscoveryError, read_table
from sidecar.protocol.machine import Discovered
from sidecar.protocol.render import columns, lines

DEFAULT_FILE = Path("/sys/firmware/acpi/tables/SDCR")


@dataclass(frozen=True, slots=True)
class TableFile:
    """A Memory with nothing in it but the table, at address 0."""

    data: bytes

    def read(self, pa: int, size: int) -> bytes:
        if pa + size > len(self.data):
            raise LookupError(f"the file has {len(self.data):#x} bytes, {pa + size:#x} are needed")
        return self.data[pa : pa + size]


def add(parts: Commands) -> None:
    parser = parts.add_parser("sdcr", help="the SDCR table from a file")
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, default=DEFAULT_FILE,
                        help=f"default: {DEFAULT_FILE}")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        found = read_table(TableFile(options.file.read_bytes()), Anchor(trampoline_pa=0, sdcr_pa=0))
    except OSError as error:
        raise UserError(f"{options.file}: {error.strerror}") from error
    except DiscoveryError as error:
        raise UserError(f"{options.file}: {error}") from error
    print(json.dumps(asdict(found), indent=2) if options.format == "json" else text(found).rstrip("\n"))
    return 0


def text(found: Discovered) -> str:
    """Plain fields, nodes, CPU map."""
    plain = {name: value for name, value in asdict(found).items() if name not in ("sdcr_pa", "nodes", "cpus")}
    head = lines((name, hex(value) if name.endswith("_pa") else value) for name, value in plain.items())
    node_head = ("node", "CPUs", "control page", "shared pages", "private pages", "bytes", "NUMA node", "memory's")
    nodes = columns(node_head, (
        (node.number, f"{node.base_cpu}-{node.base_cpu + node.cpu_count - 1}", hex(node.control_pa),
         hex(node.shared_pa), hex(node.private_pa), node.memory_bytes, node.numa_node, node.memory_numa_node)
        for node in found.nodes
    ))
    cpus = columns(("CPU", "APIC id", "node", "index", "NUMA node", "policy"), (
        (cpu.linux_number, hex(cpu.apic_id), cpu.node, cpu.index, cpu.numa_node, name_of(CpuPolicy, cpu.policy))
        for cpu in found.cpus
    ))
    return "\n".join((head, nodes, cpus))
