"""`sidecarctl vm run`: a machine with a serial port and the debug-exit port, from its options to its exit status."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from sidecar.client.sidecar import Sidecar
from sidecar.client.vmm.devices import debug_exit, uart
from sidecar.client.vmm.ledger import Ledger
from sidecar.client.vmm.loaders.modes import Mode
from sidecar.client.vmm.loaders.multiboot import Module, load_multiboot
from sidecar.client.vmm.loaders.raw import load_raw
from sidecar.client.vmm.loop import Ended, How
from sidecar.client.vmm.machine import Machine
from sidecar.errors import UserError
from sidecar.layout.control import CpuStatus

TIMED_OUT = 124
"""As timeout(1)."""


def run_guest(sidecar: Sidecar, options: argparse.Namespace) -> int:
    """Raises UserError, BadImage, and what the backing raises."""
    cpus = chosen_cpus(sidecar, options.cpu, options.vcpus)
    with contextlib.ExitStack() as stack:
        backing = sidecar.attachment.virtual_machine()
        ledger = None
        if options.exits is not None:
            file = stack.enter_context(opened(options.exits))
            ledger = Ledger(file, tsc_khz=sidecar.found.tsc_khz)
        machine = stack.enter_context(Machine(backing, memory=options.memory, ledger=ledger))
        console = Console(keep=options.json)
        machine.ports.add(uart.PORTS, uart.Uart(console.send))
        machine.ports.add(debug_exit.PORTS, debug_exit.DebugExit())
        for cpu in cpus:
            machine.add_vp(cpu)
        load(machine, options)
        began = time.monotonic()
        ended = machine.run(seconds=options.timeout)
        return report(options, machine, ended, console, time.monotonic() - began)


def chosen_cpus(sidecar: Sidecar, names: list[str], count: int) -> list[int]:
    """Linux numbers: those that were named, or the first idle ones. Raises UserError, NoSuchCpu."""
    if names:
        numbers = [sidecar.cpu(name).number for name in names]
        if len(numbers) != count and count != 1:
            raise UserError(f"--vcpus {count} and {len(numbers)} times --cpu contradict each other")
        return numbers
    idle = CpuStatus.IDLE.name.lower()
    free = [cpu.number for cpu in sidecar.commandable if cpu.state == idle]
    if len(free) < count:
        raise UserError(f"--vcpus {count}: only {len(free)} CPUs of the sidecar are free")
    return free[:count]


def load(machine: Machine, options: argparse.Namespace) -> None:
    """The image into memory, and every virtual processor to its start, with its number in EDI."""
    if options.multiboot is not None:
        modules = [Module(str(file), content(file)) for file in options.module]
        line = f"{options.multiboot} {options.append}".strip()
        kernel = content(options.multiboot)
        for vp in machine.vps:
            load_multiboot(machine.memory, vp, kernel, command_line=line, modules=modules)
            vp.set(rdi=vp.index)
        return
    data = content(options.raw)
    for vp in machine.vps:
        load_raw(machine.memory, vp, data, Mode(options.mode))
        vp.set(rdi=vp.index)


def report(options: argparse.Namespace, machine: Machine, ended: Ended, console: Console, took: float) -> int:
    """Says how it ended, on standard error; with --json on standard output, the console with it. The exit status."""
    status = {How.TIME: TIMED_OUT, How.HALTED: 0}.get(ended.how)
    if status is None:
        status = ended.stop.status if ended.stop is not None else 1
    unclaimed = {noun: {hex(number): count for number, count in found.items()}
                 for noun, found in machine.unclaimed.items() if found}  # fmt: skip
    if options.json:
        result: dict[str, Any] = {
            "status": status, "ended": ended.how.value, "why": ended.stop.why if ended.stop is not None else None,
            "seconds": round(took, 3), "console": console.text, "unclaimed": unclaimed,
        }  # fmt: skip
        print(json.dumps(result, indent=2))
    elif ended.how is How.TIME:
        print(f"sidecarctl: the guest was ended after {options.timeout:g} s", file=sys.stderr)
    elif ended.stop is not None and not status & 1:
        print(f"sidecarctl: {ended.stop.why}", file=sys.stderr)
    return status


class Console:
    """What the guest sends, on standard output as it comes; or kept, for a report."""

    def __init__(self, *, keep: bool) -> None:
        self._kept: bytearray | None = bytearray() if keep else None

    def send(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept += data
            return
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    @property
    def text(self) -> str:
        return bytes(self._kept or b"").decode(errors="replace")


def content(file: Path) -> bytes:
    """Raises UserError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def opened(file: Path) -> Any:
    """For writing. Raises UserError."""
    try:
        return file.open("w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from error
