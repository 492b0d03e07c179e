"""The kernel's boot code on an emulated CPU: a params page as the shim would write it, and the entry called with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sidecar.builder import image
from sidecar.layout import (
    ABI_VERSION,
    PAGE_SIZE,
    CpuMapEntry,
    CpuPolicy,
    SidecarOutput,
    SidecarParams,
    abi_hash,
    required_memory,
)
from sidecar.layout.params import SidecarNodeParams
from tests.support.emulator import Emulator, Outcome
from tests.support.synthetic import page

BASE = 0x1000_0000
LOW = range(0xA_0000)
PARAMS = 0x2000_0000
OUTPUT = PARAMS + PAGE_SIZE
CPU_MAP = OUTPUT + PAGE_SIZE
NODES = 0x2010_0000
RAM = range(PARAMS, PARAMS + 0x80_0000)
TRAMPOLINE = 0x9_E000
SDCR = 0x21_0040


@dataclass(frozen=True, slots=True)
class Node:
    """Which CPUs, and where its memory is; as much as it needs if `memory_size` is None."""

    base_vp: int
    vp_count: int
    memory_base: int
    memory_size: int | None = None

    def build(self) -> bytes:
        size = required_memory(self.vp_count) if self.memory_size is None else self.memory_size
        return SidecarNodeParams.build(
            memory_base=self.memory_base, memory_size=size, base_vp=self.base_vp, vp_count=self.vp_count
        )


TWO_NODES = (Node(0, 3, NODES), Node(3, 2, NODES + 0x10_0000))
"""CPUs 0 and 3 are Linux's."""


@cache
def _kernel(base: int) -> Emulator:
    return Emulator(image.kernel(), base=base, memory=(LOW, RAM), stops=("fan_out",))


def fresh(base: int = BASE) -> Emulator:
    """The kernel as a loader leaves it at `base`, to be stopped where it would start the other CPUs."""
    kernel = _kernel(base)
    kernel.reset()
    return kernel


def cpu(number: int, node: int, policy: CpuPolicy = CpuPolicy.SIDECAR) -> bytes:
    """A CPU map entry; APIC ids are no Linux numbers."""
    return CpuMapEntry.build(apic_id=2 * number, linux_number=number, node=node, numa_node=0, policy=policy)


def cpus_of(nodes: Sequence[Node]) -> list[bytes]:
    """All for the sidecar, but for each node's first."""
    return [
        cpu(node.base_vp + index, number, CpuPolicy.SIDECAR if index else CpuPolicy.LINUX)
        for number, node in enumerate(nodes)
        for index in range(node.vp_count)
    ]


def write_params(
    kernel: Emulator, nodes: Sequence[Node] = TWO_NODES, cpus: Sequence[bytes] | None = None, **changes: Any
) -> None:
    """A params page that is right, but for `changes` (nested names with `__` for the dot)."""
    entries = cpus_of(nodes) if cpus is None else cpus
    values: dict[str, Any] = {
        "abi_version": ABI_VERSION, "abi_hash": abi_hash(), "node_count": len(nodes), "cpu_map_pa": CPU_MAP,
        "cpu_map_count": len(entries), "tsc_khz": 2_000_000, "trampoline_pa": TRAMPOLINE, "sdcr_pa": SDCR,
        "start_timeout_ms": 1000,
    }  # fmt: skip
    kernel.write(PARAMS, page(SidecarParams, **(values | changes)))
    kernel.write(PARAMS + SidecarParams.nodes, b"".join(node.build() for node in nodes))
    kernel.write(CPU_MAP, b"".join(entries))


def enter(kernel: Emulator) -> Outcome:
    """Call the entry."""
    return kernel.call("entry", rdi=PARAMS, rsi=OUTPUT)


def output(kernel: Emulator) -> Any:
    """The output page, parsed."""
    return SidecarOutput.parse(kernel.read(OUTPUT, SidecarOutput.SIZE))


def refusal(kernel: Emulator) -> str:
    """Call the entry, which must return false, and give its sentence."""
    outcome = enter(kernel)
    assert (outcome.stop, outcome.rax) == ("", 0), "the params page was accepted"
    error = output(kernel).error
    return bytes(error.text[: error.length]).decode()


def accepted(kernel: Emulator) -> None:
    """Call the entry, which must get as far as starting CPUs."""
    outcome = enter(kernel)
    error = output(kernel).error
    assert outcome.stop == "fan_out", bytes(error.text[: error.length]).decode()
