"""What a boot has come to: nodes, CPUs, times, and whether every sidecar CPU answers. Made to be printed, or for JSON.

    node 0: CPUs 0-3, NUMA node 0, 164 KiB of memory on NUMA node 0
    CPU  APIC  node  index  NUMA  state    boot us  answered
      0     0     0      0     0  linux          -  -
      1     1     0      1     0  idle         210  yes
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from sidecar.layout.control import CpuStatus
from sidecar.layout.diagnostics import BootPhase
from sidecar.protocol.errors import DriverError
from sidecar.protocol.machine import Cpu, Node
from sidecar.qemu.session import Session
from sidecar.qemu.table import table

COLUMNS = ("CPU", "APIC", "node", "index", "NUMA", "state", "boot us", "answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One node: its CPUs and where its memory is."""

    node: int
    base_cpu: int
    cpu_count: int
    numa: int
    memory_numa: int
    memory_bytes: int
    control_pa: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuReport:
    """One CPU; None where it has none: the node of a CPU outside the nodes, the time of one that was never started.

    `boot_us` is from the first INIT to the CPU's being idle. `error` says why it did not answer.
    """

    linux: int
    apic_id: int
    node: int | None
    index: int | None
    numa: int
    state: str
    boot_us: float | None
    answered: bool
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootReport:
    """The whole machine. `fallback` is the shim's reason if it did not use the sidecar: then there are no CPUs here.

    `notes` are the shim's remarks on what it was given.
    """

    smp: int
    accelerator: str
    nodes: list[NodeReport] = field(default_factory=list)
    cpus: list[CpuReport] = field(default_factory=list)
    boot: dict[str, float | int] = field(default_factory=dict)
    fallback: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every CPU that is the sidecar's answered, and none is missing."""
        return self.boot.get("missing", 0) == 0 and self.boot.get("sidecar_cpus", 0) == self.boot.get("answered", 0)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def report(session: Session) -> BootReport:
    """Asks every CPU, by a NONE command, and collects the table."""
    found = session.found
    started = time.monotonic()
    errors = {number: _ask(session, number) for number in session.cpus}
    asking_us = (time.monotonic() - started) * 1e6
    cpus = [_cpu(session, cpu, errors) for cpu in found.cpus]
    return BootReport(
        smp=session.smp,
        accelerator=session.accelerator.kind,
        nodes=[node_report(node) for node in found.nodes],
        cpus=cpus,
        boot={
            "sidecar_cpus": len(errors),
            "answered": sum(cpu.answered for cpu in cpus),
            "missing": found.missing_count,
            "shim_us": _span(session, found.shim_entry_tsc, found.hand_over_tsc),
            "sidecar_us": _span(session, found.sidecar_entry_tsc, found.all_idle_tsc),
            "start_us": _span(session, found.first_init_tsc, found.all_idle_tsc),
            "none_us": round(asking_us / len(errors), 1) if errors else 0.0,
        },
        notes=session.notes,
    )


def fall_back_report(session: Session, reason: str) -> BootReport:
    """The report of a machine whose shim did without the sidecar."""
    return BootReport(smp=session.smp, accelerator=session.accelerator.kind, fallback=reason)


def render(boot: BootReport) -> str:
    """The report for people."""
    if boot.fallback is not None:
        return f"the shim did not use the sidecar: {boot.fallback}"
    lines = [node_line(node) for node in boot.nodes]
    lines += table(COLUMNS, map(_row, boot.cpus))
    lines += [cpu.error for cpu in boot.cpus if cpu.error]
    lines += [f"note: {note}" for note in boot.notes]
    return "\n".join([*lines, *_summary(boot)])


def _ask(session: Session, number: int) -> str | None:
    """Why the CPU does not answer; None if it does."""
    try:
        session.cpus[number].none()
    except DriverError as error:
        return str(error)
    return None


def node_report(node: Node) -> NodeReport:
    """A node as it was discovered."""
    return NodeReport(
        node=node.number,
        base_cpu=node.base_cpu,
        cpu_count=node.cpu_count,
        numa=node.numa_node,
        memory_numa=node.memory_numa_node,
        memory_bytes=node.memory_bytes,
        control_pa=node.control_pa,
    )


def _cpu(session: Session, cpu: Cpu, errors: dict[int, str | None]) -> CpuReport:
    asked = cpu.linux_number in errors
    idle_tsc = 0
    if asked:
        idle_tsc = int(session.driver.pages(cpu.linux_number).diagnostic.boot.stamps[BootPhase.IDLE])
    return CpuReport(
        linux=cpu.linux_number,
        apic_id=cpu.apic_id,
        node=cpu.node,
        index=cpu.index,
        numa=cpu.numa_node,
        state=_state(session, cpu),
        boot_us=round(session.found.microseconds(idle_tsc), 1) if idle_tsc else None,
        answered=asked and errors[cpu.linux_number] is None,
        error=errors.get(cpu.linux_number),
    )


def _state(session: Session, cpu: Cpu) -> str:
    if not cpu.is_sidecars:
        return "linux"
    status = session.driver.status(cpu.linux_number)
    try:
        return CpuStatus(status).name.lower()
    except ValueError:
        return f"unknown {status:#x}"


def _span(session: Session, start: int, end: int) -> float:
    """Microseconds between two stamps; 0 if one of them was not taken."""
    return round((end - start) * 1000 / session.found.tsc_khz, 1) if start and end and session.found.tsc_khz else 0.0


def node_line(node: NodeReport) -> str:
    """A node for people."""
    last = node.base_cpu + node.cpu_count - 1
    return (
        f"node {node.node}: CPUs {node.base_cpu}-{last}, NUMA node {node.numa}, "
        f"{node.memory_bytes // 1024} KiB of memory at {node.control_pa:#x} on NUMA node {node.memory_numa}"
    )


def _row(cpu: CpuReport) -> tuple[object, ...]:
    sidecars = cpu.state != "linux"
    answered = None if not sidecars else "yes" if cpu.answered else "no"
    boot_us = None if cpu.boot_us is None else round(cpu.boot_us)
    return cpu.linux, cpu.apic_id, cpu.node, cpu.index, cpu.numa, cpu.state, boot_us, answered


def _summary(boot: BootReport) -> Iterator[str]:
    times = boot.boot
    yield f"{times['answered']} of {times['sidecar_cpus']} sidecar CPUs answered NONE, {times['none_us']:g} us each"
    if times["missing"]:
        yield f"{times['missing']} CPUs did not start"
    yield f"first INIT to last CPU idle: {times['start_us'] / 1000:.3f} ms ({boot.accelerator})"
