"""Accesses of a guest to devices: to the claim that has all bytes, else byte by byte; nobody's bytes read all ones.

Ref: what a PC's bus does where nobody answers.
"""

from __future__ import annotations

from sidecar.client.vmm.answers import Answer, Device, Fault, Stop
from sidecar.client.vmm.ranges import Ranges


def all_ones(size: int) -> int:
    return (1 << 8 * size) - 1


def read(devices: Ranges[Device], address: int, size: int) -> int | Stop | Fault:
    """What the device answers, cut to `size` bytes."""
    claim = devices.find(address)
    if claim is not None and address + size <= claim.stop:
        answer = claim.owner.read(address - claim.start, size)
        if answer is None:
            return all_ones(size)
        return answer & all_ones(size) if isinstance(answer, int) else answer
    if not devices.overlaps(range(address, address + size)):
        devices.count(address)
        return all_ones(size)
    value = 0
    for place in range(size):
        part = read(devices, address + place, 1)
        if not isinstance(part, int):
            return part
        value |= part << 8 * place
    return value


def write(devices: Ranges[Device], address: int, size: int, value: int) -> Stop | Fault | None:
    """The device's answer, if it is not that the guest goes on."""
    claim = devices.find(address)
    if claim is not None and address + size <= claim.stop:
        return _unless_on(claim.owner.write(address - claim.start, size, value & all_ones(size)))
    if not devices.overlaps(range(address, address + size)):
        devices.count(address)
        return None
    for place in range(size):
        answer = write(devices, address + place, 1, value >> 8 * place & 0xFF)
        if answer is not None:
            return answer
    return None


def _unless_on(answer: Answer) -> Stop | Fault | None:
    return answer if isinstance(answer, (Stop, Fault)) else None
