"""A machine whose guests are scripts, what else stops such a guest, and both ways to run it.

    machine, (cpu,) = machine_of([cpuid(1), msr(0x9F, write=False), halt()])
    run_either(machine, "asyncio")
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.client.vmm.answers import Answer
from sidecar.client.vmm.loop import Ended
from sidecar.client.vmm.machine import Machine
from sidecar.layout import hv_messages as hv
from sidecar.layout.hv_messages import HvMessageType as Type
from tests.support.vmm_cpu import ScriptedBacking, ScriptedCpu, Step, message


class Recorder:
    """A device that answers from a list, and remembers."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.seen = list(answers), list[tuple[Any, ...]]()

    def read(self, offset: int, size: int) -> Answer:
        self.seen.append((offset, size))
        return self.answers.pop(0)

    def write(self, offset: int, size: int, value: int) -> Answer:
        self.seen.append((offset, size, value))
        return self.answers.pop(0) if self.answers else None


def machine_of(*scripts: list[Step], memory: int = 0, **more: Any) -> tuple[Machine, list[ScriptedCpu]]:
    """A machine of one virtual processor per script, on CPUs from 1 on; `more` is for Machine."""
    cpus = [ScriptedCpu(steps, number=number + 1) for number, steps in enumerate(scripts)]
    backing: Any = ScriptedBacking(cpus)
    machine = Machine(backing, memory=memory, **more)
    for cpu in cpus:
        machine.add_vp(cpu.number)
    return machine, cpus


def code(data: bytes) -> dict[str, Any]:
    """The instruction's fields of a message."""
    return {"instruction_bytes": data.ljust(16, b"\0"), "instruction_byte_count": len(data)}


def cpuid(leaf: int) -> Step:
    """CPUID with those defaults: EAX 1, EBX 4, ECX 2, EDX 3."""
    return message(hv.CpuidMessage, Type.X64_CPUID_INTERCEPT, rax=leaf, default_rax=1, default_rcx=2, default_rdx=3,
                   default_rbx=4, head={"instruction_length": 2})  # fmt: skip


def msr(number: int, *, write: bool, value: int = 0) -> Step:
    """RDMSR, or WRMSR of a value."""
    head = {"access_type": int(write), "instruction_length": 2}
    low, high = value & 0xFFFFFFFF, value >> 32
    return message(hv.MsrMessage, Type.X64_MSR_INTERCEPT, head=head, msr=number, rdx=high, rax=low)


both = pytest.mark.parametrize("kind", ["blocking", "asyncio"])
"""For run_either()."""


def run_either(machine: Machine, kind: str, seconds: float = 60) -> Ended:
    """Runs the machine by the loop of that kind."""
    return machine.run(seconds=seconds) if kind == "blocking" else asyncio.run(machine.run_async(seconds=seconds))
