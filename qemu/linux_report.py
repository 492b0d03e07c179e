"""What a boot with Linux has come to: who owns which CPU, which of the sidecar's answer the guest, and the timeline.

    Linux 6.1.0-56-cloud-amd64 on 4 CPUs (tcg) beside the sidecar, commanded through its driver
    node 0: CPUs 0-3, NUMA node 0, 200 KiB of memory at 0x3d6c2000 on NUMA node 0
    CPU  APIC  node  index  NUMA  owner    state   answered  us
      0     0     0      0     0  linux    online         -   -
      1     1     0      1     0  sidecar  idle         yes  42

Made to be printed, or for JSON.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sidecar.layout.control import CpuStatus
from sidecar.protocol.machine import Cpu, Discovered
from sidecar.qemu.boot_report import NodeReport, node_line, node_report
from sidecar.qemu.linux.agent_client import GuestError
from sidecar.qemu.linux.timeline import Stamp
from sidecar.qemu.linux.timeline import render as render_timeline
from sidecar.qemu.linux_session import LinuxSession
from sidecar.qemu.table import table
from sidecar.qemu.waiting import WaitedInVain

COLUMNS = ("CPU", "APIC", "node", "index", "NUMA", "owner", "state", "answered", "us")
TEXT_COLUMNS = ("owner", "state")
PING = ("sidecarctl", "ping", "--json", "--count", "3")
"""The first answer costs TCG the translation of its code; the fastest counts."""

_IN_MODE = {
    "sidecar": "beside the sidecar", "baseline one": "with maxcpus=1 (--baseline one)",
    "baseline all": "with all CPUs (--baseline all)",
}  # fmt: skip

_WAYS = {"driver": "through its driver", "no-module": "without a driver, by /dev/mem and the module msr"}

PING_SECONDS = 60.0
PING_SECONDS_PER_CPU = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxCpuReport:
    """One CPU. `owner` is linux or sidecar; `state` Linux's online or offline, or the sidecar's status.

    `answered` is None where nobody asked: Linux's own CPUs. `microseconds` is the fastest answer that the guest saw.
    """

    linux: int
    apic_id: int | None
    node: int | None
    index: int | None
    numa: int | None
    owner: str
    state: str
    answered: bool | None = None
    microseconds: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinuxReport:
    """The whole machine. `mode` is sidecar, or the baseline; `problems` are what went wrong after user space.

    `backing` is the guest's way to the CPUs. `earlier` has the seconds to user space of the same machine's last boots
    in other modes.
    """

    smp: int
    accelerator: str
    kernel: str
    mode: str
    backing: str | None = None
    user_space_seconds: float = 0.0
    earlier: dict[str, float] = field(default_factory=dict)
    nodes: list[NodeReport] = field(default_factory=list)
    cpus: list[LinuxCpuReport] = field(default_factory=list)
    timeline: list[Stamp] = field(default_factory=list)
    fallback: str | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Every CPU that is the sidecar's answered the guest."""
        return not self.problems and all(cpu.answered for cpu in self.cpus if cpu.owner == "sidecar")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok}


def report(
    session: LinuxSession, *, problems: Sequence[str] = (), earlier: Mapping[str, float] | None = None
) -> LinuxReport:
    """Asks the guest's Linux and, through its client, every sidecar CPU. Raises MachineDied, GuestError."""
    found, problems = session.found, list(problems)
    answers = _ping(session, problems) if session.backing is not None else {}
    online = session.online_cpus()
    if found is not None and found.missing_count:
        problems.append(f"{found.missing_count} CPUs did not start when the sidecar booted")
    if found is not None:
        cpus = [_sidecar_machines_cpu(session, found, cpu, online, answers) for cpu in found.cpus]
    else:
        cpus = [_plain_cpu(number, online) for number in range(session.smp)]
    return LinuxReport(
        smp=session.smp,
        accelerator=session.accelerator.kind,
        kernel=session.kernel.version,
        mode=session.mode,
        backing=session.backing,
        user_space_seconds=round(session.user_space_seconds, 3),
        earlier=dict(earlier or {}),
        nodes=[node_report(node) for node in found.nodes] if found else [],
        cpus=cpus,
        timeline=list(session.timeline),
        fallback=session.fallback,
        notes=session.notes,
        problems=problems,
    )


def render(boot: LinuxReport) -> str:
    """The report for people."""
    return "\n".join(_lines(boot))


def _lines(boot: LinuxReport) -> Iterator[str]:
    yield f"Linux {boot.kernel} on {boot.smp} CPUs ({boot.accelerator}) {_beside(boot)}"
    if boot.fallback is not None:
        yield f"the shim did not use the sidecar: {boot.fallback}"
    yield from (node_line(node) for node in boot.nodes)
    yield from table(COLUMNS, map(_row, boot.cpus), words=TEXT_COLUMNS)
    yield from (f"CPU {cpu.linux}: {cpu.error}" for cpu in boot.cpus if cpu.error)
    yield from (f"note: {note}" for note in boot.notes)
    yield from (f"problem: {problem}" for problem in boot.problems)
    asked = [cpu for cpu in boot.cpus if cpu.owner == "sidecar"]
    if asked:
        yield f"{sum(bool(cpu.answered) for cpu in asked)} of {len(asked)} sidecar CPUs answered NONE from the guest"
    if boot.timeline:
        yield render_timeline(tuple(boot.timeline))
    yield comparison(boot)


def comparison(boot: LinuxReport) -> str:
    """How long it took to user space, beside the last times of the other modes."""
    said = f"QEMU start to user space: {boot.user_space_seconds:.2f} s"
    others = [f"{seconds:.2f} s {_IN_MODE[mode]}" for mode, seconds in boot.earlier.items() if mode in _IN_MODE]
    if not others:
        return f"{said} (to compare, boot it with --baseline one or all)" if boot.mode == "sidecar" else said
    return f"{said}; when last booted on this host: {', '.join(others)}"


def _beside(boot: LinuxReport) -> str:
    if boot.fallback is not None:
        return "without the sidecar"
    if boot.mode != "sidecar":
        return f"without the sidecar: {boot.mode}"
    return "beside the sidecar" + (f", commanded {_WAYS[boot.backing]}" if boot.backing else "")


def _row(cpu: LinuxCpuReport) -> tuple[object, ...]:
    answered = None if cpu.answered is None else "yes" if cpu.answered else "no"
    fastest = None if cpu.microseconds is None else round(cpu.microseconds)
    return cpu.linux, cpu.apic_id, cpu.node, cpu.index, cpu.numa, cpu.owner, cpu.state, answered, fastest


def _ping(session: LinuxSession, problems: list[str]) -> dict[int, dict[str, Any]]:
    """What the client says of each CPU it asked, by Linux number; a failure of the whole goes to `problems`."""
    seconds = PING_SECONDS + session.smp * PING_SECONDS_PER_CPU
    try:
        result = session.guest.run(PING, seconds)
    except (GuestError, WaitedInVain) as error:
        problems.append(str(error))
        return {}
    try:
        answers: list[dict[str, Any]] = json.loads(result.stdout)["cpus"]
        return {int(answer["linux_number"]): answer for answer in answers}
    except (ValueError, KeyError):
        said = result.stderr.strip() or result.stdout.strip() or "nothing"
        problems.append(f"{' '.join(PING)} ended with status {result.status} and said: {said[-800:]}")
        return {}


def _sidecar_machines_cpu(
    session: LinuxSession, found: Discovered, cpu: Cpu, online: set[int], answers: dict[int, dict[str, Any]]
) -> LinuxCpuReport:
    status = found.status(session.machine.ram, cpu)
    linuxs = not cpu.is_sidecars or cpu.linux_number in online
    answer = answers.get(cpu.linux_number, {})
    return LinuxCpuReport(
        linux=cpu.linux_number,
        apic_id=cpu.apic_id,
        node=cpu.node,
        index=cpu.index,
        numa=cpu.numa_node,
        owner="linux" if linuxs else "sidecar",
        state=_online(cpu.linux_number, online) if linuxs else _status_name(status),
        answered=answer.get("answered", None if linuxs else False),
        microseconds=answer.get("microseconds"),
        error=answer.get("error"),
    )


def _plain_cpu(number: int, online: set[int]) -> LinuxCpuReport:
    state = _online(number, online)
    return LinuxCpuReport(linux=number, apic_id=None, node=None, index=None, numa=None, owner="linux", state=state)


def _online(number: int, online: set[int]) -> str:
    return "online" if number in online else "offline"


def _status_name(status: CpuStatus | int | None) -> str:
    return status.name.lower() if isinstance(status, CpuStatus) else f"unknown {status}"
