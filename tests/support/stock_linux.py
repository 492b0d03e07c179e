"""Debian's kernels for the boot tests: fetched, or the reason why the test is skipped."""

from pathlib import Path

import pytest

from sidecar.qemu.linux.apt import AptFailed
from sidecar.qemu.linux.kernels import LinuxKernel, Which, kernel_package
from sidecar.qemu.linux.module import build_module

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


def stock_kernel(which: Which) -> LinuxKernel:
    """The kernel; skips the test where the mirror of this host does not give it."""
    try:
        return kernel_package(which)
    except AptFailed as error:
        pytest.skip(str(error))


def sidecar_driver(kernel: LinuxKernel) -> Path:
    """The project's driver, built for the kernel."""
    return build_module(kernel, source=ROOT / "driver", output=ROOT / "build" / f"driver-{kernel.version}")


def hello_module(kernel: LinuxKernel, folder: Path) -> Path:
    """A small module, built for the kernel."""
    source = folder / "source"
    source.mkdir(parents=True)
    (source / "Kbuild").write_text("obj-m := hello.o\n")
    (source / "hello.c").write_text(HELLO)
    return build_module(kernel, source=source, output=folder / "hello")
