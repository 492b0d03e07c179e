"""A machine of some size with Linux beside the sidecar: who has which CPU, and that each of the sidecar's answers."""

from dataclasses import dataclass
from pathlib import Path

from sidecar.layout import MAX_NODE_CPUS
from sidecar.qemu.linux.kernels import Which
from sidecar.qemu.linux_report import report
from tests.support.linux_client import complaints
from tests.support.stock_linux import StockLinux


@dataclass(frozen=True, slots=True)
class Size:
    """A machine's CPUs, and the Linux numbers of its nodes' first CPUs."""

    smp: int
    numa: int
    first: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.smp}x{self.numa}"


SIZES = (
    Size(2, 1, (0,)), Size(4, 1, (0,)), Size(8, 1, (0,)), Size(16, 1, (0,)), Size(64, 1, (0, MAX_NODE_CPUS)),
    Size(40, 2, (0, 20)),
)  # fmt: skip


def boots_and_answers(stock_linux: StockLinux, which: Which, size: Size, directory: Path) -> None:
    """Linux has the first CPU of every node, brought online by nobody's command; all others answer the guest."""
    with stock_linux.guest(directory, smp=size.smp, numa=size.numa, which=which) as session:
        assert session.fallback is None
        assert session.online_cpus() == {0}
        session.attach()
        told = report(session)
        assert told.ok, told
        assert told.backing == "driver"
        assert session.online_cpus() == set(size.first)
        assert [(cpu.linux, cpu.owner, cpu.state, cpu.answered) for cpu in told.cpus] == [
            (number, "linux", "online", None) if number in size.first else (number, "sidecar", "idle", True)
            for number in range(size.smp)
        ]
        assert [node.base_cpu for node in told.nodes] == list(size.first)
        assert complaints(session) == []
