"""Kernel modules for the guest: the stock ones that are asked for and what they need, our driver, and depmod's index.

Debian 12's backports and later store them compressed (.ko.xz); they go into the guest plain, so that any insmod loads
them and no time is spent on it there. depmod is the guest's own, run on the host.

Ref: depmod(8), modprobe(8); the section .modinfo holds `depends=` and `name=`, zero-terminated.
"""

import lzma
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sidecar.qemu.linux.cpio import Entry
from sidecar.qemu.linux.kernels import LinuxKernel
from sidecar.qemu.linux.python import run_program

WANTED: tuple[str, ...] = ("msr", "cpuid", "kvm_amd", "kvm_intel")
"""MSR and CPUID devices for the no-module mode and tests; KVM for guests beside the sidecar's."""

DRIVER_FOLDER = "extra"
ABOUT = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
SUFFIX = re.compile(r"\.ko(\.xz)?$")


def module_entries(kernel: LinuxKernel, root: Path, driver: Path | None = None) -> Iterator[Entry]:
    """/lib/modules/<version> for the guest, with `driver`, a .ko file; `root` has the guest's programs."""
    stock = chosen_modules(kernel.modules, WANTED) if kernel.modules else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "lib" / "modules" / kernel.version
        for name, content in stock.items():
            _write(folder / name, content)
        if driver is not None:
            _write(folder / DRIVER_FOLDER / driver.name, driver.read_bytes())
        for name in ABOUT:
            file = kernel.modules / name if kernel.modules else None
            _write(folder / name, file.read_bytes() if file and file.is_file() else b"")
        program = next(name for name in ("bin/kmod", "usr/bin/kmod") if (root / name).is_file())
        run_program(root, program, "-b", scratch, kernel.version, name="depmod")
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = f"usr/lib/modules/{kernel.version}/{file.relative_to(folder).as_posix()}"
            yield Entry.file(name, file.read_bytes())


def chosen_modules(modules: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """The modules that are wanted, as far as there are any, and all they depend on: content by name below `modules`."""
    files = {_module_name(path): path for path in sorted((modules / "kernel").rglob("*.ko*"))}
    chosen: dict[str, bytes] = {}
    asked = list(wanted)
    while asked:
        path = files.get(asked.pop().replace("-", "_"))
        name = SUFFIX.sub(".ko", path.relative_to(modules).as_posix()) if path else ""
        if path is not None and name not in chosen:
            chosen[name] = content_of(path)
            asked += dependencies(chosen[name])
    return chosen


def content_of(path: Path) -> bytes:
    """The module itself, decompressed if need be."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def dependencies(module: bytes) -> list[str]:
    """What the module says it depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name for name in match.group(1).decode().split(",") if name] if match else []


def _module_name(path: Path) -> str:
    return SUFFIX.sub("", path.name).replace("-", "_")


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
