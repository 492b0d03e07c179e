"""The driver's sources: licence, size, style, and that they compile without a warning for both kernels.

The kernels' headers, and sparse, come from the project's cache. They are fetched only where every test must run; where
they are not in the cache otherwise, the compilation is skipped.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sidecar.qemu.linux.apt import Apt, release
from sidecar.qemu.linux.cache import Tell, cache_root
from sidecar.qemu.linux.kernels import WHICH, LinuxKernel, Which, kernel_package
from sidecar.qemu.linux.module import SETTINGS, compiler, module_name
from sidecar.qemu.linux.store import Store

ROOT = Path(__file__).resolve().parents[3]
DRIVER = ROOT / "driver"
SOURCES = sorted(DRIVER.glob("*.[ch]"))
GENERATED = "sidecar_abi.h"
LONGEST_FILE = 350
LONGEST_LINE = 100
BUILD_SECONDS = 300


class NotFetched(Exception):
    """What is wanted is not in the cache."""


def no_apt(root: Path, tell: Tell) -> Apt:
    raise NotFetched(f"not in {root.parent} (SIDECAR_BOOT=1 fetches it)")


@pytest.fixture
def store() -> Store:
    return Store(cache_root()) if os.environ.get("SIDECAR_BOOT") == "1" else Store(cache_root(), make_apt=no_apt)


def fetched(store: Store, which: Which) -> LinuxKernel:
    try:
        return kernel_package(which, store=store)
    except NotFetched as error:
        pytest.skip(f"the {which} kernel: {error}")


def sparse(store: Store) -> Path:
    """The installed one, else the release's package, unpacked."""
    if installed := shutil.which("sparse"):
        return Path(installed)
    try:
        return store.get(f"sparse-{release()}", lambda apt: [apt.candidate("sparse")]).root / "usr" / "bin" / "sparse"
    except NotFetched as error:
        pytest.skip(f"sparse: {error}")


def own_sources() -> list[Path]:
    return [source for source in SOURCES if source.name != GENERATED]


def code_lines(source: Path) -> list[str]:
    """The lines with their comments and strings blanked."""
    text = re.sub(r"/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), source.read_text(), flags=re.DOTALL)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text).splitlines()


@pytest.mark.parametrize("source", own_sources(), ids=lambda source: source.name)
class TestSource:
    def test_the_licence_stands_first_and_then_what_it_is(self, source: Path) -> None:
        first, second = source.read_text().splitlines()[:2]
        assert re.fullmatch(r"(// |/\* )SPDX-License-Identifier: MIT OR GPL-2.0( \*/)?", first)
        assert second == "/*"

    def test_it_is_of_a_size_to_be_read(self, source: Path) -> None:
        lines = source.read_text().splitlines()
        assert len(lines) <= LONGEST_FILE
        sentences = ("pr_err(", '"', "MODULE_PARM_DESC(")
        long = [line for line in lines if len(line.expandtabs(8)) > LONGEST_LINE]
        assert [line for line in long if not any(part in line for part in sentences)] == []

    def test_it_has_the_kernels_style(self, source: Path) -> None:
        """What checkpatch looks for first: tabs, no blanks at the end, no // comments, braces where functions begin."""
        text = source.read_text()
        assert not re.search(r"[ \t]$", text, re.MULTILINE)
        assert not re.search(r"^ {8}", text, re.MULTILINE)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n" not in text
        code = "\n".join(code_lines(source)[1:])
        assert "//" not in code
        assert not re.search(r"^\w[^;{}()]*\([^;{}]*\) \{$", code, re.MULTILINE)
        assert not re.search(r"\b(if|for|while|switch)\(", code)
        assert not re.search(r"\b(BUG|BUG_ON|panic)\(", code)

    def test_our_header_comes_first(self, source: Path) -> None:
        """It says how messages begin, which must be known before the kernel's headers are read."""
        if source.suffix == ".c":
            assert re.findall(r"^#include .*$", source.read_text(), re.MULTILINE)[0] == '#include "sidecar.h"'


def test_every_source_is_built() -> None:
    kbuild = (DRIVER / "Kbuild").read_text().replace("\\\n", " ")
    (objects,) = re.findall(r"^sidecar-y := (.*)$", kbuild, re.MULTILINE)
    assert {Path(name).stem for name in objects.split()} == {source.stem for source in SOURCES if source.suffix == ".c"}
    assert module_name(DRIVER) == "sidecar"
    assert 'MODULE_LICENSE("Dual MIT/GPL")' in (DRIVER / "main.c").read_text()


def test_the_parameters_and_the_folder_are_documented() -> None:
    guide = (ROOT / "docs" / "driver.md").read_text()
    main, sysfs = (DRIVER / "main.c").read_text(), (DRIVER / "sysfs.c").read_text()
    names = re.findall(r"^(?:CPU|NODE)_ATTRIBUTE\((\w+),", sysfs, re.MULTILINE)
    names += re.findall(r"^static (?:struct kobj_attribute cpu_\w+ = __ATTR_RO|BIN_ATTR)\((\w+)", sysfs, re.MULTILINE)
    names += re.findall(r"^module_param_\w+\((\w+),", main, re.MULTILINE)
    assert len(names) >= 27
    assert [name for name in names if f"`{name}`" not in guide] == []


def make(kernel: LinuxKernel, directory: Path, *arguments: str) -> str:
    """Builds a copy of the driver with all warnings; what make said."""
    assert kernel.headers is not None
    shutil.copytree(DRIVER, directory, ignore=shutil.ignore_patterns("*.o", "*.ko", ".*"))
    command = [
        "make", f"-j{os.cpu_count()}", "-C", str(kernel.headers), f"M={directory}", "W=1", *SETTINGS,
        *compiler(kernel.headers), *arguments, "modules",
    ]
    run = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=BUILD_SECONDS, check=False,
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def remarks(said: str) -> list[str]:
    """What is neither the name of a file at work nor make's own."""
    plain = re.compile(r"^(  [A-Z]+ .*|make.*|)$")
    return [line for line in said.splitlines() if not plain.match(line)]


@pytest.mark.needs("gcc", "make")
@pytest.mark.parametrize("which", WHICH)
def test_it_compiles_without_a_warning(which: Which, store: Store, tmp_path: Path) -> None:
    assert remarks(make(fetched(store, which), tmp_path / "driver")) == []
    assert (tmp_path / "driver" / "sidecar.ko").is_file()


@pytest.mark.needs("gcc", "make")
@pytest.mark.parametrize("which", WHICH)
def test_sparse_has_nothing_to_say(which: Which, store: Store, tmp_path: Path) -> None:
    kernel, program = fetched(store, which), sparse(store)
    said = make(kernel, tmp_path / "driver", "C=2", f"CHECK={program}")
    assert remarks(said) == []
    assert said.count("  CHECK ") == sum(source.suffix == ".c" for source in SOURCES)
