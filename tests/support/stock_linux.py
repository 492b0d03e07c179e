"""Debian's kernels for the tests: fetched, and the driver built for them, before the first test that boots one.

A test gets them by the fixture `stock_linux` (tests/conftest.py), also through another fixture:

    @pytest.fixture(scope="module")
    def session(stock_linux: StockLinux, request: pytest.FixtureRequest) -> Iterator[LinuxSession]:
        with stock_linux.guest(fresh_directory(request), smp=4) as booted:
            yield booted
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.qemu.linux.cache import Tell
from sidecar.qemu.linux.initramfs import initramfs
from sidecar.qemu.linux.kernels import WHICH, LinuxKernel, Which, kernel_package
from sidecar.qemu.linux.module import build_module
from sidecar.qemu.linux.userland import guest_root
from sidecar.qemu.linux_session import LinuxSession

ROOT = Path(__file__).resolve().parents[2]

HELLO = """\
#include <linux/module.h>
static int __init hello_init(void) { pr_info("hello: here\\n"); return 0; }
static void __exit hello_exit(void) { pr_info("hello: gone\\n"); }
module_init(hello_init);
module_exit(hello_exit);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("says hello");
"""


@dataclass(frozen=True, slots=True)
class StockLinux:
    """The kernels, and the project's driver built for each."""

    kernels: Mapping[Which, LinuxKernel]
    drivers: Mapping[Which, Path]

    def guest(
        self, directory: Path, *, smp: int, which: Which = "stable", append: str = "", numa: int = 1
    ) -> LinuxSession:
        """A machine to be booted by `with`, in which RAISE raises faults; the driver is not loaded yet."""
        return LinuxSession(
            kernel=self.kernels[which], smp=smp, numa=numa, driver=self.drivers[which],
            append=f"sidecar.tests {append}", directory=directory,
        )  # fmt: skip


def prepare_stock_linux(tell: Tell) -> StockLinux:
    """Fetches, builds and packs all that is not in the caches yet. Raises AptFailed, ModuleBuildFailed."""
    kernels: dict[Which, LinuxKernel] = {which: kernel_package(which, tell=tell) for which in WHICH}
    root = guest_root(tell=tell)
    drivers = {}
    for which, kernel in kernels.items():
        output = ROOT / "build" / f"driver-{kernel.version}"
        drivers[which] = build_module(kernel, source=ROOT / "driver", output=output, tell=tell)
        initramfs(kernel, guest=root, driver=drivers[which], tell=tell)
    return StockLinux(kernels, drivers)


def hello_module(kernel: LinuxKernel, folder: Path) -> Path:
    """A small module, built for the kernel."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "Kbuild").write_text("obj-m := hello.o\n")
    (source / "hello.c").write_text(HELLO)
    return build_module(kernel, source=source, output=folder / "hello")
