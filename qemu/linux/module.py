"""Building a kernel module out of tree, in a copy of its source: the source tree stays clean.

    build_module(kernel, source=root / "driver", output=root / "build" / f"driver-{kernel.version}")  ->  .../sidecar.ko

Up to date when neither the source nor the kernel has changed. Debian's headers name the compiler that the kernel was
built with; it is used if it is there, else `gcc`.

Ref: Linux Documentation/kbuild/modules.rst.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from sidecar.errors import UserError
from sidecar.qemu.linux.cache import Tell, locked, silent
from sidecar.qemu.linux.kernels import LinuxKernel

BUILD_SECONDS = 600
SHOWN_LINES = 40
STAMP = ".built-from"

# Type information for tracing needs vmlinux and pahole; a module works without.
SETTINGS = ("CONFIG_DEBUG_INFO_BTF_MODULES=",)

MODULE_NAME = re.compile(r"^\s*obj-m\s*[:+]?=\s*(\S+)\.o\s*$", re.MULTILINE)


class ModuleBuildFailed(Exception):
    """The module does not build; the message ends with what make and the compiler said."""


class NoHeaders(UserError):
    """The kernel has no headers to build against."""


def build_module(kernel: LinuxKernel, *, source: Path, output: Path, tell: Tell = silent) -> Path:
    """The .ko of the module in `source` for `kernel`, built in `output`. Raises NoHeaders, ModuleBuildFailed."""
    if kernel.headers is None:
        raise NoHeaders(f"there are no headers for Linux {kernel.version}: give --headers PATH")
    module = output / f"{module_name(source)}.ko"
    state = fingerprint(kernel, source)
    stamp = output / STAMP
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(Path(f"{output}.lock"), tell):
        if module.is_file() and stamp.is_file() and stamp.read_text() == state:
            return module
        tell(f"building {module.name} for Linux {kernel.version}")
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(source, output)
        _make(kernel, kernel.headers, output)
        if not module.is_file():
            raise ModuleBuildFailed(f"make built no {module.name} in {output}")
        stamp.write_text(state)
    return module


def module_name(source: Path) -> str:
    """What Kbuild's obj-m names. Raises ModuleBuildFailed."""
    for name in ("Kbuild", "Makefile"):
        file = source / name
        if file.is_file() and (match := MODULE_NAME.search(file.read_text())):
            return match.group(1)
    raise ModuleBuildFailed(f"no line 'obj-m := NAME.o' in a Kbuild in {source}")


def fingerprint(kernel: LinuxKernel, source: Path) -> str:
    """Changes with every file of the source and with the kernel."""
    digest = hashlib.sha256(f"{kernel.version} {kernel.headers}".encode())
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        digest.update(f"\n{file.relative_to(source)}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def compiler(headers: Path) -> list[str]:
    """CC=gcc for make where the compiler that the headers name is not on this host."""
    named = headers / ".kernelvariables"
    match = re.search(r"^CC\s*=.*?\b([\w-]*gcc-\d+)\s*$", named.read_text(), re.MULTILINE) if named.is_file() else None
    return ["CC=gcc"] if match and shutil.which(match.group(1)) is None else []


def _make(kernel: LinuxKernel, headers: Path, directory: Path) -> None:
    jobs = f"-j{len(os.sched_getaffinity(0))}"
    command = ["make", jobs, "-C", str(headers), f"M={directory.resolve()}", *SETTINGS, *compiler(headers), "modules"]
    try:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=BUILD_SECONDS, check=False, env=_environment(),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UserError("there is no make on this host: run 'make setup' or tools/setup") from error
    except subprocess.TimeoutExpired as error:
        raise ModuleBuildFailed(f"{' '.join(command)} did not end within {BUILD_SECONDS} s") from error
    if run.returncode != 0:
        said = "\n".join(f"    {line}" for line in run.stdout.splitlines()[-SHOWN_LINES:])
        raise ModuleBuildFailed(
            f"the module does not build for Linux {kernel.version}: make ended with {run.returncode}\n"
            f"command: {' '.join(command)}\n{said}"
        )


def _environment() -> dict[str, str]:
    """Ours without what a make above us has put there for its own."""
    return {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
