"""`sidecar build`: the shim, the sidecar kernel and the boot bundle, written to a directory."""

import argparse
import time
from pathlib import Path

from sidecar.builder import image
from sidecar.cli.parser import Commands
from sidecar.errors import UserError
from sidecar.layout.boot import BundleKind

DEFAULT_OUTPUT = Path("build")


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "build",
        help="generate shim.elf, sidecar.elf and bundle.img",
        description="Generates the machine code and writes shim.elf (QEMU's -kernel), sidecar.elf, and bundle.img "
        "(QEMU's -initrd). The same source gives the same bytes.",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, default=DEFAULT_OUTPUT,
                        help=f"where to; default: {DEFAULT_OUTPUT}/")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    kernel, shim = image.kernel(), image.shim()
    files = {
        shim.name: shim.elf,
        kernel.name: kernel.elf,
        "bundle.img": image.bundle({BundleKind.SIDECAR: kernel.elf}),
    }
    seconds = time.perf_counter() - started
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (options.output / name).write_bytes(data)
    except OSError as error:
        raise UserError(f"--output {options.output}: {error.strerror}: {error.filename}") from error
    for name, data in files.items():
        print(f"{options.output / name}: {len(data)} bytes")
    print(f"built in {seconds:.2f} s")
    return 0
