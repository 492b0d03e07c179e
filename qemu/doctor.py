"""What this host has and lacks for building, booting and testing the sidecar, each finding with its remedy."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata

from sidecar.errors import UserError
from sidecar.qemu.accelerator import choose_accelerator
from sidecar.qemu.executable import find_qemu
from sidecar.qemu.kvm import examine_kvm
from sidecar.qemu.sizes import GIB

SETUP = "run 'make setup'"
OLDEST_PYTHON = (3, 11)
LEAST_CPUS = 2
LEAST_MEMORY_BYTES = 2 * GIB
DISTRIBUTION = "sidecar-kernel"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `ok` is false only where something needed is missing, and `remedy` then says what helps."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> tuple[Finding, ...]:
    """Every finding about this host."""
    return (
        _python(),
        _packages(),
        _qemu(),
        _kvm(),
        _program("gcc", "compiles the generated C header in the tests"),
        _program("as", "judges the machine code in the tests"),
        _program("readelf", "judges the ELF files in the tests"),
        _program("eu-elflint", "judges the ELF files in the tests"),
        _program("grub-file", "judges the multiboot2 header in the tests"),
        _cpus(),
        _memory(),
    )


def render(findings: tuple[Finding, ...]) -> str:
    """One line per finding, and one more per remedy."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'ok     ' if finding.ok else 'MISSING'}  {finding.name:<{width}}  {finding.found}")
        if not finding.ok:
            lines.append(f"{'':7}  {'':{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def as_json(findings: tuple[Finding, ...]) -> str:
    """The findings as a JSON list of objects."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _python() -> Finding:
    needed = ".".join(map(str, OLDEST_PYTHON))
    return Finding(
        "python",
        sys.version_info >= OLDEST_PYTHON,
        f"{platform.python_version()} at {sys.executable}",
        f"install Python {needed} or newer, then {SETUP}",
    )


def _packages() -> Finding:
    """The Python packages that the distribution asks for, without its extras; which version fits is pip's affair."""
    try:
        lines = [line for line in metadata.requires(DISTRIBUTION) or () if ";" not in line]
    except metadata.PackageNotFoundError:
        return Finding("packages", False, f"{DISTRIBUTION} is not installed", SETUP)
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines]
    versions = {name: _version_of(name) for name in names}
    absent = [name for name, version in versions.items() if version is None]
    if absent:
        return Finding("packages", False, f"not installed: {', '.join(absent)}", SETUP)
    return Finding("packages", True, ", ".join(f"{name} {version}" for name, version in versions.items()))


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _qemu() -> Finding:
    try:
        qemu = find_qemu()
        accelerator = choose_accelerator("auto", qemu)
    except UserError as error:
        return Finding("qemu", False, str(error), SETUP)
    return Finding("qemu", True, f"{qemu.version_text} at {qemu.path}; --accel auto is {accelerator.kind}")


def _kvm() -> Finding:
    kvm = examine_kvm()
    return Finding("kvm", True, kvm.reason if kvm.usable else f"not usable, and not needed: {kvm.reason}")


def _program(name: str, purpose: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, False, f"not on PATH; it {purpose}", SETUP)
    return Finding(name, True, _first_line([path, "--version"]) or path)


def _first_line(command: list[str]) -> str:
    try:
        output = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter(output.splitlines()), "")


def _cpus() -> Finding:
    cpus = len(os.sched_getaffinity(0))
    return Finding("cpus", True, f"{cpus}" if cpus >= LEAST_CPUS else f"{cpus}, which is slow: tests may time out")


def _memory() -> Finding:
    available = _available_memory_bytes()
    return Finding(
        "memory",
        available >= LEAST_MEMORY_BYTES,
        f"{available / GIB:.1f} GiB available",
        f"free some: the tests need about {LEAST_MEMORY_BYTES // GIB} GiB",
    )


def _available_memory_bytes() -> int:
    """Ref: proc(5), /proc/meminfo, MemAvailable."""
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
