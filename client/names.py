"""Which CPU somebody means: a Linux number, `apic:ID`, or `node:index`.

    >>> cpus = [CpuNumbers(linux=7, apic_id=0x10, node=1, index=2)]
    >>> find("1:2", cpus).linux, find("apic:0x10", cpus).linux
    (7, 7)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sidecar.protocol.backing import CpuNumbers
from sidecar.protocol.errors import NoSuchCpu

_NUMBER = r"(0[xX][0-9a-fA-F]+|[0-9]+)"
_LINUX, _APIC, _PLACE = (re.compile(text) for text in (_NUMBER, f"apic:{_NUMBER}", f"{_NUMBER}:{_NUMBER}"))


def find(name: str | int, cpus: Sequence[CpuNumbers]) -> CpuNumbers:
    """The CPU of a sidecar node that `name` means. Raises NoSuchCpu with what there is."""
    text = str(name)
    if found := _LINUX.fullmatch(text):
        return _by_linux(_value(found.group(1)), cpus)
    if found := _APIC.fullmatch(text):
        return _by_apic_id(_value(found.group(1)), cpus)
    if found := _PLACE.fullmatch(text):
        return _by_place(_value(found.group(1)), _value(found.group(2)), cpus)
    raise NoSuchCpu(f"{text!r} names no CPU: write a Linux number such as 3, apic:ID, or node:index such as 0:2")


def _value(text: str) -> int:
    return int(text, 16) if text[:2].lower() == "0x" else int(text)


def _by_linux(number: int, cpus: Sequence[CpuNumbers]) -> CpuNumbers:
    for cpu in cpus:
        if cpu.linux == number:
            return cpu
    raise NoSuchCpu(f"CPU {number} is in no sidecar node; there are CPUs {ranges(cpu.linux for cpu in cpus)}")


def _by_apic_id(apic_id: int, cpus: Sequence[CpuNumbers]) -> CpuNumbers:
    for cpu in cpus:
        if cpu.apic_id == apic_id:
            return cpu
    known = ranges((cpu.apic_id for cpu in cpus), "{:#x}")
    raise NoSuchCpu(f"no CPU of a sidecar node has APIC id {apic_id:#x}; there are {known}")


def _by_place(node: int, index: int, cpus: Sequence[CpuNumbers]) -> CpuNumbers:
    inside = [cpu for cpu in cpus if cpu.node == node]
    if not inside:
        raise NoSuchCpu(f"there is no sidecar node {node}; there are nodes {ranges({cpu.node for cpu in cpus})}")
    for cpu in inside:
        if cpu.index == index:
            return cpu
    raise NoSuchCpu(f"node {node} has no CPU with index {index}; there are {ranges(cpu.index for cpu in inside)}")


def ranges(numbers: Iterable[int], form: str = "{}") -> str:
    """Numbers in short.

    >>> ranges([0, 1, 2, 5])
    '0-2, 5'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(form.format(end) for end in run) for run in runs) or "none"
