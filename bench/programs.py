"""What the measurements bring into the guest: sidecar_bench.ko, built together with the driver, and a C program."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import UserError
from sidecar.qemu.linux.cache import Tell, project_root
from sidecar.qemu.linux.kernels import LinuxKernel
from sidecar.qemu.linux.module import build_module

HERE = Path(__file__).resolve().parent
BENCH_MODULE = "sidecar_bench"
COMPILE_SECONDS = 60
FOR_THE_GUEST = ("-static", "-no-pie", "-pthread")
"""It has no libraries of the host's; and the addresses that nm tells are those it runs at."""


class NoSource(UserError):
    """An installed package has no C source; the compiler is missing or refuses."""


@dataclass(frozen=True, slots=True)
class Programs:
    """`driver` for LinuxSession, `copy_in` for the guest's /root; `program` is the C program among them."""

    driver: Path
    copy_in: tuple[Path, ...]
    program: Path


def build(kernel: LinuxKernel, directory: Path, *, tell: Tell) -> Programs:
    """Builds for `kernel`; the C program into `directory`. Raises NoSource, ModuleBuildFailed, NoHeaders."""
    root = _source_tree()
    with tempfile.TemporaryDirectory() as scratch:
        source = merged_source(root / "driver", Path(scratch) / "source")
        driver = build_module(kernel, source=source, output=root / "build" / f"bench-{kernel.version}", tell=tell)
    source = HERE / "in_guest" / "dispatch.c"
    program = compile_program(source, directory / "dispatch", *FOR_THE_GUEST, f"-I{root / 'driver'}")
    copy_in = (driver.with_name(f"{BENCH_MODULE}.ko"), program, HERE / "in_guest" / "dispatch.py")
    return Programs(driver, copy_in, program)


def exits(directory: Path) -> tuple[Path, Path]:
    """The C program that runs guests, made into `directory`, and the Python one. Raises NoSource."""
    folder = HERE / "in_guest"
    header = f"-I{_source_tree() / 'driver'}"
    return compile_program(folder / "exits.c", directory / "exits", *FOR_THE_GUEST, header), folder / "exits.py"


def driver_of(kernel: LinuxKernel, *, tell: Tell) -> Path:
    """The driver alone. Raises NoSource, ModuleBuildFailed, NoHeaders."""
    root = _source_tree()
    return build_module(kernel, source=root / "driver", output=root / "build" / f"driver-{kernel.version}", tell=tell)


def _source_tree() -> Path:
    root = project_root()
    if root is None:
        raise NoSource("sidecar bench needs the project's source tree: there is no driver in an installed package")
    return root


def merged_source(driver: Path, target: Path) -> Path:
    """The driver's source with ours beside it, so that each is built for the other's exported functions."""
    shutil.copytree(driver, target)
    for source in (HERE / "module").glob("*.c"):
        shutil.copy(source, target)
    with (target / "Kbuild").open("a") as kbuild:
        kbuild.write((HERE / "module" / "Kbuild").read_text())
    return target


def compile_program(source: Path, target: Path, *options: str) -> Path:
    """Compiles and links one file. Raises NoSource."""
    command = ["gcc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", *options, "-o", str(target), str(source)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except FileNotFoundError as error:
        raise NoSource("there is no gcc on this host: run 'make setup' or tools/setup") from error
    if run.returncode != 0:
        raise NoSource(f"{source.name} does not compile: {run.stderr.strip()[-800:]}")
    return target
