"""The driver compiles for both kernels without a warning at W=1, and sparse has nothing to say."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sidecar.qemu.linux.kernels import WHICH, LinuxKernel, Which
from sidecar.qemu.linux.module import SETTINGS, compiler
from tests.support.stock_linux import ROOT, StockLinux

DRIVER = ROOT / "driver"
BUILD_SECONDS = 100
MAKES_OWN = re.compile(r"^(  [A-Z]+ .*|make.*|)$")
"""Lines of make: the file at work, or what it does itself."""

BAD = """\
#include <linux/module.h>
int bad(const int __user *from);
int bad(const int __user *from) { return *from; }
int worse(void) { return 0; }
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("has two mistakes");
"""


def make(kernel: LinuxKernel, directory: Path, *arguments: str, source: Path = DRIVER) -> str:
    """Builds a copy of a module with all warnings; what make said."""
    assert kernel.headers is not None
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("*.o", "*.ko", ".*"))
    command = [
        "make", f"-j{os.cpu_count()}", "-C", str(kernel.headers), f"M={directory}", "W=1", *SETTINGS,
        *compiler(kernel.headers), *arguments, "modules",
    ]  # fmt: skip
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS, check=False,
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    return run.stdout


@pytest.mark.needs("gcc", "make", "sparse")
@pytest.mark.parametrize("which", WHICH)
def test_neither_the_compiler_nor_sparse_has_a_remark(stock_linux: StockLinux, which: Which, tmp_path: Path) -> None:
    said = make(stock_linux.kernels[which], tmp_path / "driver", "C=2", "CHECK=sparse")
    assert [line for line in said.splitlines() if not MAKES_OWN.match(line)] == []
    assert said.count("  CHECK ") == len(list(DRIVER.glob("*.c")))
    assert (tmp_path / "driver" / "sidecar.ko").is_file()


@pytest.mark.needs("gcc", "make", "sparse")
def test_a_remark_would_be_seen(stock_linux: StockLinux, tmp_path: Path) -> None:
    """Of the compiler, about a function without a prototype; of sparse, about a user's pointer that is dereferenced."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "Kbuild").write_text("obj-m := bad.o\n")
    (source / "bad.c").write_text(BAD)
    said = make(stock_linux.kernels["stable"], tmp_path / "built", "C=2", "CHECK=sparse", source=source)
    remarks = [line for line in said.splitlines() if not MAKES_OWN.match(line)]
    assert any("no previous prototype for" in line for line in remarks)
    assert any("dereference of noderef expression" in line for line in remarks)
