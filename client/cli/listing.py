"""`sidecarctl list`: nodes, and every CPU of the machine with its numbers and its owner."""

from __future__ import annotations

import argparse

from sidecar.client.cli.frame import Commands, add_command, open_sidecar, show
from sidecar.protocol.decode import Decoded
from sidecar.protocol.render import columns


def add(commands: Commands) -> None:
    add_command(commands, "list", run, help="nodes and CPUs, and who has each CPU")


def run(options: argparse.Namespace) -> int:
    with open_sidecar(options) as sidecar:
        data = sidecar.describe()
    show(options, data, text(data))
    return 0


def text(data: Decoded) -> str:
    nodes = "".join(
        f"node {node['number']}: CPUs {node['base_cpu']}-{node['base_cpu'] + node['cpu_count'] - 1}, "
        f"NUMA node {node['numa_node']}, {node['memory_bytes'] // 1024} KiB of memory\n"
        for node in data["nodes"]
    )
    cpus = columns(("CPU", "APIC id", "node", "index", "state"), (
        (cpu["linux_number"], hex(cpu["apic_id"]), cpu["node"], cpu["index"], cpu["state"]) for cpu in data["cpus"]
    ))
    return f"{nodes}by way of: {data['backing']}\n{cpus}"
